//! What can go wrong when weights are packed: sizes that do not fit. Operations themselves do not fail.

/// Why bytes could not become a matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The columns are not a whole number of blocks.
    #[error("{cols} columns are not a multiple of {block}, the block length of {kind:?}")]
    Columns {
        /// Columns asked for.
        cols: usize,
        /// Block length.
        block: usize,
        /// Block type.
        kind: crate::BlockType,
    },
    /// The bytes do not have the length that the shape needs.
    #[error("a {rows} x {cols} matrix of {kind:?} needs {needed} bytes, got {got}")]
    Length {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Block type.
        kind: crate::BlockType,
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        got: usize,
    },
}
