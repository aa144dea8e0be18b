//! A `tokenizer.json` with the tokens that a domain needs, and no others.
//!
//! What stays: tokens that the domain's texts are made of, all that merges into them, tokens that stand for one byte, and those that are recognised
//! as they are. A merge stays where all three of its tokens do. So the domain's texts get the same tokens as before: every merge on the way to
//! them is still there, and is still the best one that applies. Any other text gets shorter tokens, down to bytes.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::byte_level;
use crate::Error;

/// A smaller tokenizer.
#[derive(Debug, Clone, PartialEq)]
pub struct Trimmed {
    /// Its `tokenizer.json`.
    pub tokenizer: Value,
    /// What its tokens were before: the one of id `i` was `kept[i]`.
    pub kept: Vec<u32>,
}

/// Keeps of a byte-level `tokenizer.json` what texts of these tokens need.
///
/// # Errors
/// It is of another kind.
pub fn trim(tokenizer: &Value, used: &[u32]) -> Result<Trimmed, Error> {
    let model = Model::read(tokenizer)?;
    let kept = model.kept(used);
    let renamed: HashMap<u32, u32> = kept.iter().zip(0..).map(|(old, new)| (*old, new)).collect();
    let mut trimmed = tokenizer.clone();
    trimmed["model"]["vocab"] = model.vocabulary(&renamed);
    trimmed["model"]["merges"] = model.merges(&renamed);
    for added in trimmed.pointer_mut("/added_tokens").and_then(Value::as_array_mut).into_iter().flatten() {
        rename(&mut added["id"], &renamed);
    }
    let named = trimmed.pointer_mut("/post_processor/special_tokens").and_then(Value::as_object_mut);
    for id in named.into_iter().flatten().filter_map(|(_, token)| token["ids"].as_array_mut()).flatten() {
        rename(id, &renamed);
    }
    Ok(Trimmed { tokenizer: trimmed, kept: kept.into_iter().collect() })
}

fn rename(id: &mut Value, renamed: &HashMap<u32, u32>) {
    if let Some(new) = number(id).and_then(|old| renamed.get(&old)) {
        *id = (*new).into();
    }
}

fn number(id: &Value) -> Option<u32> {
    id.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A merge as the file has it, and its tokens: left, right, both.
struct Merge<'a> {
    written: &'a Value,
    tokens: [u32; 3],
}

struct Model<'a> {
    ids: HashMap<&'a str, u32>,
    added: Vec<u32>,
    merges: Vec<Merge<'a>>,
}

impl<'a> Model<'a> {
    fn read(tokenizer: &'a Value) -> Result<Self, Error> {
        let other =
            || Error::Tokenizer("only byte-level vocabularies are cut down, and this one is of another kind".into());
        let model = &tokenizer["model"];
        let described = format!("{}{}", tokenizer["decoder"], tokenizer["pre_tokenizer"]);
        if model["type"] != "BPE" || !described.contains("\"ByteLevel\"") {
            return Err(other());
        }
        let vocab = model["vocab"].as_object().ok_or_else(other)?;
        let ids: HashMap<&str, u32> =
            vocab.iter().filter_map(|(text, id)| Some((text.as_str(), number(id)?))).collect();
        let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
        let added = added.filter_map(|token| number(&token["id"])).collect();
        let written = model["merges"].as_array().ok_or_else(other)?;
        let merge = |written: &'a Value| {
            let (left, right) = halves(written)?;
            let both = ids.get(format!("{left}{right}").as_str())?;
            Some(Merge { written, tokens: [*ids.get(left)?, *ids.get(right)?, *both] })
        };
        let merges = written.iter().filter_map(merge).collect();
        Ok(Self { ids, added, merges })
    }

    fn kept(&self, used: &[u32]) -> BTreeSet<u32> {
        let mut made_of: HashMap<u32, Vec<u32>> = HashMap::new();
        for Merge { tokens: [left, right, both], .. } in &self.merges {
            made_of.entry(*both).or_default().extend([left, right]);
        }
        let single = |text: &&str| byte_level::decode(text).is_some_and(|bytes| bytes.count() == 1);
        let bytes = self.ids.iter().filter(|(text, _)| single(text)).map(|(_, id)| *id);
        let mut kept = BTreeSet::new();
        let mut open: Vec<u32> = bytes.chain(self.added.iter().copied()).chain(used.iter().copied()).collect();
        while let Some(token) = open.pop() {
            if kept.insert(token) {
                open.extend(made_of.get(&token).into_iter().flatten());
            }
        }
        kept
    }

    fn vocabulary(&self, renamed: &HashMap<u32, u32>) -> Value {
        let mut rows: Vec<_> = self.ids.iter().filter_map(|(text, id)| Some((*renamed.get(id)?, *text))).collect();
        rows.sort_unstable();
        Value::Object(rows.into_iter().map(|(id, text)| (text.to_owned(), id.into())).collect::<Map<_, _>>())
    }

    fn merges(&self, renamed: &HashMap<u32, u32>) -> Value {
        let whole = |merge: &&Merge<'_>| merge.tokens.iter().all(|token| renamed.contains_key(token));
        self.merges.iter().filter(whole).map(|merge| merge.written.clone()).collect()
    }
}

/// `left right`, or a list of the two.
fn halves(written: &Value) -> Option<(&str, &str)> {
    match written {
        Value::Array(two) => Some((two.first()?.as_str()?, two.get(1)?.as_str()?)),
        text => text.as_str()?.split_once(' '),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, Vocabulary, tokenizer_json};

    /// Bytes, two words with all that they are made of, and a token that ends.
    fn vocabulary() -> Vocabulary {
        let bytes = (0..0x144).filter_map(char::from_u32).map(String::from);
        let bytes = bytes.filter(|text| byte_level::decode(text).is_some());
        let merges = ["l o", "lo w", "Ġ low", "n e", "ne w", "low er", "e r", "l e"].map(str::to_owned).to_vec();
        let made = ["lo", "low", "Ġlow", "ne", "new", "er", "lower", "le"].map(str::to_owned);
        let tokens: Vec<String> = ["<|im_end|>".to_owned()].into_iter().chain(bytes).chain(made).collect();
        let mut types = vec![1; tokens.len()];
        types[0] = 3;
        let (kind, pre) = ("gpt2".to_owned(), "smollm".to_owned());
        Vocabulary { kind, pre, tokens, types, merges, eos: Some(0), ..Vocabulary::default() }
    }

    #[test]
    fn a_domain_keeps_its_tokens_and_the_rest_falls_to_bytes() {
        let vocabulary = vocabulary();
        let own = Tokenizer::from_vocabulary(&vocabulary).unwrap();
        let json = tokenizer_json(&vocabulary).unwrap();
        let written = Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap();
        let domain = "low lower";
        let trimmed = trim(&json, &own.encode(domain)).unwrap();
        let small = Tokenizer::from_json(trimmed.tokenizer.to_string().as_bytes(), None).unwrap();
        assert!(small.len() < own.len() && small.len() == trimmed.kept.len());
        assert_eq!(small.id_of("new"), None, "nothing of the domain needs it");
        for text in [domain, "newer news, zürich 12", "le  low\n\nlo"] {
            assert_eq!(own.encode(text), written.encode(text), "{text}");
            let ids = small.encode(text);
            assert_eq!(small.decode(&ids), text);
            let before: Vec<u32> = ids.iter().map(|id| trimmed.kept[*id as usize]).collect();
            assert_eq!(before == own.encode(text), text == domain, "{text}");
        }
        assert_eq!(small.ends(), [small.id_of("<|im_end|>").unwrap()]);
    }

    #[test]
    fn other_kinds_are_refused() {
        let other = Vocabulary { kind: "llama".into(), ..Vocabulary::default() };
        assert!(tokenizer_json(&other).is_err());
        assert!(trim(&serde_json::json!({"model": {"type": "Unigram"}}), &[]).is_err());
    }
}
