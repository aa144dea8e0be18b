//! `cargo xtask bench`: tessera's own benchmarks, and with `peers` side by side with llama.cpp on the same weights.
//!
//! The peer is built here by pip with all instructions of this machine. On Linux one pass of the compiler is switched off for
//! it: gcc 12 takes the stores of AMX's tile configuration for dead, and the peer would die of an illegal instruction.

use anyhow::Result;

use crate::{
    provision::{models, python_with},
    run::{cargo, root, run},
};

/// How pip builds the peer: for this machine, without the parts for images.
const PEER_BUILD: [(&str, &str); 2] = [
    ("CMAKE_ARGS", "-DGGML_NATIVE=ON -DCMAKE_C_FLAGS=-fno-tree-dse -DCMAKE_CXX_FLAGS=-fno-tree-dse"),
    ("PIP_NO_BINARY", "llama-cpp-python"),
];
/// Same weights for both: what the README's table shows.
const COMPARED: [&str; 2] = ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-Q4_K_M.gguf"];

pub(crate) fn bench(peers: bool) -> Result<()> {
    let models = models()?.join("models");
    run(&mut tessera(&["bench", "machine"]))?;
    run(&mut tessera(&["bench", "kernels"]))?;
    for model in COMPARED {
        run(tessera(&["bench", "serve", "--model"]).arg(models.join(model)))?;
    }
    if !peers {
        println!("\nBeside llama.cpp: cargo xtask bench peers");
        return Ok(());
    }
    let python = python_with(&root().join("crates/eval/peers/requirements.txt"), &PEER_BUILD)?;
    for model in COMPARED {
        let mut compare = tessera(&["bench", "compare", "--model"]);
        compare.arg(models.join(model)).env("PYTHONPATH", python.packages());
        run(compare.arg("--peer-python").arg(python.program()))?;
    }
    Ok(())
}

/// The program, built for speed.
fn tessera(args: &[&str]) -> std::process::Command {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "cli", "--bin", "tessera", "--"]);
    command.args(args);
    command
}
