//! Students: cut out of a network, saved, loaded again.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::{Branch, Device, Precision};
use model::Model;
use serde_json::{Value, json};
use train::{Batch, Bits, Cut, Files, Learned, Network, Sample, Size, Student};

use super::{batch, golden_path, load};

fn network(dev: &Device, model: &Model) -> Network {
    Network::new(dev, model, Learned::All, Precision::F32)
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tessera-student-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// Saves and loads a student.
fn again(dev: &Device, student: &Student, bits: Bits, folder: &Path) -> Model {
    let tokenizer = json!({"added_tokens": [{"id": 7, "content": "<end>"}, {"id": 8, "content": "<pad>"}]});
    let tokenizer_config = json!({"bos_token": "<begin>", "eos_token": "<end>"});
    let files = Files { tokenizer, tokenizer_config, card: json!({"teacher": "x"}) };
    student.save(bits, &files, folder).unwrap();
    // A second time, over the first.
    student.save(bits, &files, folder).unwrap();
    assert!(fs::read_to_string(folder.join("card.json")).unwrap().contains("teacher"));
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["eos_token_id"], config.get("bos_token_id")), (&json!(7), None), "as the tokenizer has them");
    let dtype = if bits == Bits::F16 { "float16" } else { "bfloat16" };
    let quantised = (bits == Bits::Eight).then_some(&Value::Bool(true));
    let said = config.get("quantization_config").map(|said| &said["dequantize"]);
    assert!(config["torch_dtype"] == dtype && said == quantised, "{config}");
    let model = Model::load(dev, folder, &|_, _| {}).unwrap();
    fs::remove_dir_all(folder).unwrap();
    model
}

/// Samples as the batch has them.
fn samples(batch: &Batch) -> Vec<Sample> {
    let sample = |branch: &Branch| {
        let tokens = batch.tokens[branch.own.clone()].to_vec();
        Sample { weights: vec![1.0; tokens.len()], tokens, ..Sample::default() }
    };
    batch.branches.iter().map(sample).collect()
}

/// A loss of the whole network, saved and loaded: only 16 bits are between the two.
#[test]
fn a_network_is_saved_as_it_is() {
    let dev = Device::new(2);
    let check = |name: &str, path: &Path| {
        let model = Model::load(&dev, path, &|_, _| {}).unwrap();
        let batch = batch(model.spec().vocab, &[40, 90]);
        let mut own = network(&dev, &model);
        let student = Student::new(&own, &Cut::nothing(model.spec())).unwrap();
        for (bits, near) in [(Bits::Bf16, 2e-3), (Bits::F16, 2e-4)] {
            let loaded = again(&dev, &student, bits, &folder(&format!("whole-{name}")));
            assert_eq!(loaded.spec().layers.len(), model.spec().layers.len());
            let (want, got) = (own.losses(&dev, &batch).total, network(&dev, &loaded).losses(&dev, &batch).total);
            assert!((want - got).abs() < near * want, "{name}, {bits:?}: {got}, not {want}");
        }
    };
    check("llama", &golden_path("llama"));
    check("qwen2", &golden_path("qwen2"));
    // What rotates together lies side by side here, and apart in what is saved.
    check("gguf", &golden_path("llama").join("model.gguf"));
}

/// A weight beyond f16's 65,504 is written all the same.
#[test]
fn what_f16_cannot_hold_is_saved_in_bf16() {
    let dev = Device::new(1);
    let mut network = network(&dev, &load(&dev, "llama"));
    *network.params.values.last_mut().unwrap() = 1e5;
    let (student, folder) = (Student::new(&network, &Cut::nothing(network.spec())).unwrap(), folder("large"));
    let files = Files { tokenizer: json!({}), tokenizer_config: json!({}), card: json!({}) };
    student.save(Bits::F16, &files, &folder).unwrap();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let largest = self::network(&dev, &Model::load(&dev, &folder, &|_, _| {}).unwrap()).params.values;
    let largest = largest.iter().fold(0.0_f32, |most, x| most.max(*x));
    assert!(config.contains("bfloat16") && (largest - 1e5).abs() < 512.0, "{largest} in {config}");
    fs::remove_dir_all(&folder).unwrap();
}

/// Every number comes back within half a step of its group, and the whole does nearly the same.
#[test]
fn eight_bits_are_half_a_step_away() {
    let dev = Device::new(2);
    let model = load(&dev, "llama-mixed/model.gguf");
    let student = Student::new(&network(&dev, &model), &Cut::nothing(model.spec())).unwrap();
    let group = student.group().unwrap();
    let loaded = again(&dev, &student, Bits::Eight, &folder("eight"));
    let batch = batch(model.spec().vocab, &[40, 90]);
    let losses = [&model, &loaded].map(|model| network(&dev, model).losses(&dev, &batch).total);
    assert!((losses[0] - losses[1]).abs() < 2e-3 * losses[0], "{losses:?}");
    let [table, stored] = [&model, &loaded].map(|model| model.weights().embedding.matrix());
    let (mut want, mut got) = (vec![0.0; table.cols()], vec![0.0; table.cols()]);
    for row in 0..table.rows() {
        table.row(row, &mut want);
        stored.row(row, &mut got);
        for (want, got) in want.chunks(group).zip(got.chunks(group)) {
            let step = want.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
            // A scale is rounded to f16, which moves the ends by some more.
            let near = |(want, got): (&f32, &f32)| (want - got).abs() <= 0.57 * step;
            assert!(want.iter().zip(got).all(near), "{want:?} {got:?}");
        }
    }
}

/// Widths of which there are no groups: an error before anything is written.
#[test]
fn other_widths_have_sixteen() {
    let dev = Device::new(1);
    let model = load(&dev, "llama");
    let student = Student::new(&network(&dev, &model), &Cut::nothing(model.spec())).unwrap();
    let files = Files { tokenizer: json!({}), tokenizer_config: json!({}), card: json!({}) };
    let folder = folder("narrow");
    let error = student.save(Bits::Eight, &files, &folder).unwrap_err().to_string();
    assert!(error.contains("multiples of 32") && !folder.exists(), "{error}");
}

#[test]
fn kinds_that_a_file_could_not_name_are_refused() {
    let dev = Device::new(1);
    for family in ["gemma3", "llama3"] {
        let model = load(&dev, family);
        assert!(Student::new(&network(&dev, &model), &Cut::nothing(model.spec())).is_err(), "{family}");
    }
}

/// A channel, a head and a token that do nothing go first, and nothing changes without them.
#[test]
fn what_does_nothing_is_cut_away_and_not_missed() {
    let dev = Device::new(2);
    let model = load(&dev, "llama");
    let spec = model.spec().clone();
    let batch = batch(spec.vocab, &[40, 90]);
    let mut teacher = network(&dev, &model);
    let (idle, mute) = ([3, 10], 1);
    for entry in teacher.params.entries().to_vec() {
        let cols = entry.shape[1];
        let silent = |col: usize| match entry.name.rsplit('.').next() {
            Some("down") => idle.contains(&col),
            Some("out") => col / (cols / spec.layers[0].attention.kv_heads) == mute,
            _ => false,
        };
        let numbers = &mut teacher.params.values[entry.range.clone()];
        numbers.iter_mut().enumerate().filter(|(i, _)| silent(i % cols)).for_each(|(_, x)| *x = 0.0);
    }
    teacher.refresh(&dev);
    let size = Size { ffn: Some(spec.layers[0].ffn - 2), kv_heads: Some(1), ..Size::default() };
    let cut = Cut::choose(&mut teacher, &dev, &samples(&batch), size).unwrap();
    assert!(cut.inner.iter().all(|inner| idle.iter().all(|channel| !inner.contains(channel))), "{:?}", cut.inner);
    assert!(cut.kv_heads.iter().all(|heads| *heads == [1 - mute]), "{:?}", cut.kv_heads);
    let loaded = again(&dev, &Student::new(&teacher, &cut).unwrap(), Bits::Bf16, &folder("cut"));
    let (want, got) = (teacher.losses(&dev, &batch).total, network(&dev, &loaded).losses(&dev, &batch).total);
    assert!((want - got).abs() < 2e-3 * want, "{got}, not {want}");
}

#[test]
fn all_sizes_shrink_at_once_and_tokens_are_renamed() {
    let dev = Device::new(2);
    let model = load(&dev, "llama");
    let mut teacher = network(&dev, &model);
    let batch = batch(model.spec().vocab, &[40, 90]);
    let size = Size { layers: Some(2), width: Some(8), ffn: Some(12), kv_heads: Some(1) };
    let mut cut = Cut::choose(&mut teacher, &dev, &samples(&batch), size).unwrap();
    cut.tokens = (0..model.spec().vocab).step_by(2).collect();
    let student = Student::new(&teacher, &cut).unwrap();
    let loaded = again(&dev, &student, Bits::Bf16, &folder("small"));
    let spec = loaded.spec();
    let layer = &spec.layers[0];
    let sizes = [spec.layers.len(), spec.width, spec.vocab, layer.ffn, layer.attention.heads, layer.attention.kv_heads];
    assert_eq!(sizes, [2, 8, 31, 12, 2, 1]);
    let (mut rows, mut theirs) = (vec![0.0; 8], vec![0.0; 16]);
    loaded.weights().embedding.matrix().row(5, &mut rows);
    model.weights().embedding.matrix().row(10, &mut theirs);
    let picked: Vec<f32> = cut.channels.iter().map(|channel| theirs[*channel]).collect();
    assert!(rows.iter().zip(&picked).all(|(a, b)| (a - b).abs() < 0.01 * b.abs() + 1e-4), "{rows:?} {picked:?}");
    let too_large = Size { layers: Some(3), ..Size::default() };
    assert!(Cut::choose(&mut teacher, &dev, &samples(&batch), too_large).is_err());
}
