//! Every family against `transformers` on tiny random checkpoints (`goldens/make.py`), from both formats; and the same bits
//! whatever the chunks, the batch and the threads.

use std::fs::File;

use kernels::{Device, Isa};
use model::{HeadWorkspace, Model, Norms, TokenizerSource, Workspace};
use serde::Deserialize;

use crate::runner::{Runner, golden_path, load, logits};

#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    rows: Vec<usize>,
    values: Vec<Vec<f32>>,
}

fn golden(name: &str) -> Golden {
    let file = File::open(golden_path(name).join("golden.json")).unwrap();
    serde_json::from_reader(std::io::BufReader::new(file)).unwrap()
}

fn hidden_states(dev: &Device, model: &Model, tokens: &[u32]) -> Vec<f32> {
    if model.spec().encoder {
        return model.encode(dev, tokens, &[tokens.len()], &mut Workspace::default()).to_vec();
    }
    Runner::chunked(dev, model, tokens, tokens.len())
}

/// Compares with the golden, relative to its largest value.
fn check(source: &str, tolerance: f32) {
    let golden = golden(source.split('/').next().unwrap());
    for isa in Isa::available() {
        let dev = Device::with_isa(2, isa);
        let model = load(&dev, &golden_path(source));
        let hidden = hidden_states(&dev, &model, &golden.tokens);
        let (values, width) = match model.spec().encoder {
            true => (hidden, model.spec().width),
            false => (logits(&dev, &model, &hidden), model.spec().vocab),
        };
        let scale = golden.values.iter().flatten().fold(1.0f32, |max, x| max.max(x.abs()));
        for (&row, expected) in golden.rows.iter().zip(&golden.values) {
            for (found, expected) in values[row * width..].iter().zip(expected) {
                let off = (found - expected).abs() / scale;
                assert!(off <= tolerance, "{source} {isa:?} row {row}: {found} instead of {expected}, off by {off}");
            }
        }
    }
}

macro_rules! goldens {
    ($($name:ident: $source:literal, $tolerance:literal;)*) => {
        $(#[test] fn $name() { check($source, $tolerance); })*
    };
}

goldens! {
    llama: "llama", 1e-4;
    llama_gguf: "llama/model.gguf", 1e-4;
    llama3_rope_biases_tied: "llama3", 1e-4;
    llama3_rope_biases_tied_gguf: "llama3/model.gguf", 1e-4;
    llama_linear_rope: "llama-linear", 1e-4;
    llama_linear_rope_gguf: "llama-linear/model.gguf", 1e-4;
    llama_yarn_rope: "llama-yarn", 1e-4;
    llama_yarn_rope_gguf: "llama-yarn/model.gguf", 1e-4;
    gemma3: "gemma3", 1e-4;
    gemma3_gguf: "gemma3/model.gguf", 1e-4;
    qwen2_sharded: "qwen2", 1e-4;
    qwen2_gguf: "qwen2/model.gguf", 1e-4;
    bert: "bert", 1e-4;
    bert_gguf: "bert/model.gguf", 1e-4;
    // Int8 activations meet Q8_0 weights here: rounding, not arithmetic, sets the distance.
    llama_mixed_types_gguf: "llama-mixed/model.gguf", 2e-2;
}

const DECODERS: [&str; 5] = ["llama", "llama3/model.gguf", "gemma3", "qwen2", "llama-mixed/model.gguf"];

#[test]
fn chunks_give_the_same_bits() {
    for source in DECODERS {
        let tokens = golden(source.split('/').next().unwrap()).tokens;
        let dev = Device::new(2);
        let model = load(&dev, &golden_path(source));
        let whole = Runner::chunked(&dev, &model, &tokens, tokens.len());
        for chunk in [1, 7, 64] {
            assert!(whole == Runner::chunked(&dev, &model, &tokens, chunk), "{source} in chunks of {chunk}");
        }
        let single = Device::new(1);
        assert!(whole == Runner::chunked(&single, &model, &tokens, 33), "{source} on one thread");
    }
}

#[test]
fn only_wanted_rows_give_the_same_bits() {
    for source in DECODERS {
        let tokens = golden(source.split('/').next().unwrap()).tokens;
        let dev = Device::new(2);
        let model = load(&dev, &golden_path(source));
        let width = model.spec().width;
        let whole = Runner::chunked(&dev, &model, &tokens, tokens.len());
        for wanted in [&[79][..], &[], &[0, 1, 2, 40, 41, 79]] {
            let mut runner = Runner::new(&dev, &model, 1, 100);
            let found = runner.step(&[(0, &tokens)], wanted);
            let expected = wanted.iter().flat_map(|&row| &whole[row as usize * width..][..width]);
            assert!(found.iter().eq(expected), "{source}, rows {wanted:?}");
            // What was stored must serve the next token as well.
            let next = runner.step(&[(0, &[5])], &[0]);
            let longer: Vec<u32> = tokens.iter().copied().chain([5]).collect();
            let whole = Runner::chunked(&dev, &model, &longer, longer.len());
            assert!(next == whole[80 * width..], "{source} after rows {wanted:?}");
        }
    }
}

#[test]
fn batches_give_the_same_bits_as_singles() {
    for source in DECODERS {
        let tokens = golden(source.split('/').next().unwrap()).tokens;
        let dev = Device::new(2);
        let model = load(&dev, &golden_path(source));
        let width = model.spec().width;
        let sequences = [&tokens[..70], &tokens[10..15], &tokens[3..43]];
        let singles: Vec<_> = sequences.iter().map(|s| Runner::chunked(&dev, &model, s, s.len())).collect();
        let mut runner = Runner::new(&dev, &model, 3, 80);
        // A prompt, one token, a piece of a prompt; then the rest in another order, only last rows wanted.
        let first = [(0, &sequences[0][..66]), (1, &sequences[1][..1]), (2, &sequences[2][..30])];
        let rows: Vec<u32> = (0..97).collect();
        let mixed = runner.step(&first, &rows);
        let expected = [&singles[0][..66 * width], &singles[1][..width], &singles[2][..30 * width]].concat();
        assert!(mixed == expected, "{source}, first step");
        let second = [(2, &sequences[2][30..]), (0, &sequences[0][66..]), (1, &sequences[1][1..])];
        let ends = runner.step(&second, &[9, 13, 17]);
        let last = |i: usize| &singles[i][singles[i].len() - width..];
        assert!(ends == [last(2), last(0), last(1)].concat(), "{source}, second step");
    }
}

#[test]
fn encoder_batches_give_the_same_bits_as_singles() {
    let tokens = golden("bert").tokens;
    let dev = Device::new(2);
    let model = load(&dev, &golden_path("bert"));
    let (a, b) = (&tokens[..13], &tokens[13..]);
    let singles = [hidden_states(&dev, &model, a), hidden_states(&dev, &model, b)].concat();
    let both = model.encode(&dev, &tokens, &[a.len(), b.len()], &mut Workspace::default()).to_vec();
    assert!(both == singles);
}

#[test]
fn logits_of_some_tokens_are_those_of_all() {
    for source in DECODERS {
        let tokens = golden(source.split('/').next().unwrap()).tokens;
        let dev = Device::new(2);
        let model = load(&dev, &golden_path(source));
        let hidden = Runner::chunked(&dev, &model, &tokens[..3], 3);
        let (all, wanted) = (logits(&dev, &model, &hidden), [60, 0, 17]);
        let mut some = vec![0.0; 9];
        model.logits_of(&dev, &hidden, &wanted, &mut HeadWorkspace::default(), &mut some);
        let expected = all.chunks(model.spec().vocab).flat_map(|row| wanted.map(|token| row[token as usize]));
        assert!(some.iter().copied().eq(expected), "{source}");
    }
}

#[test]
fn gemma_layers_alternate() {
    let dev = Device::new(1);
    let model = load(&dev, &golden_path("gemma3/model.gguf"));
    let windows: Vec<_> = model.spec().layers.iter().map(|l| l.attention.window).collect();
    assert_eq!(windows, [Some(6), Some(6), Some(6), Some(6), Some(6), None, Some(6)]);
    assert!(model.spec().layers.iter().all(|l| l.norms == Norms::Around && l.qk_norm));
}

#[test]
fn vocabulary_comes_with_a_gguf_file() {
    let dev = Device::new(1);
    let mut model = load(&dev, &golden_path("llama/model.gguf"));
    let TokenizerSource::Vocabulary(found) = model.take_tokenizer_source() else { panic!("no vocabulary") };
    assert_eq!((found.kind.as_str(), found.tokens.len(), found.scores[2]), ("llama", 61, -2.0));
    assert_eq!((found.bos, found.eos, found.eot, found.types[2]), (Some(1), Some(2), None, 3));
    assert!(found.add_bos && found.add_space_prefix && !found.add_eos);
}

#[test]
fn inspection_agrees_with_loading() {
    for source in ["llama", "llama/model.gguf", "gemma3", "qwen2", "bert/model.gguf"] {
        let found = model::inspect(&golden_path(source)).unwrap();
        let model = load(&Device::new(1), &golden_path(source));
        assert_eq!(&found.spec, model.spec());
        assert_eq!(found.weight_bytes, found.tensors.iter().map(|t| t.bytes).sum::<u64>());
        assert_eq!(found.kv_bytes_per_token, model.spec().kv_bytes_per_token());
    }
    assert_eq!(model::inspect(&golden_path("llama")).unwrap().kv_bytes_per_token, 2 * 2 * 2 * 2 * 4);
}
