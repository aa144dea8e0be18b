//! Tokenizers described by a `tokenizer.json`, and WordPiece: run by the `tokenizers` crate.
//!
//! The crate recognises special tokens in any text it is given, or in none. Neither alone is right: a user's text must
//! not make control tokens and a chat template must. So two forms of the tokenizer exist: one that recognises them, used
//! for texts in which none occurs or all of them count; and one that does not, made when a user first types one.

use std::sync::OnceLock;

use serde_json::{Map, json};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::AddedToken;

use super::byte_level;
use super::sentencepiece::{SPACE, byte_named};
use super::special::Special;
use super::table::{Kind, Tokens};
use crate::{Error, Vocabulary};

/// A tokenizer of the `tokenizers` crate.
#[derive(Debug)]
pub(crate) struct Library {
    all: tokenizers::Tokenizer,
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
}

/// How a vocabulary writes the bytes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Printable characters for bytes.
    Bytes,
    /// `▁` for a space, `<0x0A>` for a byte.
    Pieces,
    /// `##` in front of what continues a word.
    WordPiece,
    /// As it is.
    Plain,
}

impl Library {
    /// Reads a `tokenizer.json`. Its truncation and padding are dropped: how much a model takes is the engine's affair.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self, Error> {
        contained(|| {
            let mut all = tokenizers::Tokenizer::from_bytes(json).map_err(|error| broken(&error))?;
            all.with_truncation(None).map_err(|error| broken(&error))?;
            all.with_padding(None);
            Self::new(all)
        })
    }

    /// WordPiece from GGUF data, where `▁` begins a word and nothing marks what continues one.
    pub(crate) fn word_piece(vocabulary: &Vocabulary) -> Result<Self, Error> {
        let mut vocab = Map::new();
        let mut specials = Vec::new();
        for (id, text) in vocabulary.tokens.iter().enumerate() {
            let bracketed = text.len() > 2 && text.starts_with('[') && text.ends_with(']');
            let name = match text.strip_prefix(SPACE) {
                _ if bracketed || vocabulary.kind_of(id).is_special() => {
                    specials.push(AddedToken::from(text.as_str(), true));
                    text.clone()
                }
                Some(word) => word.to_owned(),
                None => format!("##{text}"),
            };
            vocab.insert(name, id.into());
        }
        let unknown = vocabulary.unk.and_then(|id| vocabulary.tokens.get(id as usize));
        // The builder wants a map of a type that the crate does not export; its JSON form asks for none.
        let model: WordPiece = serde_json::from_value(json!({
            "type": "WordPiece",
            "unk_token": unknown.map_or("[UNK]", |text| text),
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        }))
        .map_err(|error| broken(&error))?;
        let mut all = tokenizers::Tokenizer::new(model);
        all.with_normalizer(Some(BertNormalizer::default()))
            .map_err(|error| broken(&error))?
            .with_pre_tokenizer(Some(BertPreTokenizer))
            .with_decoder(Some(tokenizers::decoders::wordpiece::WordPiece::default()));
        all.add_special_tokens(specials).map_err(|error| broken(&error))?;
        Self::new(all)
    }

    fn new(all: tokenizers::Tokenizer) -> Result<Self, Error> {
        // A character of no script fails where the vocabulary has no token for what it does not know, and a document where the
        // post-processor names a token that is missing.
        all.encode_fast("\u{10FFFD}", true).map_err(|error| broken(&error))?;
        Ok(Self { all, plain: OnceLock::new() })
    }

    /// Ids of a text, with what the post-processor adds if `document`. Control tokens in the text count unless `plain`.
    pub(crate) fn encode(&self, text: &str, document: bool, plain: bool) -> Vec<u32> {
        let tokenizer = if plain { self.plain() } else { &self.all };
        // `new` has tried the one thing that can fail.
        tokenizer.encode_fast(text, document).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    fn plain(&self) -> &tokenizers::Tokenizer {
        self.plain.get_or_init(|| {
            let mut plain = self.all.clone();
            plain.set_encode_special_tokens(true);
            Box::new(plain)
        })
    }

    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.all.token_to_id(token)
    }

    /// How this vocabulary writes bytes: told by the decoder, or else by the pre-tokenizer.
    pub(crate) fn spelling(&self) -> Spelling {
        let decoder = self.all.get_decoder().and_then(|decoder| serde_json::to_string(decoder).ok());
        let splitter = self.all.get_pre_tokenizer().and_then(|splitter| serde_json::to_string(splitter).ok());
        for description in [decoder, splitter].iter().flatten() {
            let has = |name: &str| description.contains(name);
            if has("\"ByteLevel\"") {
                return Spelling::Bytes;
            } else if has("\"WordPiece\"") || has("\"Bert") {
                return Spelling::WordPiece;
            } else if has("\"Metaspace\"") || has("\"ByteFallback\"") || has(&SPACE.to_string()) {
                return Spelling::Pieces;
            }
        }
        Spelling::Plain
    }

    /// Every token's bytes, and those that are recognised in a text as they are.
    pub(crate) fn tokens(&self) -> Result<(Tokens, Vec<Special>), Error> {
        let vocab = self.all.get_vocab(true);
        let n = vocab.values().max().map_or(0, |id| *id as usize + 1);
        if n > 2 * vocab.len() + (1 << 16) {
            let problem = format!("{} tokens, but ids up to {n}; the file is damaged", vocab.len());
            return Err(Error::Tokenizer(problem));
        }
        let mut texts = vec![""; n];
        vocab.iter().for_each(|(text, id)| texts[*id as usize] = text);
        let spelling = self.spelling();
        let added = self.all.get_added_tokens_decoder();
        let mut tokens = Tokens::with_capacity(n);
        for (id, text) in texts.iter().enumerate() {
            match added.get(&(id as u32)) {
                Some(token) if token.special => tokens.push(text.bytes(), Kind::Control),
                Some(_) => tokens.push(text.bytes(), Kind::UserDefined),
                None => spelling.push(&mut tokens, text),
            }
        }
        tokens.shrink();
        Ok((tokens, added.into_iter().map(|(id, token)| special(id, token)).collect()))
    }
}

impl Spelling {
    fn push(self, tokens: &mut Tokens, text: &str) {
        match self {
            Self::Bytes => match byte_level::decode(text) {
                Some(bytes) => tokens.push(bytes, Kind::Normal),
                None => tokens.push(text.bytes(), Kind::Normal),
            },
            Self::Pieces => match byte_named(text) {
                Some(byte) => tokens.push([byte], Kind::Byte),
                None => tokens.push(text.replace(SPACE, " ").bytes(), Kind::Normal),
            },
            Self::WordPiece => match text.strip_prefix("##") {
                Some(rest) => tokens.push(rest.bytes(), Kind::Normal),
                None => tokens.push(b" ".iter().copied().chain(text.bytes()), Kind::Normal),
            },
            Self::Plain => tokens.push(text.bytes(), Kind::Normal),
        }
    }

    /// The first space of a text is not part of it.
    pub(crate) fn leads_with_space(self) -> bool {
        matches!(self, Self::Pieces | Self::WordPiece)
    }
}

fn special(id: u32, token: AddedToken) -> Special {
    Special { id, text: token.content, control: token.special, strip_left: token.lstrip, strip_right: token.rstrip }
}

/// Runs the crate on a file of unknown origin. It panics on some that are merely wrong (a decoder that is no object), which
/// is one more way of being broken; nothing is kept of what it had begun.
fn contained<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::Tokenizer("this tokenizer.json is of a form that the tokenizers crate cannot read".into()))
    })
}

fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::Tokenizer(format!("{error}; the tokenizer's description is damaged or of a kind unknown here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: the crate panics where the decoder's JSON is cut off.
    #[test]
    fn a_file_cut_inside_its_decoder_is_refused() {
        for json in [r#"{"version":"1.0","decoder":"#, r#"{"version":"1.0","decoder":{"type""#, "{", ""] {
            let error = Library::from_json(json.as_bytes()).unwrap_err();
            assert!(matches!(error, Error::Tokenizer(_)), "{json}: {error}");
        }
    }

    /// Found by fuzzing: the crate panics at the first document where a template names a token that is not described.
    #[test]
    fn a_template_without_its_token_is_refused() {
        let file = |described: serde_json::Value| {
            json!({
                "version": "1.0",
                "added_tokens": [],
                "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": {"[CLS]": 0, "[UNK]": 1}},
                "post_processor": {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                    "special_tokens": described},
            })
            .to_string()
        };
        let described = json!({"[CLS]": {"id": "[CLS]", "ids": [0], "tokens": ["[CLS]"]}});
        assert!(Library::from_json(file(described).as_bytes()).is_ok());
        let error = Library::from_json(file(json!({})).as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Tokenizer(_)), "{error}");
    }
}
