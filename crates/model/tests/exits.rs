//! Tokens that leave early: what they give, what they leave behind, and that nobody beside them notices.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::Device;
use model::{Exit, Model};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::runner::{Runner, golden_path, load, logits};

/// A copy of a tiny checkpoint with another `config.json`, gone at its end.
struct Copy(PathBuf);

impl Copy {
    fn new(name: &str, family: &str, change: impl Fn(&mut Value)) -> Self {
        let path = std::env::temp_dir().join(format!("tessera-exits-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for file in fs::read_dir(golden_path(family)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), path.join(file.file_name())).unwrap();
        }
        let config = path.join("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        change(&mut json);
        fs::write(config, json.to_string()).unwrap();
        Self(path)
    }

    fn exits(name: &str, family: &str, exits: &Value) -> Self {
        Self::new(name, family, |config| config["exits"] = exits.clone())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A threshold that every token passes.
const ALWAYS: f32 = 1e-30;
const PROMPT: [u32; 9] = [1, 5, 9, 2, 30, 4, 44, 3, 17];
const ANSWER: [u32; 12] = [7, 21, 3, 50, 11, 8, 60, 2, 33, 19, 5, 41];

/// What every token of an answer gives, step by step; and layers that were skipped.
fn decode(runner: &mut Runner<'_>, sequence: usize, leaves: bool) -> (Vec<f32>, usize) {
    runner.step(&[(sequence, &PROMPT)], &[8]);
    let leaving: &[u32] = if leaves { &[0] } else { &[] };
    let mut skipped = 0;
    let mut step = |token: &u32| {
        let hidden = runner.step_leaving(&[(sequence, &[*token])], &[0], leaving);
        skipped += runner.skipped();
        hidden
    };
    let hidden = ANSWER.iter().flat_map(&mut step).collect();
    (hidden, skipped)
}

fn answer(dev: &Device, model: &Model, leaves: bool) -> (Vec<f32>, usize) {
    decode(&mut Runner::new(dev, model, 1, 64), 0, leaves)
}

/// The probability of the likeliest token behind each row.
fn confidences(dev: &Device, model: &Model, hidden: &[f32]) -> Vec<f32> {
    let most = |row: &[f32]| {
        let sum: f32 = row.iter().map(|x| x.exp()).sum();
        row.iter().fold(0.0_f32, |max, x| max.max(x.exp())) / sum
    };
    logits(dev, model, hidden).chunks_exact(model.spec().vocab).map(most).collect()
}

#[test]
fn exits_are_read_and_wrong_ones_are_refused() {
    let dev = Device::new(1);
    let copy = Copy::exits("read", "gemma3", &json!({"2": 0.5, "5": 1}));
    let exits = load(&dev, &copy.0).spec().exits.clone();
    assert_eq!(exits, [Exit { after: 2, threshold: 0.5 }, Exit { after: 5, threshold: 1.0 }]);
    let refused = [
        (json!({"0": 0.5}), "\"0\" is no layer from 1 to below 7"),
        (json!({"7": 0.5}), "\"7\" is no layer"),
        (json!({"two": 0.5}), "\"two\" is no layer"),
        (json!({"2": 0.5, "02": 0.6}), "has layer 2 twice"),
        (json!({"2": 0}), "a threshold of 0 is not above 0"),
        (json!({"2": 1.5}), "a threshold of 1.5"),
        (json!({"2": "high"}), "expected names with finite numbers"),
        (json!([2, 5]), "expected names with finite numbers"),
    ];
    for (exits, want) in refused {
        let copy = Copy::exits("wrong", "gemma3", &exits);
        let error = Model::load(&dev, &copy.0, &|_, _| {}).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains("config.json"), "{exits}: {error}");
    }
}

#[test]
fn exits_that_never_fire_change_no_bit() {
    let dev = Device::new(2);
    for (family, exits) in [("llama", json!({"1": 1.0})), ("gemma3", json!({"2": 1.0, "5": 1.0}))] {
        let copy = Copy::exits(&format!("never-{family}"), family, &exits);
        let found = answer(&dev, &load(&dev, &copy.0), true);
        assert!(found == (answer(&dev, &load(&dev, &golden_path(family)), false).0, 0), "{family}");
    }
}

/// Keys and values of the last layer are made of what a token is behind all layers but that one. So are those of a token that leaves there: the
/// whole cache is what it would be, and whoever goes all the way behind it gives the same bits.
#[test]
fn who_leaves_before_the_last_layer_is_not_missed() {
    let dev = Device::new(2);
    for (family, exit, layers) in [("llama", "1", 2), ("qwen2", "1", 2), ("gemma3", "6", 7)] {
        let copy = Copy::exits(&format!("last-{family}"), family, &json!({ exit: ALWAYS }));
        let (model, plain) = (load(&dev, &copy.0), load(&dev, &golden_path(family)));
        let [mut left, mut whole] = [&model, &plain].map(|model| Runner::new(&dev, model, 1, 64));
        let (early, skipped) = decode(&mut left, 0, true);
        let (late, _) = decode(&mut whole, 0, false);
        assert!(early != late, "{family}: it did leave");
        assert_eq!(skipped, ANSWER.len(), "{family}: one of {layers} layers each");
        assert!(left.step(&[(0, &[4, 9])], &[0, 1]) == whole.step(&[(0, &[4, 9])], &[0, 1]), "{family}");
    }
}

/// What a token leaves with is what a model without the layers behind the exit gives.
#[test]
fn who_leaves_gives_what_a_shorter_model_would() {
    let dev = Device::new(2);
    let short = Copy::new("short", "llama", |config| config["num_hidden_layers"] = 1.into());
    drop_layer(&short.0.join("model.safetensors"));
    let exits = Copy::exits("long", "llama", &json!({"1": ALWAYS}));
    let early = answer(&dev, &load(&dev, &exits.0), true).0;
    assert!(early == answer(&dev, &load(&dev, &short.0), false).0);
}

/// Takes the second layer out of a file.
fn drop_layer(file: &Path) {
    let bytes = fs::read(file).unwrap();
    let (len, rest) = bytes.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(len.try_into().unwrap()) as usize);
    let header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    let (mut kept, mut numbers) = (serde_json::Map::new(), Vec::new());
    for (name, mut tensor) in header {
        if let Some(at) = tensor.get("data_offsets").filter(|_| !name.contains("layers.1.")) {
            let [from, to] = [0, 1].map(|end| at[end].as_u64().unwrap() as usize);
            tensor["data_offsets"] = json!([numbers.len(), numbers.len() + to - from]);
            numbers.extend_from_slice(&data[from..to]);
            kept.insert(name, tensor);
        }
    }
    let header = Value::Object(kept).to_string();
    fs::write(file, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &numbers].concat()).unwrap();
}

/// Seven layers and two exits, at thresholds that about half of the tokens pass.
fn half(dev: &Device, name: &str) -> (Copy, Model) {
    let thresholds = ["2", "5"].map(|after| {
        let always = Copy::exits(&format!("{name}-{after}"), "gemma3", &json!({ after: ALWAYS }));
        let model = load(dev, &always.0);
        let mut sure = confidences(dev, &model, &answer(dev, &model, true).0);
        sure.sort_by(f32::total_cmp);
        sure[ANSWER.len() / 2]
    });
    let copy = Copy::exits(name, "gemma3", &json!({"2": thresholds[0], "5": thresholds[1]}));
    let model = load(dev, &copy.0);
    (copy, model)
}

#[test]
fn tokens_beside_each_other_do_not_matter() {
    let dev = Device::new(2);
    let (_copy, model) = half(&dev, "beside");
    let (alone, skipped) = answer(&dev, &model, true);
    assert!(skipped > 0 && skipped < ANSWER.len() * 5, "some leave: {skipped}");
    let width = model.spec().width;
    let mut runner = Runner::new(&dev, &model, 3, 64);
    // The second is two tokens behind the first; the third reads its prompt bit by bit and never leaves.
    runner.step(&[(0, &PROMPT), (1, &PROMPT)], &[8, 17]);
    let mut found = [Vec::new(), Vec::new()];
    for i in 0..ANSWER.len() + 2 {
        let turn = |at: Option<usize>| at.and_then(|at| ANSWER.get(at..=at));
        let own = [turn(Some(i)), turn(i.checked_sub(2))];
        let mut parts: Vec<(usize, &[u32])> = vec![(2, &PROMPT[i % 8..i % 8 + 2])];
        parts.extend((0..2).filter_map(|sequence| Some((sequence, own[sequence]?))));
        let rows: Vec<u32> = (2..parts.len() as u32 + 1).collect();
        let hidden = runner.step_leaving(&parts, &rows, &rows);
        let states = parts[1..].iter().zip(hidden.chunks_exact(width));
        states.for_each(|((sequence, _), state)| found[*sequence].extend_from_slice(state));
    }
    assert!(found.iter().all(|found| *found == alone), "the same bits in a batch");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// An answer that is read again in pieces of any length (its sequence was paused, say) leaves where it left.
    #[test]
    fn reading_again_gives_the_same_bits(lens in prop::collection::vec(1_usize..7, 1..8), threads in 1_usize..3) {
        let dev = Device::new(threads);
        let (_copy, model) = half(&dev, "again");
        let alone = answer(&dev, &model, true).0;
        let mut runner = Runner::new(&dev, &model, 1, 64);
        runner.step(&[(0, &PROMPT)], &[]);
        let (mut found, mut rest) = (Vec::new(), &ANSWER[..]);
        for len in lens.into_iter().chain([ANSWER.len()]) {
            let (piece, behind) = rest.split_at(len.min(rest.len()));
            let rows: Vec<u32> = (0..piece.len() as u32).collect();
            if !piece.is_empty() {
                found.extend(runner.step_leaving(&[(0, piece)], &rows, &rows));
            }
            rest = behind;
        }
        prop_assert!(found == alone);
    }
}
