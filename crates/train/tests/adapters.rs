//! What was learned beside a model is what runs beside it: the trained network against inference with the file that it left.

use std::fs;

use kernels::{Device, PAGE_TOKENS, Precision, Span};
use model::{Adapter, Domain, HeadWorkspace, Model, OpenedAdapter, Workspace};
use train::{Batch, Learned, Lora, Network, Optimizer, Rule, merge_adapter, save_adapter};

use crate::{FAMILIES, batch, load};

/// A network after some steps on this batch, its adapters large enough to be seen.
pub(crate) fn trained(dev: &Device, model: &Model, batch: &Batch, rank: usize) -> Network {
    let lora = Learned::Adapters(Lora { rank, alpha: 8.0, seed: rank as u64 });
    let mut network = Network::new(dev, model, lora, Precision::F32);
    let mut optimizer = Optimizer::new(Rule::default(), &network.params);
    for _ in 0..8 {
        network.learn(dev, batch);
        optimizer.step(dev, &mut network.params, 0.02);
        network.refresh(dev);
    }
    network
}

/// The adapter's file as it is opened again.
fn through_a_file(network: &Network, name: &str) -> OpenedAdapter {
    let dir = std::env::temp_dir().join(format!("tessera-adapters-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{name}.safetensors"));
    let about = [("base", "sha256:00")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    save_adapter(network, None, &about, &path).unwrap();
    let opened = Adapter::open(&path).unwrap();
    assert_eq!(opened.base(), "sha256:00");
    // It is open still.
    fs::remove_file(&path).unwrap();
    opened
}

/// Logits behind each row of the documents, all of them in one step, each with its adapter.
pub(crate) fn together(
    dev: &Device,
    model: &Model,
    documents: &[&[u32]],
    adapters: &[Option<&Adapter>],
) -> Vec<Vec<f32>> {
    let per = documents.iter().map(|d| d.len().div_ceil(PAGE_TOKENS)).max().unwrap() as u32;
    let pages: Vec<Vec<u32>> = (0..documents.len() as u32).map(|i| (i * per..(i + 1) * per).collect()).collect();
    let mut cache = model.new_cache(documents.len() * per as usize);
    let mut start = 0;
    let spans: Vec<Span<'_>> = documents
        .iter()
        .zip(&pages)
        .map(|(document, pages)| {
            let span = Span { start, len: document.len(), position: 0, pages };
            start += document.len();
            span
        })
        .collect();
    let (tokens, outputs): (Vec<u32>, Vec<u32>) = (documents.concat(), (0..start as u32).collect());
    let (mut work, step) = (
        Workspace::default(),
        model::Batch { tokens: &tokens, spans: &spans, outputs: &outputs, adapters, leaving: &[] },
    );
    let hidden = model.forward(dev, &mut cache, &step, &mut work).to_vec();
    let vocab = model.spec().vocab;
    let mut logits = vec![0.0; start * vocab];
    model.logits(dev, &hidden, &mut HeadWorkspace::default(), &mut logits);
    let mut rows = logits.chunks(vocab);
    documents.iter().map(|document| rows.by_ref().take(document.len()).flatten().copied().collect()).collect()
}

#[test]
fn what_was_learned_is_what_runs() {
    let dev = Device::new(2);
    for family in FAMILIES {
        let model = load(&dev, family);
        let batch = batch(model.spec().vocab, &[40]);
        let document = &batch.tokens[..];
        let mut network = trained(&dev, &model, &batch, 4);
        let opened = through_a_file(&network, family);
        assert_eq!(opened.domain(model.spec()).unwrap(), None);
        let adapter = opened.load(model.spec()).unwrap();
        let logits = together(&dev, &model, &[document], &[Some(&adapter)]).remove(0);
        let plain = together(&dev, &model, &[document], &[None]).remove(0);
        let loss = |logits: &[f32]| {
            let rows = logits.chunks(model.spec().vocab).zip(&batch.targets).zip(&batch.weights);
            rows.map(|((row, target), weight)| weight * (kernels::log_sum_exp(&dev, row) - row[*target as usize]))
                .sum::<f32>()
        };
        let want = network.losses(&dev, &batch).total as f32;
        // Adapters run in f16, keys and values too.
        assert!((loss(&logits) - want).abs() < 1e-2 * want.max(0.1), "{family}: {}, not {want}", loss(&logits));
        assert!(loss(&plain) > want + 0.5, "{family}: {} without the adapter, {want} with it", loss(&plain));
        let mut merged = Network::new(&dev, &model, Learned::All, Precision::F32);
        merge_adapter(&dev, &mut merged, &opened).unwrap();
        let merged = merged.losses(&dev, &batch).total as f32;
        assert!((merged - want).abs() < 1e-4, "{family}: {merged} in the weights, {want} beside them");
    }
}

/// Rows of several adapters and of none share a step, and none of them knows.
#[test]
fn rows_do_not_see_whose_adapters_stand_beside() {
    let dev = Device::new(2);
    for family in ["llama", "gemma3"] {
        let model = load(&dev, family);
        let batch = batch(model.spec().vocab, &[70, 9, 30]);
        let documents = [&batch.tokens[..70], &batch.tokens[70..79], &batch.tokens[79..]];
        let adapters = [3, 8].map(|rank| {
            let network = trained(&dev, &model, &batch, rank);
            through_a_file(&network, &format!("{family}-{rank}")).load(model.spec()).unwrap()
        });
        let of = [Some(&adapters[0]), None, Some(&adapters[1])];
        let all = together(&dev, &model, &documents, &of);
        for ((document, adapter), got) in documents.iter().zip(of).zip(&all) {
            assert_eq!(*got, together(&dev, &model, &[document], &[adapter])[0], "{family}: the same bits alone");
        }
        assert_ne!(all[0], together(&dev, &model, &documents[..1], &[Some(&adapters[1])])[0]);
    }
}

#[test]
fn files_of_other_models_are_refused() {
    let dev = Device::new(1);
    let (llama, gemma) = (load(&dev, "llama"), load(&dev, "gemma3"));
    let batch = batch(llama.spec().vocab.min(gemma.spec().vocab), &[10]);
    let network = trained(&dev, &llama, &batch, 2);
    let path = std::env::temp_dir().join(format!("tessera-other-{}.safetensors", std::process::id()));
    save_adapter(&network, None, &Default::default(), &path).unwrap();
    let error = Adapter::open(&path).unwrap().load(gemma.spec()).unwrap_err().to_string();
    assert!(error.contains("of another model"), "{error}");
    let whole = fs::read(&path).unwrap();
    for len in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(Adapter::open(&path).is_err(), "cut to {len} bytes");
    }
    // A model's own weights are no adapter.
    let weights = crate::golden_path("llama").join("model.safetensors");
    assert!(Adapter::open(&weights).unwrap_err().to_string().contains("no adapter of ours"));
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_domain_comes_back_from_the_file() {
    let dev = Device::new(1);
    let model = load(&dev, "llama");
    let network = trained(&dev, &model, &batch(model.spec().vocab, &[10]), 2);
    let path = std::env::temp_dir().join(format!("tessera-domain-{}.safetensors", std::process::id()));
    let width = model.spec().width;
    let save = |width: usize, threshold: f32| {
        let numbers = |by: f32| (0..width).map(|i| by * i as f32).collect();
        let domain = Domain { general: numbers(0.1), direction: numbers(-0.3), threshold };
        save_adapter(&network, Some(&domain), &Default::default(), &path).unwrap();
        let opened = Adapter::open(&path).unwrap();
        opened.load(model.spec()).unwrap();
        (domain, opened.domain(model.spec()))
    };
    let (domain, found) = save(width, 0.625);
    assert_eq!(found.unwrap(), Some(domain));
    let error = save(width + 1, 0.5).1.unwrap_err().to_string();
    assert!(error.contains("domain.general") && error.contains(&format!("not {width} numbers")), "{error}");
    assert!(save(width, f32::NAN).1.unwrap_err().to_string().contains("domain_threshold"));
    fs::remove_file(&path).unwrap();
}
