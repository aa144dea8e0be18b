//! Any bytes as a safetensors file: the header must be refused or read.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = model::safetensors::Header::read(&mut &data[..], data.len() as u64);
});
