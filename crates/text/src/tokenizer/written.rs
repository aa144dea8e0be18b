//! A GGUF file's byte-level vocabulary as the `tokenizer.json` that everybody else reads.

use serde_json::{Map, Value, json};

use super::split;
use crate::{Error, Vocabulary};

/// A vocabulary of the kind `gpt2` as a `tokenizer.json`, with the same ids for every text.
///
/// # Errors
/// The vocabulary is of another kind, or its pre-tokenizer is unknown.
pub fn tokenizer_json(vocabulary: &Vocabulary) -> Result<Value, Error> {
    if vocabulary.kind != "gpt2" {
        let kind = &vocabulary.kind;
        return Err(Error::Tokenizer(format!("only byte-level vocabularies are written, and this one is `{kind}`")));
    }
    let (expressions, whole_words) = split::expressions(&vocabulary.pre)?;
    let mut cuts: Vec<Value> = expressions.iter().map(|expression| cut(expression)).collect();
    cuts.push(bytes());
    let vocab: Map<String, Value> =
        vocabulary.tokens.iter().enumerate().map(|(id, text)| (text.clone(), id.into())).collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(vocabulary),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
        "post_processor": begins(vocabulary),
        "decoder": bytes(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": whole_words,
            "vocab": vocab, "merges": vocabulary.merges,
        },
    }))
}

/// What stands beside it: the tokens that begin and end, and the chat template.
pub fn tokenizer_config(bos: Option<&str>, eos: Option<&str>, template: Option<&str>) -> Value {
    let said = [("bos_token", bos), ("eos_token", eos), ("chat_template", template)];
    let said = said.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?))));
    Value::Object(said.collect())
}

fn cut(expression: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
}

fn bytes() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

/// Tokens that are recognised before anything else.
fn added(vocabulary: &Vocabulary) -> Vec<Value> {
    let kinds = (0..vocabulary.tokens.len()).map(|id| (id, vocabulary.kind_of(id)));
    let added = kinds.filter(|(_, kind)| kind.is_special() || *kind == super::Kind::UserDefined);
    let entry = |(id, kind): (usize, super::Kind)| {
        json!({
            "id": id, "content": vocabulary.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": kind.is_special(),
        })
    };
    added.map(entry).collect()
}

/// Puts the token that begins a text in front of it, where the model was trained so.
fn begins(vocabulary: &Vocabulary) -> Value {
    let Some(bos) = vocabulary.bos.filter(|_| vocabulary.add_bos) else { return Value::Null };
    let text = &vocabulary.tokens[bos as usize];
    let (token, a) =
        (json!({"SpecialToken": {"id": text, "type_id": 0}}), json!({"Sequence": {"id": "A", "type_id": 0}}));
    json!({
        "type": "TemplateProcessing", "single": [token, a], "pair": [token, a, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {text: {"id": text, "ids": [bos], "tokens": [text]}},
    })
}
