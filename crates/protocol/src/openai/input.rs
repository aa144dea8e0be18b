//! The four ways to hand over texts: a string, strings, token ids, arrays of token ids. Completions and embeddings
//! share them.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::openai::schema::shapes;
use crate::{Error, TextOrTokens};

/// Texts or token ids, one or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// One text, or the ids of one.
    One(TextOrTokens),
    /// Several.
    Many(Vec<TextOrTokens>),
}

impl Input {
    /// The texts, checked to be at least one and at most `limit`, with their paths below `name`.
    pub(super) fn texts(self, name: &str, limit: usize) -> Result<Vec<(String, TextOrTokens)>, Error> {
        let texts = match self {
            Self::One(one) => vec![(name.to_owned(), one)],
            Self::Many(many) => many.into_iter().enumerate().map(|(i, t)| (format!("{name}[{i}]"), t)).collect(),
        };
        if texts.is_empty() {
            return Err(Error::invalid(name, format!("`{name}` is empty: give at least one text or token id.")));
        }
        if texts.len() > limit {
            let message = format!("`{name}` has {} entries; at most {limit} fit in one request.", texts.len());
            return Err(Error::invalid(name, message));
        }
        if let Some((place, _)) = texts.iter().find(|(_, t)| matches!(t, TextOrTokens::Tokens(ids) if ids.is_empty())) {
            return Err(Error::invalid(place.clone(), format!("`{place}` has no token ids: give at least one.")));
        }
        Ok(texts)
    }
}

shapes!(Input, "Input": String, Vec<String>, Vec<u32>, Vec<Vec<u32>>);

impl Serialize for Input {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(one) => Shown(one).serialize(serializer),
            Self::Many(many) => serializer.collect_seq(many.iter().map(Shown)),
        }
    }
}

struct Shown<'a>(&'a TextOrTokens);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            TextOrTokens::Text(text) => serializer.serialize_str(text),
            TextOrTokens::Tokens(ids) => serializer.collect_seq(ids),
        }
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, an array of token ids, or an array of arrays of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        Ok(Input::One(TextOrTokens::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Input, A::Error> {
        let items = Vec::<Item>::deserialize(SeqAccessDeserializer::new(seq))?;
        if matches!(items.first(), Some(Item::Id(_))) {
            let ids: Option<Vec<u32>> = items.iter().map(Item::id).collect();
            return ids.map(|ids| Input::One(TextOrTokens::Tokens(ids))).ok_or_else(mixed);
        }
        let text = matches!(items.first(), Some(Item::Text(_)));
        items.into_iter().map(|item| item.whole(text)).collect::<Option<_>>().map(Input::Many).ok_or_else(mixed)
    }
}

fn mixed<E: serde::de::Error>() -> E {
    E::custom("the array mixes strings, token ids and arrays; use one kind")
}

/// An element of the outer array.
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl Item {
    fn id(&self) -> Option<u32> {
        if let Self::Id(id) = self { Some(*id) } else { None }
    }

    /// This item as a whole text, if it is of the wanted kind.
    fn whole(self, text: bool) -> Option<TextOrTokens> {
        match self {
            Self::Text(t) if text => Some(TextOrTokens::Text(t)),
            Self::Ids(ids) if !text => Some(TextOrTokens::Tokens(ids)),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id, or an array of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Item, E> {
        u32::try_from(id).map(Item::Id).map_err(|_| E::custom(format!("{id} is too large for a token id")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Item, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Item::Ids)
    }
}
