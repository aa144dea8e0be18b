//! `tessera train full` under `mpirun`: the losses of one process, a fraction of its memory, and what a killed rank leaves.

#![expect(clippy::unwrap_used, reason = "a test's shared functions may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;

/// A folder for everything that a run writes, gone at the end.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Place {
    /// With documents that have something to learn.
    fn new(name: &str, documents: usize) -> Self {
        let place = Self(std::env::temp_dir().join(format!("tessera-ranks-{name}-{}", std::process::id())));
        fs::create_dir_all(&place.0).unwrap();
        let line =
            |i: usize| format!("{{\"prompt\": \"Room {i}?\", \"completion\": \"It is on floor {}.\"}}\n", i * 7 % 9);
        fs::write(place.0.join("rooms.jsonl"), (0..documents).map(line).collect::<String>()).unwrap();
        place
    }

    /// A model of two small layers, cut out of a larger one.
    fn small(&self) -> PathBuf {
        let (data, out) = (self.0.join("rooms.jsonl"), self.0.join("small"));
        let held_out = self.0.join("held.jsonl");
        fs::write(&held_out, fs::read_to_string(&data).unwrap().lines().next().unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.args([
            "distill",
            "--name",
            "small",
            "--layers",
            "2",
            "--width",
            "64",
            "--ffn",
            "64",
            "--kv-heads",
            "1",
        ]);
        command
            .args(["--tokens", "0", "--epochs", "1", "--rounds", "1", "--max-tokens", "4", "--model"])
            .arg(smollm2());
        command.arg("--data").arg(data).arg("--held-out").arg(held_out).arg("--out").arg(&out);
        command.env("XDG_DATA_HOME", &self.0).env("XDG_CACHE_HOME", self.0.join("cache"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    }

    /// A run of this name over so many processes; over one without MPI where there is no stage.
    fn train(&self, name: &str, model: &Path, ranks: Option<(usize, u8)>, more: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_tessera");
        let mut command = Command::new(if ranks.is_some() { "mpirun" } else { program });
        if let Some((n, _)) = ranks {
            let n = n.to_string();
            command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &n, program]);
        }
        let data = self.0.join("rooms.jsonl");
        command.args(["train", "full", "--name", name, "--precision", "f32", "--threads", "1", "--json", "--model"]);
        command.arg(model).arg("--data").arg(&data).arg("--held-out").arg(&data).args(more);
        ranks.iter().for_each(|(_, stage)| {
            command.args(["--zero", &stage.to_string()]);
        });
        command.env("XDG_DATA_HOME", &self.0).env("XDG_CACHE_HOME", self.0.join("cache"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn done(&self, name: &str, model: &Path, ranks: Option<(usize, u8)>, more: &[&str]) -> Value {
        let output = self.train(name, model, ranks, more).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Losses of a run's steps; of a step that was taken twice both.
    fn losses(&self, name: &str) -> Vec<f64> {
        let text = fs::read_to_string(self.0.join(format!("tessera/runs/{name}/metrics.jsonl"))).unwrap_or_default();
        let whole = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        whole.filter_map(|line| line["loss"].as_f64()).collect()
    }

    fn weights(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(format!("tessera/trained/{name}/model.safetensors"))).unwrap()
    }
}

fn smollm2() -> PathBuf {
    let models = std::env::var("TESSERA_TEST_MODELS").expect("TESSERA_TEST_MODELS names the folder of models");
    PathBuf::from(models).join("SmolLM2-135M-Instruct.Q4_1.gguf")
}

const STEPS: [&str; 6] = ["--epochs", "12", "--batch", "8", "--rows", "64"];

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn losses_are_those_of_one_process() {
    let place = Place::new("losses", 40);
    let small = place.small();
    let alone = place.done("alone", &small, None, &STEPS);
    let one = place.losses("alone");
    assert_eq!(one.len() as u64, alone["steps"].as_u64().unwrap());
    assert!(one[one.len() - 1] < one[0], "it learns: {one:?}");
    for (n, stage) in [(1, 3), (2, 1), (2, 3), (4, 2), (4, 3)] {
        let name = format!("on-{n}-{stage}");
        place.done(&name, &small, Some((n, stage)), &STEPS);
        let losses = place.losses(&name);
        assert_eq!(losses.len(), one.len(), "{name}: the first rank alone writes metrics");
        let apart = losses.iter().zip(&one).map(|(a, b)| (a - b).abs() / b).fold(0.0, f64::max);
        assert!(apart <= 1e-6, "{name}: {apart} apart");
        assert!(losses == place.losses("on-1-3"), "{name}: the same bits as one rank");
        assert!(place.weights(&name) == place.weights("on-1-3"), "{name}: the same weights as one rank");
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_killed_rank_leaves_a_run_that_goes_on_with_others() {
    let place = Place::new("killed", 40);
    let small = place.small();
    place.done("whole", &small, Some((1, 3)), &STEPS);
    for (n, then) in [(4, 2), (2, 4)] {
        let name = format!("from-{n}");
        let mut run = place.train(&name, &small, Some((n, 3)), &STEPS).spawn().unwrap();
        // Behind a checkpoint, which is taken every twenty steps.
        while place.losses(&name).len() < 25 {
            assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(10));
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap();
        let last = children.split_whitespace().last().unwrap();
        assert!(Command::new("kill").args(["-9", last]).status().unwrap().success());
        assert!(!run.wait().unwrap().success(), "the others cannot go on");
        assert!(place.losses(&name).len() < 60, "it was killed on the way");
        place.done(&name, &small, Some((then, 3)), &STEPS);
        assert!(place.losses(&name).len() > 60, "some steps were taken twice, not all");
        assert!(place.weights(&name) == place.weights("whole"), "{n} to {then}: the same weights as without");
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_rank_of_four_holds_less_than_a_third() {
    let place = Place::new("held", 4);
    let most = |ranks: Option<(usize, u8)>| {
        let name = if ranks.is_some() { "four" } else { "one" };
        let done = place.done(name, &smollm2(), ranks, &["--epochs", "1", "--batch", "4", "--rows", "64"]);
        let bytes = |held: &Value| held.as_object().unwrap().values().map(|x| x.as_u64().unwrap()).sum::<u64>();
        done["held"].as_array().unwrap().iter().map(bytes).max().unwrap()
    };
    let (one, four) = (most(None), most(Some((4, 3))));
    assert!(four * 10 <= one * 3, "{four} of {one} bytes");
}
