//! Text to token ids, equal to the reference tokenizer's.
//!
//! What a GGUF file stores is tokenised by the two implementations here (`byte_level`, `sentencepiece`), because the
//! `tokenizers` crate cannot express merging by score, and holds a vocabulary of 49k tokens in several times the memory;
//! a `tokenizer.json` and WordPiece are run by that crate (`library`). All kinds share how tokens that stand for
//! themselves are cut out of a text first (`special`), and the texts of tokens (`table`). A vocabulary can be `written` as a
//! `tokenizer.json`, and such a file cut down to what a domain needs (`trim`).

mod byte_level;
mod library;
mod merge;
mod sentencepiece;
mod special;
mod split;
mod table;
mod trim;
mod written;

use std::sync::Arc;

use serde_json::Value;

use self::byte_level::ByteLevel;
use self::library::Library;
use self::sentencepiece::SentencePiece;
pub(crate) use self::special::Specials;
use self::special::{Part, Special};
use self::table::{Kind, Tokens};
pub use self::trim::{Trimmed, trim};
pub use self::written::{tokenizer_config, tokenizer_json};
use crate::template::Rendered;
use crate::{Decoder, Error, Vocabulary};

/// A tokenizer. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Tokenizer {
    tokens: Tokens,
    specials: Arc<Specials>,
    model: Model,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    ends: Vec<u32>,
    leading_space: bool,
}

#[derive(Debug)]
enum Model {
    ByteLevel(Box<ByteLevel>),
    SentencePiece(Box<SentencePiece>),
    Library(Box<Library>),
}

/// Control tokens that end an answer wherever they occur in a vocabulary: files often name only one of the two or three
/// that a model was trained to end with.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
];

impl Tokenizer {
    /// From the plain data of a GGUF file.
    pub fn from_vocabulary(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let vocabulary = &checked(vocabulary)?;
        let (tokens, model) = match vocabulary.kind.as_str() {
            "gpt2" => ByteLevel::new(vocabulary).map(|(tokens, model)| (tokens, Model::ByteLevel(model.into())))?,
            "llama" => {
                SentencePiece::new(vocabulary).map(|(tokens, model)| (tokens, Model::SentencePiece(model.into())))?
            }
            "bert" => return Self::word_piece(vocabulary),
            other => {
                return Err(Error::Tokenizer(format!(
                    "vocabularies of kind `{other}` are not supported; use a model with gpt2, llama or bert, or its \
                     tokenizer.json"
                )));
            }
        };
        let specials = Arc::new(Specials::new(specials_of(vocabulary, &tokens))?);
        let leading_space = matches!(&model, Model::SentencePiece(model) if model.space_prefix);
        let tokenizer = Self {
            tokens,
            specials,
            model,
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            add_bos: vocabulary.add_bos && vocabulary.bos.is_some(),
            add_eos: vocabulary.add_eos && vocabulary.eos.is_some(),
            ends: Vec::new(),
            leading_space,
        };
        Ok(tokenizer.with_ends(vocabulary.eot))
    }

    fn word_piece(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let mut tokenizer = Self::from_library(Library::word_piece(vocabulary)?)?;
        tokenizer.bos = vocabulary.bos.or_else(|| tokenizer.id_of("[CLS]"));
        tokenizer.eos = vocabulary.eos.or_else(|| tokenizer.id_of("[SEP]"));
        tokenizer.add_bos = tokenizer.bos.is_some();
        tokenizer.add_eos = tokenizer.eos.is_some();
        Ok(tokenizer.with_ends(vocabulary.eot))
    }

    /// From `tokenizer.json` and, for bos/eos and the like, `tokenizer_config.json`.
    pub fn from_json(tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self, Error> {
        let config: Value = match config {
            Some(config) => serde_json::from_slice(config)
                .map_err(|error| Error::Tokenizer(format!("tokenizer_config.json: {error}; fetch it again")))?,
            None => Value::Null,
        };
        let mut tokenizer = Self::from_library(Library::from_json(tokenizer)?)?;
        let named = |key: &str| {
            let entry = config.get(key)?;
            tokenizer.id_of(entry.as_str().or_else(|| entry.get("content")?.as_str())?)
        };
        (tokenizer.bos, tokenizer.eos) = (named("bos_token"), named("eos_token"));
        Ok(tokenizer.with_ends(None))
    }

    fn from_library(library: Library) -> Result<Self, Error> {
        let (tokens, specials) = library.tokens()?;
        Ok(Self {
            tokens,
            specials: Specials::new(specials)?.into(),
            leading_space: library.spelling().leads_with_space(),
            model: Model::Library(library.into()),
            bos: None,
            eos: None,
            add_bos: false,
            add_eos: false,
            ends: Vec::new(),
        })
    }

    fn with_ends(mut self, eot: Option<u32>) -> Self {
        let known = ENDS.iter().filter_map(|text| self.specials.id_of(text)).filter(|id| self.is_special(*id));
        let mut ends = Vec::new();
        for id in self.eos.into_iter().chain(eot).chain(known) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        self.ends = ends;
        self
    }

    /// Ids of a user's text: special tokens in it are ordinary characters. Neither bos nor eos is added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.model {
            Model::Library(library) => library.encode(text, false, self.specials.any_control(text)),
            _ => self.encode_parts(text, &self.specials.cut_plain(text)),
        }
    }

    /// Ids of a user's text as the reference makes them for a whole document: with bos/eos where the model wants them
    /// (BERT: `[CLS]` .. `[SEP]`).
    pub fn encode_document(&self, text: &str) -> Vec<u32> {
        let mut ids: Vec<u32> = self.bos.filter(|_| self.add_bos).into_iter().collect();
        match &self.model {
            Model::Library(library) => ids.extend(library.encode(text, true, self.specials.any_control(text))),
            _ => ids.extend(self.encode(text)),
        }
        ids.extend(self.eos.filter(|_| self.add_eos));
        ids
    }

    /// Ids of a rendered chat template: special tokens count, but not those inside text that `ChatTemplate::render`
    /// marked as the user's.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Vec<u32> {
        let text = rendered.as_str();
        match &self.model {
            Model::Library(library) if rendered.literal().is_empty() => library.encode(text, false, false),
            _ => self.encode_parts(text, &self.specials.cut_marked(text, rendered.literal())),
        }
    }

    /// Ids of a text in the middle of an answer, where no space is put before it.
    pub(crate) fn encode_inside(&self, text: &str) -> Vec<u32> {
        match &self.model {
            Model::Library(_) => self.encode(text),
            _ => self.encode_from(text, &self.specials.cut_plain(text), false),
        }
    }

    /// `encode_inside` gives what the model saw in training; otherwise it is but one way to spell a text.
    pub(crate) fn encodes_inside(&self) -> bool {
        !(matches!(self.model, Model::Library(_)) && self.leading_space)
    }

    fn encode_parts(&self, text: &str, parts: &[Part]) -> Vec<u32> {
        self.encode_from(text, parts, true)
    }

    fn encode_from(&self, text: &str, parts: &[Part], mut begins: bool) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 1);
        for part in parts {
            match part {
                Part::Token(id) => ids.push(*id),
                Part::Text(range) if range.is_empty() => continue,
                Part::Text(range) => self.encode_part(&text[range.clone()], begins, &mut ids),
            }
            begins = matches!(part, Part::Token(_));
        }
        ids
    }

    fn encode_part(&self, text: &str, begins: bool, ids: &mut Vec<u32>) {
        match &self.model {
            Model::ByteLevel(model) => model.encode(&self.tokens, text, ids),
            Model::SentencePiece(model) => model.encode(&self.tokens, text, begins, ids),
            Model::Library(library) => ids.extend(library.encode(text, false, true)),
        }
    }

    /// Text of ids, special tokens left out, invalid UTF-8 replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut decoder = Decoder::new(true);
        let mut text: String = ids.iter().map(|id| decoder.push(self, *id)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The bytes of one token (a special token's text; a SentencePiece `▁` as a space). Empty if out of range.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.tokens.get(id)
    }

    /// Size of the vocabulary.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// There are no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.tokens.kind(id).is_special()
    }

    /// The id fills up the vocabulary and was never trained.
    pub(crate) fn is_unused(&self, id: u32) -> bool {
        self.tokens.kind(id) == Kind::Unused
    }

    /// Beginning of text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// End of text or turn, as the file names it.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The reference starts raw prompts with bos.
    pub fn adds_bos(&self) -> bool {
        match &self.model {
            Model::Library(library) if !self.add_bos => {
                self.bos.is_some() && library.encode("", true, false).first().copied() == self.bos
            }
            _ => self.add_bos,
        }
    }

    /// All tokens that end an answer (eos, end of turn).
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The id of a token by its exact text (a space as a space).
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.specials.id_of(token).or_else(|| match &self.model {
            Model::ByteLevel(model) => model.id_of(&self.tokens, token.as_bytes()),
            Model::SentencePiece(model) => model.id_of(&self.tokens, token.as_bytes()),
            Model::Library(library) => library.id_of(token),
        })
    }

    /// Tokens that are recognised in a text before anything else.
    pub(crate) fn specials(&self) -> &Arc<Specials> {
        &self.specials
    }

    /// A text begins with a space that is not part of it.
    pub(crate) fn leads_with_space(&self) -> bool {
        self.leading_space
    }
}

/// The vocabulary with ids inside it and a type for every token, so that nothing later has to doubt them.
fn checked(vocabulary: &Vocabulary) -> Result<std::borrow::Cow<'_, Vocabulary>, Error> {
    let Vocabulary { tokens, types, bos, eos, eot, unk, pad, .. } = vocabulary;
    let n = tokens.len();
    for (name, id) in [("bos", bos), ("eos", eos), ("eot", eot), ("unk", unk), ("pad", pad)] {
        if let Some(id) = id.filter(|id| *id as usize >= n) {
            return Err(Error::Tokenizer(format!("{name} is token {id}, but there are {n}; the file is damaged")));
        }
    }
    if types.len() == n {
        return Ok(std::borrow::Cow::Borrowed(vocabulary));
    }
    if !types.is_empty() {
        return Err(Error::Tokenizer(format!("{n} tokens but {} types; the file is damaged", types.len())));
    }
    let mut typed = vocabulary.clone();
    typed.types = vec![1; n];
    for id in [bos, eos, eot, unk, pad].into_iter().flatten() {
        typed.types[*id as usize] = 3;
    }
    Ok(std::borrow::Cow::Owned(typed))
}

fn specials_of(vocabulary: &Vocabulary, tokens: &Tokens) -> Vec<Special> {
    let kinds = (0..tokens.len() as u32).map(|id| (id, tokens.kind(id)));
    kinds
        .filter(|(_, kind)| kind.is_special() || *kind == Kind::UserDefined)
        .map(|(id, kind)| Special {
            id,
            text: vocabulary.tokens[id as usize].clone(),
            control: kind.is_special(),
            ..Special::default()
        })
        .collect()
}
