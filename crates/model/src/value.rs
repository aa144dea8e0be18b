//! Metadata values, whatever file they come from.

/// A value of a checkpoint's metadata. Numbers of all widths are folded into one integer and one float type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// True or false.
    Bool(bool),
    /// A whole number; beyond `i64` it saturates.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(String),
    /// Whole numbers (and truths as 0 and 1).
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Texts.
    Texts(Vec<String>),
    /// Lists of lists.
    Lists(Vec<Value>),
}
