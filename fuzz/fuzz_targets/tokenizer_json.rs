//! Any bytes as a `tokenizer.json`: it must be refused, or tokenise text and give it back without panicking.

#![no_main]

use libfuzzer_sys::fuzz_target;
use text::Tokenizer;

fuzz_target!(|data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(data, None) else { return };
    let ids = tokenizer.encode("Hello, <|im_end|> Wörld 你好 \u{1f600}\n\t 12345");
    let _ = tokenizer.encode_document("");
    let _ = tokenizer.decode(&ids);
    let _ = tokenizer.decode(&[0, 1, u32::MAX]);
    let _ = tokenizer.bytes(u32::MAX);
});
