//! The vocabulary a checkpoint carries, as plain data: `text` makes a tokenizer of it, `engine` joins the two.

use crate::Problem;
use crate::fields::Fields;
use crate::value::Value;

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

/// Where the tokenizer of a checkpoint is found.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizerSource {
    /// Inside the checkpoint (GGUF).
    Vocabulary(Vocabulary),
    /// The bytes of a `tokenizer.json` beside it (Hugging Face), and of `tokenizer_config.json` where there is one.
    Json {
        /// `tokenizer.json`.
        tokenizer: Vec<u8>,
        /// `tokenizer_config.json`.
        config: Option<Vec<u8>>,
    },
}

/// Moves the vocabulary out of a GGUF file's fields. Files without one give an empty vocabulary.
pub(crate) fn from_fields(fields: &mut Fields) -> Result<Vocabulary, Problem> {
    let kind = fields.raw_text("tokenizer.ggml.model").unwrap_or_default().to_owned();
    let pre = fields.raw_text("tokenizer.ggml.pre").unwrap_or("default").to_owned();
    let tokens = take_texts(fields, "tokenizer.ggml.tokens")?;
    let defaults = Defaults::of(&kind, &pre);
    let eos = special(fields, "tokenizer.ggml.eos_token_id", tokens.len())?;
    let eot = special(fields, "tokenizer.ggml.eot_token_id", tokens.len())?.or_else(|| end_of_turn(&tokens));
    Ok(Vocabulary {
        merges: take_texts(fields, "tokenizer.ggml.merges")?,
        scores: take_per_token(fields, "tokenizer.ggml.scores", tokens.len(), floats)?,
        types: take_per_token(fields, "tokenizer.ggml.token_type", tokens.len(), bytes)?,
        bos: special(fields, "tokenizer.ggml.bos_token_id", tokens.len())?,
        eos,
        eot: eot.filter(|eot| Some(*eot) != eos),
        unk: special(fields, "tokenizer.ggml.unknown_token_id", tokens.len())?,
        pad: special(fields, "tokenizer.ggml.padding_token_id", tokens.len())?,
        add_bos: truth(fields, "tokenizer.ggml.add_bos_token", defaults.add_bos),
        add_eos: truth(fields, "tokenizer.ggml.add_eos_token", defaults.add_eos),
        add_space_prefix: truth(fields, "tokenizer.ggml.add_space_prefix", defaults.add_space_prefix),
        kind,
        pre,
        tokens,
    })
}

/// What the reference does where the file says nothing.
struct Defaults {
    add_bos: bool,
    add_eos: bool,
    add_space_prefix: bool,
}

impl Defaults {
    fn of(kind: &str, pre: &str) -> Self {
        let add_bos = kind == "llama" || kind == "bert" || pre == "llama-bpe";
        Self { add_bos, add_eos: kind == "bert", add_space_prefix: kind == "llama" }
    }
}

fn truth(fields: &Fields, name: &str, default: bool) -> bool {
    match fields.raw(name) {
        Some(Value::Bool(said)) => *said,
        _ => default,
    }
}

fn floats(value: Value) -> Option<Vec<f32>> {
    match value {
        Value::Floats(scores) => Some(scores),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Integers(types) => Some(types.into_iter().map(|t| u8::try_from(t).unwrap_or(0)).collect()),
        _ => None,
    }
}

fn take_texts(fields: &mut Fields, name: &str) -> Result<Vec<String>, Problem> {
    match fields.take(name) {
        None => Ok(Vec::new()),
        Some(Value::Texts(texts)) => Ok(texts),
        Some(_) => Err(Problem::field(name, "is not a list of texts")),
    }
}

fn take_per_token<T>(
    fields: &mut Fields,
    name: &str,
    n_tokens: usize,
    list: impl FnOnce(Value) -> Option<Vec<T>>,
) -> Result<Vec<T>, Problem> {
    let Some(value) = fields.take(name) else { return Ok(Vec::new()) };
    let values = list(value).ok_or_else(|| Problem::field(name, "is not a list of numbers"))?;
    if values.len() == n_tokens {
        return Ok(values);
    }
    Err(Problem::field(name, format!("has {} entries for {n_tokens} tokens", values.len())))
}

fn special(fields: &Fields, name: &str, n_tokens: usize) -> Result<Option<u32>, Problem> {
    match fields.raw(name) {
        None => Ok(None),
        Some(Value::Integer(id)) => {
            let id = u32::try_from(*id).ok().filter(|&id| (id as usize) < n_tokens);
            // Files exist that write -1 or 2^32 - 1 for "none".
            Ok(id)
        }
        Some(other) => Err(Problem::field(name, format!("is {other:?}, expected a token's number"))),
    }
}

/// Older files do not name the token that ends a turn; chat models of the known families use one of these.
fn end_of_turn(tokens: &[String]) -> Option<u32> {
    const NAMES: [&str; 4] = ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"];
    let found = NAMES.iter().find_map(|name| tokens.iter().position(|token| token == name));
    found.and_then(|id| u32::try_from(id).ok())
}
