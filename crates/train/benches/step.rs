//! A step of training on a small decoder, beside PyTorch's.
//!
//! ```sh
//! cargo bench -p train                                              # tokens/s in f32, bf16, with Muon, recomputing; and memory
//! cargo bench -p train -- --only Muon                               # those of ours whose name has this in it
//! cargo bench -p train -- --peer-python python3                     # PyTorch in turns with it (pip install torch transformers)
//! ```
//!
//! Six layers, 256 wide, four heads, 688 inside the gated blocks, 4,096 tokens: 5.8 million parameters, 34.6 Mflop a token. Eight documents of 256
//! tokens; forwards, backwards and AdamW over every weight. Rounds alternate between the two; shown are medians and ends.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for developers")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use kernels::{Device, Precision};
use model::Model;
use train::{Batch, Learned, Method, Network, Optimizer, Rule};

const WIDTH: usize = 256;
const INNER: usize = 688;
const LAYERS: usize = 6;
const VOCAB: usize = 4096;
const DOCUMENTS: usize = 8;
const LENGTH: usize = 256;
/// Steps of one measurement.
const STEPS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|a| a == name).map(|at| arguments[at + 1].clone());
    let rounds = after("--rounds").map_or(5, |n| n.parse().unwrap());
    let directory = std::env::temp_dir().join(format!("tessera-step-{}", std::process::id()));
    write_checkpoint(&directory);
    let dev = Device::new(after("--threads").map_or(2, |n| n.parse().unwrap()));
    let only = after("--only").unwrap_or_default();
    let ours = OURS.into_iter().filter(|ours| ours.to_string().contains(&only));
    let mut sides: Vec<Side> = ours.map(|ours| ours.side(&dev, &directory)).collect();
    let peers = after("--peer-python").into_iter().flat_map(|python| {
        ["f32", "bf16", "f32-compiled", "bf16-compiled"].map(|mode| peer(&python, &directory, mode, dev.threads()))
    });
    sides.extend(peers.flatten());
    let mut rates = vec![Vec::new(); sides.len()];
    for _ in 0..rounds {
        sides.iter_mut().zip(&mut rates).for_each(|(side, rates)| rates.push((side.run)()));
    }
    for (side, mut rates) in sides.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let (low, high) = (rates[0], rates[rates.len() - 1]);
        println!("{:60} {:7.0} tokens/s ({low:.0} .. {high:.0})", side.name, rates[rates.len() / 2]);
    }
    std::fs::remove_dir_all(directory).unwrap();
}

/// Something that trains; a call runs some steps and says how many tokens a second they took in.
struct Side {
    name: String,
    run: Box<dyn FnMut() -> f64>,
}

/// A way in which we train.
#[derive(Clone, Copy)]
struct Ours {
    precision: Precision,
    method: Method,
    recompute: bool,
}

/// The others differ from this in one thing each.
const PLAIN: Ours = Ours { precision: Precision::Bf16, method: Method::AdamW, recompute: false };
const OURS: [Ours; 4] = [
    Ours { precision: Precision::F32, ..PLAIN },
    PLAIN,
    Ours { method: Method::Muon, ..PLAIN },
    Ours { recompute: true, ..PLAIN },
];

impl Ours {
    fn side(self, dev: &Device, directory: &Path) -> Side {
        let dev = Device::new(dev.threads());
        let model = Model::load(&dev, directory, &|_, _| {}).unwrap();
        let mut network = Network::new(&dev, &model, Learned::All, self.precision);
        network.recompute(self.recompute);
        let rule = Rule { method: self.method, precision: self.precision, ..Rule::default() };
        let mut optimizer = Optimizer::new(rule, &network.params);
        let batch = batch();
        network.learn(&dev, &batch);
        let name = format!("{self} ({} MB beside the weights)", network.bytes() >> 20);
        let run = move || {
            let start = Instant::now();
            for _ in 0..STEPS {
                network.learn(&dev, &batch);
                optimizer.step(&dev, &mut network.params, 1e-4);
                network.refresh(&dev);
            }
            (STEPS * batch.tokens.len()) as f64 / start.elapsed().as_secs_f64()
        };
        Side { name, run: Box::new(run) }
    }
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recompute = if self.recompute { ", recomputing" } else { "" };
        write!(f, "tessera {:?}, {:?}{recompute}", self.precision, self.method)
    }
}

fn batch() -> Batch {
    let mut batch = Batch::default();
    let token = |i: usize| ((i * 7919) % VOCAB) as u32;
    (0..DOCUMENTS).for_each(|d| batch.push(&(0..=LENGTH).map(|i| token(i + d * LENGTH)).collect::<Vec<_>>(), |_| true));
    batch.average();
    batch
}

/// PyTorch in a process of its own, which answers every line with a rate; `None` if it cannot run this way.
fn peer(python: &str, directory: &Path, mode: &str, threads: usize) -> Option<Side> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("peers/torch_step.py");
    let mut command = Command::new(python);
    command.arg(script).arg(directory).args([mode, &threads.to_string(), &STEPS.to_string()]);
    let mut child = Ending(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let (mut asks, answers) = (child.0.stdin.take().unwrap(), child.0.stdout.take().unwrap());
    let mut answers = BufReader::new(answers);
    ask(&mut asks, &mut answers)?;
    let run = move || {
        let _alive = &mut child;
        ask(&mut asks, &mut answers).unwrap()
    };
    Some(Side { name: format!("PyTorch {mode}"), run: Box::new(run) })
}

fn ask(asks: &mut ChildStdin, answers: &mut BufReader<ChildStdout>) -> Option<f64> {
    let mut line = String::new();
    writeln!(asks).ok()?;
    answers.read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// A child that ends with its side.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The decoder with weights drawn at random, as a Hugging Face directory that both sides read.
fn write_checkpoint(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    let config = format!(
        r#"{{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": {WIDTH}, "intermediate_size": {INNER},
        "num_hidden_layers": {LAYERS}, "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": {VOCAB},
        "max_position_embeddings": {LENGTH}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "dtype": "float32"}}"#
    );
    std::fs::write(directory.join("config.json"), config).unwrap();
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![VOCAB, WIDTH])];
    for layer in 0..LAYERS {
        let matrix = |name: &str, shape: [usize; 2]| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec());
        let square = [WIDTH, WIDTH];
        tensors.extend(["q", "k", "v", "o"].map(|name| matrix(&format!("self_attn.{name}_proj"), square)));
        tensors.extend(["gate", "up"].map(|name| matrix(&format!("mlp.{name}_proj"), [INNER, WIDTH])));
        tensors.push(matrix("mlp.down_proj", [WIDTH, INNER]));
        let norms = ["input_layernorm", "post_attention_layernorm"];
        tensors.extend(norms.map(|name| (format!("model.layers.{layer}.{name}.weight"), vec![WIDTH])));
    }
    tensors.push(("model.norm.weight".to_owned(), vec![WIDTH]));
    write_safetensors(&directory.join("model.safetensors"), &tensors);
}

fn write_safetensors(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let (mut header, mut data, mut state) = (Vec::new(), Vec::new(), 1_u64);
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product::<usize>() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let even = (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
            let value = if shape.len() == 1 { 1.0 } else { 0.035 * even };
            data.extend(value.to_le_bytes());
        }
        header.push(format!(
            r#""{name}": {{"dtype": "F32", "shape": {shape:?}, "data_offsets": [{start}, {}]}}"#,
            data.len()
        ));
    }
    let header = format!("{{{}}}", header.join(", "));
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.write_all(&data).unwrap();
}
