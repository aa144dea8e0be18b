//! What was learned beside a model, as the file that [`model::Adapter`] reads: an adapter, or a module of several with their router.

use std::collections::BTreeMap;
use std::path::Path;

use kernels::Device;
use model::{
    DOMAIN, Domain, EXPERTS, EXPERTS_FORMAT, FORMAT, GENERAL, OpenedAdapter, ROUTER_BIAS, ROUTER_LAYER, ROUTER_WEIGHTS,
    Router, THRESHOLD, adapted_layers, expert_prefix,
};

use crate::{Error, Learned, Network, file};

/// Takes an adapter into the weights of a network that learns all of them: it goes on from what runs with the adapter beside the model.
///
/// # Errors
/// Whatever is wrong with the adapter, or that it is of another model.
///
/// # Panics
/// When not all of the network's weights learn here.
pub fn merge_adapter(dev: &Device, network: &mut Network, adapter: &OpenedAdapter) -> Result<(), model::Error> {
    let spec = network.spec().clone();
    assert_eq!(network.learned(), Learned::All, "there are weights to change");
    let layers = spec.layers.iter().enumerate();
    let adapted = layers.flat_map(|(number, layer)| {
        adapted_layers(&spec, layer)
            .into_iter()
            .map(move |(name, _)| (format!("layers.{number}.{name}"), (number, name)))
    });
    let adapted: BTreeMap<String, (usize, &str)> = adapted.collect();
    let entries = network.params.entries().to_vec();
    for entry in &entries {
        let Some(&(layer, name)) = adapted.get(&entry.name) else { continue };
        let added = adapter.product(layer, name, entry.shape)?;
        let weights = &mut network.params.values[entry.range.clone()];
        weights.iter_mut().zip(added).for_each(|(weight, added)| *weight += added);
    }
    network.refresh(dev);
    Ok(())
}

/// Writes a network's adapters, and where their domain lies if somebody found out. `about` is kept beside them; `base` in it must be the digest of the
/// model's file.
///
/// # Errors
/// When no adapters learned, or the file cannot be written; what stood under this name before stands there still.
pub fn save_adapter(
    network: &Network,
    domain: Option<&Domain>,
    about: &BTreeMap<String, String>,
    path: &Path,
) -> Result<(), Error> {
    let Learned::Adapters(lora) = network.learned() else { return Err(Error::NoAdapters) };
    let own = [("format", FORMAT.to_owned()), ("rank", lora.rank.to_string()), ("alpha", lora.alpha.to_string())];
    let threshold = domain.map(|domain| (THRESHOLD, domain.threshold.to_string()));
    let own = own.into_iter().chain(threshold).map(|(key, value)| (key.to_owned(), value));
    let metadata = about.clone().into_iter().chain(own).collect();
    let numbers = &network.params.values;
    let entries = network.params.entries().iter();
    let entries = entries.map(|entry| (entry.name.clone(), entry.shape.to_vec(), &numbers[entry.range.clone()]));
    let vectors = domain.into_iter().flat_map(|domain| [(GENERAL, &domain.general), (DOMAIN, &domain.direction)]);
    let vectors = vectors.map(|(name, vector)| (name.to_owned(), vec![vector.len()], vector.as_slice()));
    file::write(path, entries.chain(vectors), metadata)
}

/// An adapter that becomes an expert of a module.
#[derive(Debug)]
pub struct Part {
    /// What it was called.
    pub name: String,
    /// What identifies its file.
    pub digest: String,
    /// The file.
    pub adapter: OpenedAdapter,
}

/// Writes a module: all that these adapters' files say, under a name for each, and the router that picks among them. `about` is kept beside
/// them; `base` in it must be the digest that every one of them has.
///
/// # Errors
/// A file cannot be read, or the module not be written; what stood under this name before stands there still.
///
/// # Panics
/// When the router has other experts.
pub fn save_experts(
    router: &Router,
    parts: &[Part],
    about: &BTreeMap<String, String>,
    path: &Path,
) -> Result<(), Error> {
    assert_eq!(router.experts(), parts.len(), "a row of the router for every expert");
    let own = [
        ("format", EXPERTS_FORMAT.to_owned()),
        (EXPERTS, parts.len().to_string()),
        (ROUTER_LAYER, router.layer.to_string()),
    ];
    let mut metadata: std::collections::HashMap<_, _> = about.clone().into_iter().collect();
    metadata.extend(own.map(|(key, value)| (key.to_owned(), value)));
    let mut tensors = Vec::new();
    for (number, Part { name, digest, adapter }) in parts.iter().enumerate() {
        let prefixed = |name: &str| format!("{}{name}", expert_prefix(number));
        metadata.extend(adapter.about().iter().map(|(key, value)| (prefixed(key), value.clone())));
        metadata.extend([("name", name), ("digest", digest)].map(|(key, value)| (prefixed(key), value.clone())));
        for info in adapter.tensors() {
            tensors.push((prefixed(&info.name), info.shape.clone(), adapter.numbers(&info.name)?));
        }
    }
    let (choices, width) = (router.bias.len(), router.weights.len() / router.bias.len());
    let router = [
        (ROUTER_WEIGHTS.to_owned(), vec![choices, width], &router.weights[..]),
        (ROUTER_BIAS.to_owned(), vec![choices], &router.bias[..]),
    ];
    let tensors = tensors.iter().map(|(name, shape, numbers)| (name.clone(), shape.clone(), numbers.as_slice()));
    file::write(path, tensors.chain(router), metadata)
}
