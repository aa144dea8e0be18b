//! The Merkle tree: its right edge in memory, its full tiles in rows.
//!
//! RFC 6962 hashing in tiles of 256 (c2sp.org/tlog-tiles): tile (level, n) holds the hashes n*256.. of tree level 8*level. Hashing, proofs and
//! their checks are `tlog_tiles`'; here is only where the hashes are. An [`Edge`] is enough to append and to compute the root; a proof
//! reads at most a tile per level.

use std::{cell::RefCell, collections::HashMap};

use sqlx::SqlSafeStr;
use tlog_tiles::{HASH_SIZE, Hash, HashReader, Tile, tlog};

use crate::{
    Error, Result,
    store::{Row, Store, Value},
};

/// Hashes in a tile.
pub(crate) const WIDTH: u64 = 256;
/// Tree levels in a tile.
const HEIGHT: u8 = 8;

/// The unfinished tiles of every level: all that is needed to append and to compute the root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edge {
    size: u64,
    /// By tile level: the hashes of its unfinished tile.
    levels: Vec<Vec<Hash>>,
}

/// A tile that got full.
#[derive(Debug, Clone)]
pub(crate) struct Full {
    pub(crate) level: u64,
    pub(crate) n: u64,
    pub(crate) root: Hash,
    pub(crate) data: Vec<u8>,
}

impl Edge {
    /// Entries in the tree.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; tiles that got full go to `full`.
    pub(crate) fn push(&mut self, leaf: Hash, full: &mut Vec<Full>) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(256));
            }
            self.levels[level].push(hash);
            if self.levels[level].len() < 256 {
                return;
            }
            let data = bytes(&self.levels[level]);
            self.levels[level].clear();
            hash = Tile::subtree_hash(&data);
            let n = (self.size >> (8 * (level + 1))) - 1;
            full.push(Full { level: level as u64, n, root: hash, data });
        }
    }

    /// The root over all entries.
    pub(crate) fn root(&self) -> Result<Hash> {
        tlog::tree_hash(self.size, self).map_err(|error| Error::Altered(error.to_string()))
    }

    /// The unfinished tile of leaves.
    pub(crate) fn unfinished(&self) -> Vec<u8> {
        self.levels.first().map_or_else(Vec::new, |hashes| bytes(hashes))
    }

    /// Reads it from the store.
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        let size = size(store).await?;
        let mut levels = Vec::new();
        while size >> (8 * levels.len()) > 0 {
            let level = levels.len() as u64;
            let count = size >> (8 * level);
            levels.push(hashes(store, level, count - count % WIDTH, count % WIDTH).await?);
        }
        Ok(Self { size, levels })
    }
}

impl HashReader for Edge {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        let read = |&index: &u64| {
            let tile = Tile::from_index(HEIGHT, index);
            let hashes = self.levels.get(usize::from(tile.level())).ok_or(tlog::Error::InvalidTile)?;
            tile.hash_at_index(&bytes(hashes), index)
        };
        indexes.iter().map(read).collect()
    }
}

fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// How many entries there are.
pub(crate) async fn size(store: &Store) -> Result<u64> {
    let rows = store.rows("SELECT COALESCE(MAX(idx), -1) + 1 FROM entries", vec![]).await?;
    rows.first().map_or(Ok(0), |row| row.count(0))
}

/// A hash out of a column.
pub(crate) fn hash(row: &Row, column: usize) -> Result<Hash> {
    let bytes = row.blob(column)?;
    <[u8; HASH_SIZE]>::try_from(bytes.as_slice())
        .map(Hash)
        .map_err(|_| Error::Altered(format!("a hash has {} bytes", bytes.len())))
}

/// `count` hashes of a tile level from the `first` on, as far as they are there.
async fn hashes(store: &Store, level: u64, first: u64, count: u64) -> Result<Vec<Hash>> {
    let (sql, mut args) = match level {
        0 => ("SELECT leaf FROM entries WHERE idx >= $1 AND idx < $2 ORDER BY idx".into_sql_str(), vec![]),
        _ => {
            let sql = "SELECT root FROM tiles WHERE n >= $1 AND n < $2 AND level = $3 ORDER BY n".into_sql_str();
            (sql, vec![Value::from(level - 1)])
        }
    };
    args.splice(0..0, [first.into(), (first + count).into()]);
    let rows = store.rows(sql, args).await?;
    if rows.len() as u64 != count {
        return Err(Error::Altered(format!(
            "{count} hashes of level {level} from {first} on: {} are there",
            rows.len()
        )));
    }
    rows.iter().map(|row| hash(row, 0)).collect()
}

/// The bytes of a tile: `width` hashes.
pub(crate) async fn tile(store: &Store, level: u64, n: u64, width: u64) -> Result<Vec<u8>> {
    if width == WIDTH {
        let rows =
            store.rows("SELECT data FROM tiles WHERE level = $1 AND n = $2", vec![level.into(), n.into()]).await?;
        let found = rows.first().ok_or_else(|| Error::NotFound(format!("tile {n} of level {level} is not here")))?;
        return found.blob(0);
    }
    hashes(store, level, n * WIDTH, width).await.map(|hashes| bytes(&hashes))
}

/// The root over the first `size` entries.
pub(crate) async fn root(store: &Store, size: u64) -> Result<Hash> {
    with_hashes(store, size, |hashes| tlog::tree_hash(size, &hashes)).await
}

/// Runs something that reads hashes. It runs twice: once to learn which ones it needs, then with these, read from the store in between;
/// `tlog_tiles` asks for all of them in one call.
pub(crate) async fn with_hashes<T>(
    store: &Store,
    size: u64,
    work: impl Fn(&dyn Hashes) -> Result<T, tlog::Error> + Send + Sync,
) -> Result<T> {
    let asked = asked_for(&work);
    let mut tiles = HashMap::new();
    for index in asked {
        let wanted = Tile::from_index(HEIGHT, index);
        let (level, n) = (u64::from(wanted.level()), wanted.level_index());
        if let std::collections::hash_map::Entry::Vacant(free) = tiles.entry((level, n)) {
            let width = (size >> (8 * level)).saturating_sub(n * WIDTH).min(WIDTH);
            free.insert(tile(store, level, n, width).await?);
        }
    }
    work(&Tiles(tiles)).map_err(|error| Error::Malformed(error.to_string()))
}

/// The indexes that something asks for.
fn asked_for<T>(work: impl Fn(&dyn Hashes) -> Result<T, tlog::Error>) -> Vec<u64> {
    let asked = Asked::default();
    let _ = work(&asked);
    asked.0.into_inner()
}

/// [`HashReader`], as an object.
pub(crate) trait Hashes {
    fn read(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error>;
}

impl HashReader for &dyn Hashes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        self.read(indexes)
    }
}

/// Notes what is asked for.
#[derive(Default)]
struct Asked(RefCell<Vec<u64>>);

impl Hashes for Asked {
    fn read(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        self.0.borrow_mut().extend_from_slice(indexes);
        Ok(vec![Hash::default(); indexes.len()])
    }
}

/// Tiles by level and place.
struct Tiles(HashMap<(u64, u64), Vec<u8>>);

impl Hashes for Tiles {
    fn read(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
        let read = |&index: &u64| {
            let wanted = Tile::from_index(HEIGHT, index);
            let data = self.0.get(&(u64::from(wanted.level()), wanted.level_index()));
            wanted.hash_at_index(data.ok_or(tlog::Error::InvalidTile)?, index)
        };
        indexes.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_has_the_root_of_the_tree_over_all_leaves() {
        struct Naive(Vec<Hash>);
        impl HashReader for Naive {
            fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog::Error> {
                Ok(indexes.iter().map(|&i| self.0[usize::try_from(i).unwrap()]).collect())
            }
        }
        let (mut edge, mut naive, mut full) = (Edge::default(), Naive(vec![]), vec![]);
        for n in 0..70_000_u64 {
            let leaf = tlog::record_hash(&n.to_le_bytes());
            edge.push(leaf, &mut full);
            let stored = tlog::stored_hashes_for_record_hash(n, leaf, &naive).unwrap();
            naive.0.extend(stored);
            if n < 600 || n % 997 == 0 || (65_500..65_800).contains(&n) {
                assert_eq!(edge.root().unwrap(), tlog::tree_hash(n + 1, &naive).unwrap(), "{n}");
            }
        }
        assert_eq!(full.len(), 70_000 / 256 + 1);
        let last = full.iter().find(|tile| tile.level == 1).unwrap();
        assert_eq!((last.n, last.data.len()), (0, 8192));
    }
}
