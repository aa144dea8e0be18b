//! Any text as an expression of a chain: it has a value that is shown so that it reads as itself, or it is refused, in bounded time
//! and memory either way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reason::{Number, compute};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(value) = compute(text, &[Number::parse("7/3"), None]) else { return };
    let shown = value.to_string();
    // What is longer than an expression may be is only ever shown.
    assert!(shown.len() > 512 || Number::parse(&shown).as_ref() == Some(&value), "{text} is {shown}");
});
