//! Text to token ids, equal to the reference tokenizer's.

use crate::{Error, Vocabulary};

/// A tokenizer. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Tokenizer {}

impl Tokenizer {
    /// From the plain data of a GGUF file.
    pub fn from_vocabulary(_vocabulary: &Vocabulary) -> Result<Self, Error> { unimplemented!() }
    /// From `tokenizer.json` and, for bos/eos and the like, `tokenizer_config.json`.
    pub fn from_json(_tokenizer: &[u8], _config: Option<&[u8]>) -> Result<Self, Error> { unimplemented!() }
    /// Ids of a user's text: special tokens in it are ordinary characters. Neither bos nor eos is added.
    pub fn encode(&self, _text: &str) -> Vec<u32> { unimplemented!() }
    /// Ids of a user's text as the reference makes them for a whole document: with bos/eos where the model wants them
    /// (BERT: `[CLS]` .. `[SEP]`).
    pub fn encode_document(&self, _text: &str) -> Vec<u32> { unimplemented!() }
    /// Ids of a rendered chat template: special tokens count, but not those inside text that `ChatTemplate::render` marked as the user's.
    pub fn encode_rendered(&self, _rendered: &crate::template::Rendered) -> Vec<u32> { unimplemented!() }
    /// Text of ids, special tokens left out, invalid UTF-8 replaced.
    pub fn decode(&self, _ids: &[u32]) -> String { unimplemented!() }
    /// The bytes of one token (a special token's text; a SentencePiece `▁` as a space). Empty if out of range.
    pub fn bytes(&self, _id: u32) -> &[u8] { unimplemented!() }
    /// Size of the vocabulary.
    pub fn len(&self) -> usize { unimplemented!() }
    /// The id is a control token.
    pub fn is_special(&self, _id: u32) -> bool { unimplemented!() }
    /// Beginning of text.
    pub fn bos(&self) -> Option<u32> { unimplemented!() }
    /// The reference starts raw prompts with bos.
    pub fn adds_bos(&self) -> bool { unimplemented!() }
    /// All tokens that end an answer (eos, end of turn).
    pub fn ends(&self) -> &[u32] { unimplemented!() }
    /// The id of a token by its exact text.
    pub fn id_of(&self, _token: &str) -> Option<u32> { unimplemented!() }
}
