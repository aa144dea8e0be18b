//! Any bytes as a `tokenizer.json`: it must be refused, or tokenise text and give it back without panicking.
//!
//! The `tokenizers` crate panics on some files and `text` makes errors of that. libFuzzer's own hook would end the process at
//! the panic itself, caught or not; so it is taken out. A panic that nobody catches still ends the run.

#![no_main]

use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use text::Tokenizer;

static HOOK: Once = Once::new();

fuzz_target!(|data: &[u8]| {
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let Ok(tokenizer) = Tokenizer::from_json(data, None) else { return };
    let ids = tokenizer.encode("Hello, <|im_end|> Wörld 你好 \u{1f600}\n\t 12345");
    let _ = tokenizer.encode_document("");
    let _ = tokenizer.decode(&ids);
    let _ = tokenizer.decode(&[0, 1, u32::MAX]);
    let _ = tokenizer.bytes(u32::MAX);
});
