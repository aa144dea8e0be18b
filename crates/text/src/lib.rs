//! Text to tokens and back, chat templates, and which tokens may come next.
//!
//! Invariant: no weights, no tensors and no HTTP; special tokens in a user's text never become control tokens.

mod constraint;
mod decode;
mod error;
mod template;
mod tokenizer;
mod tools;
mod vocabulary;

pub use constraint::{Constraint, Grammars, Matcher, Next};
pub use decode::Decoder;
pub use error::Error;
pub use template::{ChatTemplate, Rendered};
pub use tokenizer::{Tokenizer, Trimmed, tokenizer_config, tokenizer_json, trim};
pub use tools::{
    Tool, ToolChoice, ToolEvent, ToolFormat, ToolParser, fold_tools, tool_grammar, tool_or_json_grammar, tool_prompt,
};
pub use vocabulary::Vocabulary;
