//! Backups, and the log as files.

use std::fs;

use ledger::{Error, Ledger, Scope, Verifier};
use tlog_tiles::{Hash, HashReader, Tile, TileHashReader, TileReader, tlog};

use crate::{
    bench::{Bench, request},
    records::{answer, signed},
    tamper::filled,
};

pub(crate) async fn a_backup_is_taken_while_running_and_restored_verified(bench: Bench) {
    let ledger = filled(&bench, 300).await;
    let (key, secret) = ledger.keys().create(crate::keys::grant("acme")).await.unwrap();
    let mut writing = tokio::task::JoinSet::new();
    let during = ledger.clone();
    writing.spawn(async move {
        for n in 0..300 {
            during.accept(request(format!("during{n}"))).await.unwrap().settle(answer()).await.unwrap();
        }
    });
    let copy = Bench::sqlite();
    let file = copy.path().join("backup.db");
    ledger.backup(&file).await.unwrap();
    writing.join_all().await;
    assert!(matches!(ledger.backup(&file).await, Err(Error::Settings(_))), "a backup is never overwritten");
    copy.share_keys(&ledger);
    let (restored, found) = Ledger::restore(copy.settings(), &file).await.unwrap();
    assert!(found.entries >= 600 && found.problems.is_empty());
    assert_eq!(restored.keys().find(&secret).unwrap().id, key.id);
    assert_eq!(
        restored.record(&Scope::All, "r0123").await.unwrap().map(|r| r.output_decision),
        ledger.record(&Scope::All, "r0123").await.unwrap().map(|r| r.output_decision)
    );
    restored.accept(request("after")).await.unwrap().settle(answer()).await.unwrap();
    assert!(
        matches!(Ledger::restore(copy.settings(), &file).await, Err(Error::Settings(_))),
        "only into an empty store"
    );
    restored.close().await;
    ledger.close().await;
}

pub(crate) async fn a_backup_that_does_not_verify_is_not_restored(bench: Bench) {
    let ledger = filled(&bench, 20).await;
    let copy = Bench::sqlite();
    let file = copy.path().join("backup.db");
    ledger.backup(&file).await.unwrap();
    let harm = Bench::at(&format!("sqlite:{}", file.display()));
    assert_eq!(harm.sql("UPDATE usage SET amount = 0 WHERE request_id = 'r0003'").await, 2);
    copy.share_keys(&ledger);
    let error = Ledger::restore(copy.settings(), &file).await.unwrap_err();
    assert!(matches!(&error, Error::Altered(why) if why.contains("usage")), "{error}");
    assert_eq!(copy.open().await.size().await.unwrap(), 0);
    ledger.close().await;
}

/// Reads exported tiles, and nothing else.
struct Files(std::path::PathBuf);

impl TileReader for Files {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        // The library puts the height into the path, the specification does not.
        let read = |tile: &Tile| fs::read(self.0.join(tile.path().replacen("tile/8/", "tile/", 1))).unwrap();
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

pub(crate) async fn an_export_verifies_from_its_files_alone(bench: Bench) {
    let ledger = filled(&bench, 150).await;
    let directory = bench.path().join("export");
    ledger.export(&directory).await.unwrap();
    for n in 0..150 {
        ledger.accept(request(format!("more{n}"))).await.unwrap().settle(answer()).await.unwrap();
    }
    signed(&ledger).await;
    ledger.export(&directory).await.unwrap();
    let public = ledger.verifier().to_string();
    ledger.close().await;

    let note = fs::read_to_string(directory.join("checkpoint")).unwrap();
    let checkpoint = Verifier::decode(&public).unwrap().open(&note).unwrap();
    assert_eq!(checkpoint.size, 600);
    let root = Hash::parse_hash(&checkpoint.root.to_string()).unwrap();
    let files = Files(directory.clone());
    let reader = TileHashReader::new(checkpoint.size, root, &files);
    let mut place = 0;
    for bundle in ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"] {
        let bytes = fs::read(directory.join(bundle)).unwrap();
        let mut rest = bytes.as_slice();
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let (entry, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
            let stored = reader.read_hashes(&[tlog::stored_hash_index(0, place)]).unwrap();
            assert!(stored[0] == tlog::record_hash(entry), "{place}");
            (rest, place) = (behind, place + 1);
        }
    }
    assert_eq!(place, 600);
}
