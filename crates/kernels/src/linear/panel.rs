//! Unpacked weights, one row block at a time, in memory that each thread keeps.

use std::cell::RefCell;

use crate::matrix::Tile;

thread_local! {
    static TILES: RefCell<Vec<Tile>> = const { RefCell::new(Vec::new()) };
}

/// This thread's unpacked weights.
#[derive(Debug)]
pub(super) struct Panel;

impl Panel {
    /// Lends room for `records` records, with whatever was in it before.
    pub(super) fn with<R>(records: usize, work: impl FnOnce(&mut [Tile]) -> R) -> R {
        TILES.with_borrow_mut(|tiles| {
            if tiles.len() < records {
                tiles.resize(records, Tile::ZERO);
            }
            work(&mut tiles[..records])
        })
    }
}
