//! `cargo xtask bench`: tessera's own benchmarks, and with `peers` side by side with llama.cpp on the same weights.
//!
//! The peer is built here by pip with all instructions of this machine. clang builds it where there is one: gcc 12 takes the
//! stores of AMX's tile configuration for dead, and such a peer dies of an illegal instruction. Without clang it is therefore
//! built without AMX, and that is said.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{
    provision::{Python, models, python_with},
    run::{cargo, root, run, target_directory, works},
};

/// Compilers that may build the peer, best first.
const CLANGS: [&str; 6] = ["clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15"];
const NATIVE: &str = "-DGGML_NATIVE=ON";
const WITHOUT_AMX: &str = "-DGGML_NATIVE=ON -DCMAKE_C_FLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16' \
                           -DCMAKE_CXX_FLAGS='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'";
/// `tessera bench`'s own verbs: of the machine and its kernels, and of a service over each model.
const OF_THE_MACHINE: [&str; 2] = ["machine", "kernels"];
const OF_A_SERVICE: [&str; 2] = ["serve", "first-token"];
/// Same weights for both.
const COMPARED: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-Q4_K_M.gguf"];

pub(crate) fn bench(peers: bool) -> Result<()> {
    let models = models()?.join("models");
    for verb in OF_THE_MACHINE {
        run(&mut tessera(&["bench", verb]))?;
    }
    for model in COMPARED {
        for verb in OF_A_SERVICE {
            run(tessera(&["bench", verb, "--model"]).arg(models.join(model)))?;
        }
    }
    if !peers {
        println!("\nBeside llama.cpp: cargo xtask bench peers");
        return Ok(());
    }
    let python = peer()?;
    for model in COMPARED {
        let mut compare = tessera(&["bench", "compare", "--model"]);
        compare.arg(models.join(model)).env("PYTHONPATH", python.packages());
        run(compare.arg("--peer-python").arg(python.program()))?;
    }
    Ok(())
}

/// What the gateway costs: a stub upstream, a load generator and `tessera serve --only gateway`; with peers LiteLLM's proxy, too.
pub(crate) fn gateway(peers: bool, options: &[&str]) -> Result<()> {
    // At once, so that both are built from the same libraries; the generator is not in the program's crate, which is not optimised.
    let both = ["--package", "cli", "--bin", "tessera", "--package", "gateway", "--example", "load"];
    run(cargo(&["build", "--release"]).args(both))?;
    let mut load = Command::new(target_directory()?.join("release").join("examples").join("load"));
    load.args(options);
    if peers {
        let python = python_with(&root().join("crates/gateway/examples/load/requirements.txt"), &[])?;
        load.env("PYTHONPATH", python.packages()).arg("--litellm").arg(python.program());
    }
    run(&mut load)
}

/// A Python with llama.cpp in it, built for this machine.
fn peer() -> Result<Python> {
    let requirements = root().join("crates/eval/peers/requirements.txt");
    // pip keeps what it built by name and version, whatever it was built with: nothing is taken from there.
    let fresh = [("PIP_NO_BINARY", "llama-cpp-python"), ("PIP_NO_CACHE_DIR", "1")];
    let Some(clang) = CLANGS.into_iter().find(|name| works(Command::new(name).arg("--version"))) else {
        if Path::new("/proc/cpuinfo").exists() && std::fs::read_to_string("/proc/cpuinfo")?.contains("amx_int8") {
            println!("clang is missing, so the peer is built by gcc and without AMX: apt-get install clang libomp-dev");
        }
        return python_with(&requirements, &[fresh[0], fresh[1], ("CMAKE_ARGS", WITHOUT_AMX)]);
    };
    let plus = clang.replace("clang", "clang++");
    python_with(&requirements, &[fresh[0], fresh[1], ("CMAKE_ARGS", NATIVE), ("CC", clang), ("CXX", &plus)])
}

/// The program, built for speed.
fn tessera(args: &[&str]) -> Command {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "cli", "--bin", "tessera", "--"]);
    command.args(args);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_and_every_model_exists() {
        let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
        // A test of `cli` keeps its reference equal to the program's own help.
        let (reference, provided) = (read("docs/cli.md"), read("xtask/provision.py"));
        for verb in OF_THE_MACHINE.iter().chain(&OF_A_SERVICE).chain(&["compare"]) {
            assert!(reference.contains(&format!("`tessera bench {verb}`")), "{verb}");
        }
        for model in COMPARED {
            assert!(provided.contains(&format!("\"models/{model}\"")), "{model}");
        }
    }
}
