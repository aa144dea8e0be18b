//! Damaged and hostile files: a clear error each, never a panic, a fault or an allocation that the file does not back.

use std::fs;
use std::io::Cursor;
use std::path::PathBuf;

use kernels::Device;
use model::{Model, gguf, safetensors};
use proptest::prelude::*;

use crate::runner::golden_path;

/// A directory of one's own that goes away again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tessera-model-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn copy_of(name: &str, golden: &str) -> Self {
        let scratch = Self::new(name);
        for entry in fs::read_dir(golden_path(golden)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), scratch.0.join(entry.file_name())).unwrap();
        }
        scratch
    }

    fn error(&self, file: &str) -> String {
        let loaded = Model::load(&Device::new(1), &self.0.join(file), &|_, _| {});
        loaded.err().map(|error| error.to_string()).expect("an error")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn gguf_bytes() -> Vec<u8> {
    fs::read(golden_path("llama/model.gguf")).unwrap()
}

fn gguf_error(bytes: &[u8]) -> String {
    gguf::Header::read(&mut &*bytes, bytes.len() as u64).expect_err("an error").to_string()
}

fn find(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).position(|w| w == text.as_bytes()).expect(text)
}

#[test]
fn headers_that_are_wrong_say_how() {
    let change = |at: usize, with: &[u8]| {
        let mut bytes = gguf_bytes();
        bytes[at..at + with.len()].copy_from_slice(with);
        gguf_error(&bytes)
    };
    let good = gguf_bytes();
    // Behind a tensor's name stand dimensions, shape, type and offset.
    let norm = find(&good, "output_norm.weight") + "output_norm.weight".len();
    let huge = u64::MAX.to_le_bytes();
    let expected = [
        (change(0, b"GGML"), "does not begin with GGUF"),
        (change(4, &[1, 0, 0, 0]), "GGUF version 1"),
        (change(4, &[0, 0, 0, 3]), "big-endian"),
        (change(8, &huge), "tensors would take"),
        (change(16, &huge), "metadata fields would take"),
        (change(24, &huge), "a metadata key would take"),
        (change(32, &[0xff; 4]), "not UTF-8"),
        (change(norm, &[9, 0, 0, 0]), "has 9 dimensions"),
        (change(norm + 4, &huge), "impossible shape"),
        (change(norm + 12, &[16, 0, 0, 0]), "IQ2_XXS, which is not supported; convert the model to one of F32"),
        (change(norm + 12, &[200, 0, 0, 0]), "type number 200"),
        (change(norm + 16, &[1]), "is not a multiple of the alignment"),
        (change(norm + 16, &[0; 8]), "overlap"),
        (change(norm + 16, &(1u64 << 40).to_le_bytes()), "output_norm.weight needs 64 bytes at offset 1099511"),
    ];
    for (found, expected) in expected {
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}

#[test]
fn a_short_file_names_the_tensor() {
    let scratch = Scratch::copy_of("short", "llama");
    for (file, len) in [("model.gguf", 20_000), ("model.safetensors", 20_000)] {
        fs::OpenOptions::new().write(true).open(scratch.0.join(file)).unwrap().set_len(len).unwrap();
        let found = scratch.error(file);
        assert!(found.contains(file) && found.contains("bytes at offset"), "{found}");
        assert!(found.contains("the file ends at 20000"), "{found}");
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let scratch = Scratch::copy_of("shrinks", "llama");
    for file in ["model.gguf", "model.safetensors"] {
        let path = scratch.0.join(file);
        let cut = |_, _| fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9_000).unwrap();
        let found = Model::load(&Device::new(2), &path, &cut).err().map(|error| error.to_string()).expect("an error");
        assert!(found.contains("bytes at offset") && found.contains("the file ends at 9000"), "{found}");
    }
}

#[test]
fn every_prefix_is_an_error() {
    let bytes = gguf_bytes();
    let read = |len: usize, claimed: usize| gguf::Header::read(&mut &bytes[..len], claimed as u64).is_ok();
    assert!((0..bytes.len()).all(|len| !read(len, len)));
    // When the file system says that there is more than can be read, only the end of the header matters.
    let end = (0..bytes.len()).find(|&len| read(len, bytes.len())).expect("a header");
    assert!(end > 1000 && (end..bytes.len()).all(|len| read(len, bytes.len())));
}

#[test]
fn families_are_named() {
    let scratch = Scratch::copy_of("family", "llama");
    let config = fs::read_to_string(scratch.0.join("config.json")).unwrap();
    fs::write(scratch.0.join("config.json"), config.replace("\"llama\"", "\"mamba\"")).unwrap();
    let found = scratch.error("");
    assert!(found.contains("\"mamba\" is not supported; supported are llama, gemma3, qwen2, bert"), "{found}");
}

#[test]
fn config_json_is_checked() {
    let scratch = Scratch::copy_of("config", "llama");
    let path = scratch.0.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let cases = [
        ("\"hidden_size\": 16", "\"hidden_size\": -16", "hidden_size is Integer(-16), expected a whole number"),
        ("\"hidden_size\": 16", "\"hidden_size\": 20", "the metadata make it"),
        ("\"hidden_size\": 16,", "", "hidden_size is missing"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "layers.2.input_layernorm.weight is missing"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "has no place in the family llama"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 9999", "more than 4096"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "is not a multiple of 3"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"", "\"spiral\"; supported are default, linear"),
        ("\"silu\"", "\"relu\"", "hidden_act is \"relu\""),
        ("{", "[", "the JSON says"),
    ];
    for (from, to, expected) in cases {
        assert!(config.contains(from), "{from}");
        fs::write(&path, config.replacen(from, to, 1)).unwrap();
        let found = scratch.error("");
        assert!(found.contains(expected), "{to}: {found:?} does not say {expected:?}");
    }
}

#[test]
fn safetensors_headers_are_checked() {
    let with = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        safetensors::Header::read(&mut &*bytes, bytes.len() as u64).map_err(|e| e.to_string())
    };
    let tensor = |name: &str, dtype: &str, shape: &str, range: &str| {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{range}}}")
    };
    let a = tensor("a", "F32", "[2,2]", "[0,16]");
    let good =
        with(&format!("{{\"__metadata__\":{{\"format\":\"pt\"}},{a},{}}}", tensor("i", "I64", "[1]", "[16,24]")), 24);
    let good = good.unwrap();
    assert_eq!((good.tensors.len(), good.unreadable["i"].as_str()), (1, "I64"));
    let cases = [
        (with(&format!("{{{a}}}"), 8), "tensor a needs 16 bytes at offset"),
        (with(&format!("{{{a},{}}}", tensor("b", "F32", "[2]", "[12,20]")), 24), "a and b overlap"),
        (with(&format!("{{{}}}", tensor("a", "F32", "[2,2]", "[0,12]")), 24), "its shape takes 16 bytes"),
        (with(&format!("{{{}}}", tensor("a", "F32", "[2,2]", "[16,0]")), 24), "its shape takes 16 bytes"),
        (with(&format!("{{{}}}", tensor("a", "F32", "[4294967296,4294967296]", "[0,0]")), 24), "impossible shape"),
        (with(&format!("{{{}}}", tensor("a", "F32", "[2]", "[18446744073709551615,7]")), 24), "overflows"),
        (with("{\"a\":{}}", 0), "has no dtype"),
        (with("{", 0), "the JSON says"),
    ];
    for (found, expected) in cases {
        let found = found.expect_err(expected);
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
    let claim = u64::MAX.to_le_bytes();
    assert!(safetensors::Header::read(&mut &claim[..], 8).is_err());
}

/// Whole numbers beside their scales, as one file has them.
#[test]
fn weights_of_eight_bits_are_checked() {
    let with = |tensors: &str| {
        let json = format!("{{{tensors}}}");
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + 256, 0);
        safetensors::Header::read(&mut &*bytes, bytes.len() as u64)
    };
    let tensor = |name: &str, dtype: &str, shape: &str, range: &str| {
        format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{range}}}")
    };
    let weight = |shape: &str, range: &str| tensor("w", "I8", shape, range);
    let scales = |dtype: &str, shape: &str, range: &str| tensor("w_scale", dtype, shape, range);
    let w = weight("[2,64]", "[0,128]");
    let good = with(&format!("{w},{}", scales("F16", "[2,2]", "[128,136]"))).unwrap();
    let [found] = &good.tensors[..] else { panic!("{good:?}") };
    assert_eq!((&*found.name, found.bytes, found.scales.map(|scales| scales.group)), ("w", 136, Some(32)));
    let order = tensor("w_g_idx", "I32", "[64]", "[132,388]");
    let alone = [
        w.clone(),
        format!("{w},{},{order}", scales("F16", "[2,1]", "[128,132]")),
        format!("{w},{},{}", scales("F16", "[2,1]", "[128,132]"), tensor("w_zero_point", "I8", "[2,1]", "[132,134]")),
    ];
    for unreadable in alone {
        assert_eq!(with(&unreadable).unwrap().unreadable["w"], "I8", "{unreadable}");
    }
    let cases = [
        (format!("{w},{}", scales("F16", "[2,4]", "[128,144]")), "each row needs one"),
        (format!("{w},{}", scales("F16", "[1,2]", "[128,132]")), "each row needs one"),
        (format!("{w},{}", scales("F16", "[2,3]", "[128,140]")), "each row needs one"),
        (format!("{w},{}", scales("F16", "[2,500]", "[128,2128]")), "each row needs one"),
        (format!("{},{}", weight("[2,48]", "[0,96]"), scales("F16", "[2,1]", "[128,132]")), "not a multiple of 32"),
        (format!("{},{}", weight("[2,64]", "[0,136]"), scales("F16", "[2,1]", "[136,140]")), "takes 128 bytes"),
        (format!("{w},{}", scales("F16", "[2,2]", "[124,132]")), "w and w overlap"),
        (format!("{w},{}", scales("F32", "[2,2]", "[250,266]")), "w needs 16 bytes"),
        (
            format!("{},{}", weight("[4294967296,4294967296]", "[0,0]"), scales("F16", "[2,1]", "[0,4]")),
            "impossible shape",
        ),
    ];
    for (tensors, expected) in cases {
        let found = with(&tensors).expect_err(expected).to_string();
        assert!(found.contains(expected), "{tensors}: {found:?} does not say {expected:?}");
    }
}

#[test]
fn an_index_stays_in_its_directory() {
    let scratch = Scratch::copy_of("index", "qwen2");
    let path = scratch.0.join("model.safetensors.index.json");
    let index = fs::read_to_string(&path).unwrap();
    fs::write(&path, index.replace("model-00001-of-00003", "../model-00001-of-00003")).unwrap();
    assert!(scratch.error("").contains("outside of the directory"));
    fs::write(&path, index.replace("model-00001-of-00003", "model-00002-of-00003")).unwrap();
    assert!(scratch.error("").contains("where the index says"));
    fs::write(&path, index).unwrap();
    fs::remove_file(scratch.0.join("model-00002-of-00003.safetensors")).unwrap();
    let found = scratch.error("");
    assert!(found.contains("model-00002-of-00003.safetensors: cannot be read"), "{found}");
}

#[test]
fn qwen_without_its_biases_is_refused() {
    let scratch = Scratch::copy_of("bias", "llama");
    let config = fs::read_to_string(scratch.0.join("config.json")).unwrap();
    fs::write(scratch.0.join("config.json"), config.replace("\"llama\"", "\"qwen2\"")).unwrap();
    assert!(scratch.error("").contains("self_attn.q_proj.bias is missing"));
}

#[test]
fn what_is_no_checkpoint_says_what_would_be() {
    let scratch = Scratch::new("nothing");
    assert!(scratch.error("").contains("give a .gguf file, or a directory"));
    assert!(scratch.error("absent.gguf").contains("cannot be read"));
    fs::write(scratch.0.join("text.gguf"), "hello, I am a text").unwrap();
    assert!(scratch.error("text.gguf").contains("give a .gguf file, or a directory"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Any few bytes of a real header changed, the end cut anywhere: an answer, whatever it is.
    #[test]
    fn mutated_gguf_headers_never_panic(
        changes in prop::collection::vec((0..4096usize, any::<u8>()), 1..6),
        cut in prop::option::of(0..4096usize),
    ) {
        let mut bytes = gguf_bytes();
        for (at, with) in changes {
            bytes[at] = with;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        let len = bytes.len() as u64;
        drop(gguf::Header::read(&mut Cursor::new(bytes), len));
    }

    /// The same for lengths and counts: eight bytes at once.
    #[test]
    fn hostile_lengths_never_allocate(at in 0..4096usize, with in any::<u64>(), shift in 0..64u32) {
        let mut bytes = gguf_bytes();
        bytes[at..at + 8].copy_from_slice(&(with >> shift).to_le_bytes());
        drop(gguf::Header::read(&mut &*bytes, u64::MAX));
    }

    #[test]
    fn mutated_safetensors_headers_never_panic(
        changes in prop::collection::vec((0..2048usize, any::<u8>()), 1..4),
    ) {
        let mut bytes = fs::read(golden_path("llama/model.safetensors")).unwrap();
        for (at, with) in changes {
            bytes[at] = with;
        }
        drop(safetensors::Header::read(&mut &*bytes, bytes.len() as u64));
    }

    /// Mutated files are loaded whole: what the header lets through, families and weights must bear.
    #[test]
    fn mutated_files_load_or_say_why(at in 24..2048usize, with in any::<u8>()) {
        let mut bytes = gguf_bytes();
        bytes[at] = with;
        let scratch = Scratch::new(&format!("mutated-{:?}", std::thread::current().id()));
        let path = scratch.0.join("model.gguf");
        fs::write(&path, bytes).unwrap();
        drop(Model::load(&Device::new(1), &path, &|_, _| {}));
    }
}
