//! The plain data a tokenizer is built from: what a GGUF file stores under `tokenizer.ggml.*`.

/// Tokens and rules as a GGUF file stores them (`tokenizer.ggml.*`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece), `bert` (WordPiece).
    pub kind: String,
    /// The pre-tokenizer's name (`tokenizer.ggml.pre`): `smollm`, `qwen2`, ...
    pub pre: String,
    /// Token texts by id, in the encoding of the kind.
    pub tokens: Vec<String>,
    /// SentencePiece scores; may be empty.
    pub scores: Vec<f32>,
    /// GGUF token types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; may be empty.
    pub types: Vec<u8>,
    /// BPE merges, `left right`, best first.
    pub merges: Vec<String>,
    /// Beginning of text.
    pub bos: Option<u32>,
    /// End of text or turn.
    pub eos: Option<u32>,
    /// End of turn where it differs.
    pub eot: Option<u32>,
    /// Unknown token.
    pub unk: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// The reference puts `bos` in front of every text.
    pub add_bos: bool,
    /// The reference puts `eos` behind every text.
    pub add_eos: bool,
    /// SentencePiece's dummy prefix.
    pub add_space_prefix: bool,
}
