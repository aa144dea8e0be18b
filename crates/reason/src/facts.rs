//! From a text to facts, without a chance to invent one.
//!
//! [`propose`] finds every amount, duration, percentage and date in the text and makes a typed value of it, with the bytes it was
//! read from; words of a schema's choices are found the same way, and free text is quoted ([`quotes`]). [`assign`] gives proposals to the schema's slots: cues (words
//! near the span, which stand in the schema as data) and the model's scores are added up, and the assignment with the highest sum wins.
//! A fact is always a proposal's value, so its quote is always in the text; what no proposal fits is absent and is asked for.

pub(crate) mod assign;
pub(crate) mod clause;
pub(crate) mod cues;
pub(crate) mod date;
pub(crate) mod denied;
pub(crate) mod judge;
pub(crate) mod number;
pub(crate) mod over;
pub(crate) mod propose;
pub(crate) mod quotes;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
