//! Modules of experts: what a router learns, and what runs token by token.

use std::fs;
use std::path::PathBuf;

use kernels::{Device, KvCache, PAGE_TOKENS, Span};
use model::{Adapter, Model, Router, Workspace};
use train::{Batch, Part, States, save_adapter, save_experts};

use crate::adapters::{together, trained};
use crate::{batch, golden_path, load};

const BASE: &str = "sha256:00";

fn path(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tessera-experts-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir.join(format!("{name}.safetensors"))
}

fn about() -> std::collections::BTreeMap<String, String> {
    [("base", BASE)].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Files of two adapters.
fn experts(dev: &Device, model: &Model, family: &str) -> [PathBuf; 2] {
    [3, 5].map(|rank| {
        let network = trained(dev, model, &batch(model.spec().vocab, &[40, 20]), rank);
        let path = path(&format!("{family}-{rank}"));
        save_adapter(&network, None, &about(), &path).unwrap();
        path
    })
}

/// The module of these adapters as it is opened again.
fn module(router: &Router, experts: &[PathBuf], name: &str) -> PathBuf {
    let part = |path: &PathBuf| Part {
        name: name.to_owned(),
        digest: "sha256:01".to_owned(),
        adapter: Adapter::open(path).unwrap(),
    };
    let path = path(&format!("{name}-module"));
    save_experts(router, &experts.iter().map(part).collect::<Vec<_>>(), &about(), &path).unwrap();
    path
}

/// A router that gives every token to one choice.
fn constant(model: &Model, layer: usize, choice: usize) -> Router {
    let bias = (0..3).map(|at| f32::from(u8::from(at == choice))).collect();
    Router { layer, weights: vec![0.0; 3 * model.spec().width], bias }
}

/// A router that tells the tokens of these documents apart as well as it can, and so gives something to each choice.
fn mixed(dev: &Device, model: &Model, layer: usize, documents: &[&[u32]; 3]) -> Router {
    let mut states = States::new(model, layer);
    states.read(dev, model, &[(0, documents[0]), (1, documents[1]), (2, documents[2])]);
    states.read(dev, model, &[(2, documents[2]), (0, documents[0]), (1, documents[1])]);
    let router = states.learn(dev, 3, 7);
    for choice in 0..3 {
        let picked = states.iter().filter(|(state, _)| router.pick(state).map_or(0, |expert| expert + 1) == choice);
        assert!(picked.count() > 2, "choice {choice}");
    }
    router
}

/// Of a batch of 70, 9 and 30 tokens.
fn documents(batch: &Batch) -> [&[u32]; 3] {
    [&batch.tokens[..70], &batch.tokens[70..79], &batch.tokens[79..]]
}

#[test]
fn a_router_in_front_of_all_layers_gives_what_its_choice_gives() {
    let dev = Device::new(2);
    for family in ["llama", "gemma3"] {
        let model = load(&dev, family);
        let files = experts(&dev, &model, family);
        let [first, second] = files.each_ref().map(|file| Adapter::open(file).unwrap().load(model.spec()).unwrap());
        let document = &batch(model.spec().vocab, &[40]).tokens[..];
        for (choice, alone) in [None, Some(&first), Some(&second)].into_iter().enumerate() {
            let module = module(&constant(&model, 0, choice), &files, family);
            let module = Adapter::open(&module).unwrap().load(model.spec()).unwrap();
            let [got, want] = [Some(&module), alone].map(|adapter| together(&dev, &model, &[document], &[adapter]));
            assert_eq!(got, want, "{family}: choice {choice}");
        }
    }
}

/// Rows of a module, of an adapter and of none share a step, and none of them knows.
#[test]
fn tokens_choose_alone() {
    let dev = Device::new(2);
    for family in ["llama", "gemma3"] {
        let model = load(&dev, family);
        let files = experts(&dev, &model, family);
        let batch = batch(model.spec().vocab, &[70, 9, 30]);
        let documents = documents(&batch);
        let router = mixed(&dev, &model, 1, &documents);
        let module = Adapter::open(&module(&router, &files, &format!("{family}-alone"))).unwrap();
        let (module, adapter) =
            (module.load(model.spec()).unwrap(), Adapter::open(&files[0]).unwrap().load(model.spec()).unwrap());
        for of in [[Some(&module), None, Some(&adapter)], [Some(&adapter), Some(&module), Some(&module)]] {
            let all = together(&dev, &model, &documents, &of);
            for ((document, adapter), got) in documents.iter().zip(of).zip(&all) {
                assert_eq!(*got, together(&dev, &model, &[document], &[adapter])[0], "{family}: the same bits alone");
            }
        }
        let plain = together(&dev, &model, &documents[..1], &[None]);
        assert_ne!(plain, together(&dev, &model, &documents[..1], &[Some(&module)]), "{family}");
    }
}

/// A tiny Gemma whose tokens all leave behind two of seven layers where they may.
fn leaving(dev: &Device) -> Model {
    let copy = std::env::temp_dir().join(format!("tessera-experts-leaving-{}", std::process::id()));
    fs::create_dir_all(&copy).unwrap();
    for file in fs::read_dir(golden_path("gemma3")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let config = fs::read_to_string(copy.join("config.json")).unwrap();
    fs::write(copy.join("config.json"), config.replacen('{', "{\"exits\": {\"2\": 1e-30},", 1)).unwrap();
    let model = Model::load(dev, &copy, &|_, _| {}).unwrap();
    fs::remove_dir_all(copy).unwrap();
    model
}

/// Final states of documents that are read in one step; those without a module leave where they may.
fn read(dev: &Device, model: &Model, documents: &[(&[u32], Option<&Adapter>)]) -> Vec<Vec<f32>> {
    let (mut start, mut page, mut tokens, mut early) = (0, 0, Vec::new(), Vec::new());
    let mut places = Vec::new();
    for (document, module) in documents {
        let pages: Vec<u32> = (page..).take(document.len().div_ceil(PAGE_TOKENS)).collect();
        page += pages.len() as u32;
        early.extend((start..start + document.len()).filter(|_| module.is_none()).map(|row| row as u32));
        places.push((start, document.len(), pages));
        tokens.extend_from_slice(document);
        start = tokens.len();
    }
    let spans: Vec<Span<'_>> =
        places.iter().map(|(start, len, pages)| Span { start: *start, len: *len, position: 0, pages }).collect();
    let (outputs, adapters): (Vec<u32>, Vec<_>) =
        ((0..tokens.len() as u32).collect(), documents.iter().map(|(_, module)| *module).collect());
    let batch =
        model::Batch { tokens: &tokens, spans: &spans, outputs: &outputs, adapters: &adapters, leaving: &early };
    let (mut cache, mut work) = (model.new_cache(page as usize), Workspace::default());
    let hidden = model.forward(dev, &mut cache, &batch, &mut work).to_vec();
    let width = model.spec().width;
    places.iter().map(|(start, len, _)| hidden[start * width..(start + len) * width].to_vec()).collect()
}

/// Rows that leave take nothing away from rows whose router stands behind the exit.
#[test]
fn who_leaves_early_leaves_the_others_to_their_router() {
    let dev = Device::new(2);
    let model = leaving(&dev);
    let files = experts(&dev, &model, "leaving");
    let batch = batch(model.spec().vocab, &[70, 9, 30]);
    let documents = documents(&batch);
    let router = mixed(&dev, &model, 4, &documents);
    let module = Adapter::open(&module(&router, &files, "leaving")).unwrap().load(model.spec()).unwrap();
    let all = [(documents[1], None), (documents[0], Some(&module)), (documents[2], None)];
    let together = read(&dev, &model, &all);
    for (one, got) in all.iter().zip(&together) {
        assert!(*got == read(&dev, &model, &[*one])[0], "the same bits alone");
    }
    assert!(together[1] != read(&dev, &load(&dev, "gemma3"), &[(documents[0], None)])[0], "its experts were there");
}

/// The last hidden state behind a document that is read so many tokens at a time.
fn last(
    dev: &Device,
    model: &Model,
    cache: &mut KvCache,
    (document, step): (&[u32], usize),
    module: &Adapter,
) -> Vec<f32> {
    let pages: Vec<u32> = (0..document.len().div_ceil(PAGE_TOKENS) as u32).collect();
    let (mut work, mut position, mut hidden) = (Workspace::default(), 0, Vec::new());
    for tokens in document.chunks(step) {
        let spans = [Span { start: 0, len: tokens.len(), position, pages: &pages }];
        let (outputs, adapters) = ([tokens.len() as u32 - 1], [Some(module)]);
        let batch = model::Batch { tokens, spans: &spans, outputs: &outputs, adapters: &adapters, leaving: &[] };
        hidden = model.forward(dev, cache, &batch, &mut work).to_vec();
        position += tokens.len();
    }
    hidden
}

#[test]
fn a_text_read_at_once_chooses_as_one_read_word_by_word() {
    let dev = Device::new(2);
    for family in ["llama", "gemma3", "qwen2"] {
        let model = load(&dev, family);
        let files = experts(&dev, &model, family);
        let batch = batch(model.spec().vocab, &[70, 9, 30]);
        let documents = documents(&batch);
        let router = mixed(&dev, &model, 1, &documents);
        let module = Adapter::open(&module(&router, &files, &format!("{family}-word"))).unwrap();
        let module = module.load(model.spec()).unwrap();
        let read = |step: usize| last(&dev, &model, &mut model.new_cache(8), (documents[0], step), &module);
        let whole = read(70);
        assert!(whole == read(1) && whole == read(13), "{family}");
    }
}

#[test]
fn modules_that_cannot_be_used_are_refused() {
    let dev = Device::new(1);
    let model = load(&dev, "llama");
    let files = experts(&dev, &model, "refused");
    let router = constant(&model, 1, 1);
    let check = |router: &Router, want: &str| {
        let opened = Adapter::open(&module(router, &files, "refused")).unwrap();
        assert!(opened.is_module() && opened.base() == BASE);
        let error = opened.load(model.spec()).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("refused-module"), "{error}");
    };
    check(&Router { layer: 99, ..router.clone() }, "router_layer is 99, but the model has");
    check(&Router { weights: vec![0.0; 3 * 7], ..router.clone() }, "tensor router.weights: is [3, 7], not 3 x");
    check(&Router { bias: vec![f32::NAN; 3], ..router.clone() }, "router.bias");
    let path = module(&router, &files, "damaged");
    let opened = Adapter::open(&path).unwrap();
    let error = opened.product(0, "up", [1, 1]).unwrap_err().to_string();
    assert!(error.contains("take one of its adapters"), "{error}");
    let whole = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&whole).into_owned();
    let told = |from: &str, to: &str, want: &str| {
        assert!(text.contains(from) && from.len() == to.len(), "{from}");
        let at = whole.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut other = whole.clone();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&path, other).unwrap();
        let error =
            Adapter::open(&path).and_then(|opened| opened.load(model.spec()).map(drop)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    };
    told("\"experts\":\"2\"", "\"experts\":\"0\"", "experts must be a whole number from 1 on, below 65");
    told("\"experts\":\"2\"", "\"experts\":\"3\"", "expert.2.format is \"nothing\"");
    told("\"router_layer\":\"1\"", "\"router_layer\":\"x\"", "router_layer must be a whole number");
    told("\"expert.1.alpha\":\"8\"", "\"expert.1.alpha\":\"0\"", "expert.1.alpha must be a positive number");
    told("\"expert.0.layers.1.up.a\"", "\"expert.0.layers.1.up.z\"", "expert.0.layers.1.up.a: is missing");
    told("\"router.bias\"", "\"router.bios\"", "router.bias: is missing");
    for len in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        assert!(Adapter::open(&path).is_err(), "cut to {len} bytes");
    }
}
