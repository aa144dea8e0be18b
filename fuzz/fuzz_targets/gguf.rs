//! Any bytes as a GGUF file: the header must be refused or read, and a file whose header is sound must load or be refused.
//!
//! Loading goes the way of the product, through a path. The file lies in shared memory, so nothing reaches a disk. A header is
//! sound only if its tensors lie inside the file, so what loads is no larger than the input.

#![no_main]

use std::{fs, path::PathBuf, sync::OnceLock};

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if model::gguf::Header::read(&mut &data[..], data.len() as u64).is_ok() {
        load(data);
    }
});

fn load(data: &[u8]) {
    static DEVICE: OnceLock<kernels::Device> = OnceLock::new();
    let path = PathBuf::from(format!("/dev/shm/tessera-fuzz-{}.gguf", std::process::id()));
    fs::write(&path, data).expect("shared memory takes files");
    let _ = model::inspect(&path);
    let _ = model::Model::load(DEVICE.get_or_init(|| kernels::Device::new(1)), &path, &|_, _| ());
    fs::remove_file(&path).expect("the file is ours");
}
