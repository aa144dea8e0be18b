//! Any bytes as the body of a request to the OpenAI API: every endpoint refuses it with an error or takes it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::openai::{chat, completion, embedding};

fuzz_target!(|data: &[u8]| {
    let _ = chat::parse(data);
    let _ = completion::parse(data);
    let _ = embedding::parse(data);
});
