//! The console's tests: a real browser, headless, against `tessera serve` with a real model.
//!
//! Chromium and its driver are Debian's; fonts are installed beside it, since pictures of pages go into the documentation and Chinese
//! must be more than boxes.

use std::{path::Path, process::Command};

use anyhow::Result;

use crate::{
    provision,
    run::{cargo, root, run, target_directory},
};

/// Programs and what brings them.
const BROWSER: [(&str, &str); 2] = [("chromium", "chromium"), ("chromedriver", "chromium-driver")];
const FONTS: [&str; 3] = ["fonts-noto-cjk", "fonts-inter", "fonts-jetbrains-mono"];

/// With `slow` also what wants a larger model.
pub(crate) fn test(models: &Path, slow: bool) -> Result<()> {
    let there = BROWSER.iter().all(|(program, _)| provision::starts(program));
    let packages: Vec<_> = BROWSER.iter().map(|(_, package)| *package).chain(FONTS).collect();
    if !there || !provision::starts("fc-list") || !fonts()? {
        provision::apt(&packages)?;
    }
    // The list of packages is whole; without this, pip would bring a second browser's driver along.
    let whole = [("PIP_NO_DEPS", "1")];
    let python = provision::python_with(&root().join("tests/console/requirements.txt"), &whole)?;
    run(&mut cargo(&["build", "--package", "cli", "--bin", "tessera"]))?;
    let mut pytest = python.command(&["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/console"]);
    if !slow {
        pytest.args(["-m", "not slow"]);
    }
    pytest.env("TESSERA_BIN", target_directory()?.join("debug").join("tessera")).env("TESSERA_TEST_MODELS", models);
    run(&mut pytest)
}

/// Whether text comes out in the fonts that the pictures are made with.
fn fonts() -> Result<bool> {
    let list = crate::run::output(&mut Command::new("fc-list"))?;
    Ok(["NotoSansCJK", "Inter-Regular", "JetBrainsMono"].iter().all(|font| list.contains(font)))
}
