//! Proofs for people without access: this entry is in the log that was signed; that log is a continuation of the one signed earlier.
//!
//! They are checked with the log's public key and nothing else ([`Proof::check`], [`Consistency::check`]).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, tlog};

use crate::{
    Checkpoint, Error, Ledger, Result, Scope, Verifier,
    entry::{Body, binding, leaf},
    note::hex,
    tree,
    vault::SubjectKey,
};

/// That an entry stands in the signed log (RFC 6962 inclusion).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// Its place.
    pub index: u64,
    /// Its bytes, which are JSON.
    pub entry: String,
    /// Salt and content, in base64, where the prover discloses them; the entry holds their hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The hashes beside the way from the leaf to the root, in base64.
    pub hashes: Vec<String>,
    /// The signed note over the log.
    pub checkpoint: String,
}

/// That a signed log continues an earlier one (RFC 6962 consistency).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consistency {
    /// The earlier note.
    pub earlier: String,
    /// The later one.
    pub later: String,
    /// The hashes that prove it, in base64.
    pub hashes: Vec<String>,
}

/// What a proof shows once it was checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proven {
    /// The entry's place.
    pub index: u64,
    /// The entries of the log it was proven for.
    pub size: u64,
    /// What the entry says.
    pub entry: Value,
    /// The content, if it was disclosed.
    pub content: Option<Value>,
}

impl Ledger {
    /// Proofs for both entries of a request and those of its feedback, under the newest checkpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such request in this scope, or an entry is not under a checkpoint yet (it will be after the
    /// next flush).
    pub async fn prove(&self, scope: &Scope, request_id: &str, disclose: bool) -> Result<Vec<Proof>> {
        let missing = || Error::NotFound(format!("there is no request {request_id:?}"));
        let record = self.record(scope, request_id).await?.ok_or_else(missing)?;
        let unsigned = || Error::NotFound("it is not under a checkpoint yet: ask again in a moment".into());
        let checkpoint = self.checkpoint().await?.ok_or_else(unsigned)?;
        let said = record.feedback.iter().map(|given| given.index);
        let places = std::iter::once(record.log.accepted).chain(record.log.settled).chain(said);
        let mut proofs = Vec::new();
        for place in places {
            if place >= checkpoint.size {
                return Err(unsigned());
            }
            proofs.push(self.proof(&checkpoint, place, disclose).await?);
        }
        Ok(proofs)
    }

    async fn proof(&self, checkpoint: &Checkpoint, place: u64, disclose: bool) -> Result<Proof> {
        let store = &self.shared.store;
        let sql = "SELECT e.body, c.sealed, COALESCE(u.id, ''), u.wrapped FROM entries e
                   LEFT JOIN contents c ON c.idx = e.idx LEFT JOIN subjects u ON u.id = c.subject_id WHERE e.idx = $1";
        let rows = store.rows(sql, vec![place.into()]).await?;
        let row = rows.first().ok_or_else(|| Error::Altered(format!("entry {place} is missing")))?;
        let entry = String::from_utf8(row.blob(0)?).map_err(|_| Error::Altered(format!("entry {place} is no text")))?;
        let (sealed, wrapped) = (row.maybe_blob(1)?, row.maybe_blob(3)?);
        let content = match (sealed, wrapped) {
            (Some(sealed), Some(wrapped)) if disclose => {
                let columns = Body::decode(entry.as_bytes())?.columns();
                let key = SubjectKey::unwrap(&self.shared.keyring.wrap, &row.text(2)?, &wrapped);
                let plain = key.and_then(|key| key.open(&binding(&columns.request_id, columns.phase), &sealed));
                plain.map(|plain| STANDARD.encode(plain.salted()))
            }
            _ => None,
        };
        let size = checkpoint.size;
        let hashes = tree::with_hashes(store, size, |hashes| tlog::prove_record(size, place, &hashes)).await?;
        Ok(Proof { index: place, entry, content, hashes: encoded(&hashes), checkpoint: checkpoint.note.clone() })
    }

    /// That the newest checkpoint continues an earlier one.
    ///
    /// # Errors
    /// If the earlier one covers more than the log, or is not a state this log was in.
    pub async fn continues(&self, earlier: &Checkpoint) -> Result<Consistency> {
        let later = self.checkpoint().await?.ok_or_else(|| Error::NotFound("nothing was signed yet".into()))?;
        let (from, to) = (earlier.size, later.size);
        if from == 0 || from > to {
            return Err(Error::Altered(format!("the checkpoint covers {from} entries, the log's newest one {to}")));
        }
        let work = |hashes: &dyn tree::Hashes| tlog::prove_tree(to, from, &hashes);
        let hashes = tree::with_hashes(&self.shared.store, to, work).await?;
        let proof = Consistency { earlier: earlier.note.clone(), later: later.note, hashes: encoded(&hashes) };
        proof.check(self.verifier())?;
        Ok(proof)
    }
}

impl Proof {
    /// Checks it with the log's public key; needs nothing else.
    ///
    /// # Errors
    /// If the checkpoint is not signed by this key, the entry is not in the log it signs, or the content is not the entry's.
    pub fn check(&self, verifier: &Verifier) -> Result<Proven> {
        let checkpoint = verifier.open(&self.checkpoint)?;
        let hashes = decoded(&self.hashes)?;
        let hash = leaf(self.entry.as_bytes());
        if self.index >= checkpoint.size {
            return Err(Error::Altered(format!("entry {} does not stand under this checkpoint", self.index)));
        }
        tlog::check_record(&hashes, checkpoint.size, checkpoint.root.0, self.index, hash)
            .map_err(|_| Error::Altered(format!("this is not entry {} of the signed log", self.index)))?;
        let entry = Body::decode(self.entry.as_bytes())?;
        let content = self.content.as_deref().map(|content| disclosed(content, entry.content())).transpose()?;
        let entry = serde_json::from_str(&self.entry).map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(Proven { index: self.index, size: checkpoint.size, entry, content })
    }
}

impl Consistency {
    /// Checks it with the log's public key; needs nothing else. The sizes, earlier and later.
    ///
    /// # Errors
    /// If one of the notes is not signed by this key, or the later log is no continuation of the earlier one.
    pub fn check(&self, verifier: &Verifier) -> Result<(u64, u64)> {
        let (earlier, later) = (verifier.open(&self.earlier)?, verifier.open(&self.later)?);
        let hashes = decoded(&self.hashes)?;
        let same = (earlier.size == later.size && earlier.root == later.root && hashes.is_empty()).then_some(());
        let checked = || tlog::check_tree(&hashes, later.size, later.root.0, earlier.size, earlier.root.0).ok();
        let bad = || Error::Altered(format!("{} entries are not the beginning of {}", earlier.size, later.size));
        same.or_else(checked).ok_or_else(bad)?;
        Ok((earlier.size, later.size))
    }
}

fn disclosed(content: &str, hash: &str) -> Result<Value> {
    let bytes = STANDARD.decode(content).map_err(|_| Error::Malformed("the content is no base64".into()))?;
    if hex(&Sha256::digest(&bytes)) != hash {
        return Err(Error::Altered("the content is not the one whose hash the entry holds".into()));
    }
    let content = bytes.get(crate::vault::SALT..).unwrap_or_default();
    serde_json::from_slice(content).map_err(|error| Error::Malformed(error.to_string()))
}

fn encoded(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(ToString::to_string).collect()
}

fn decoded(hashes: &[String]) -> Result<Vec<Hash>> {
    let decode = |text: &String| Hash::parse_hash(text).map_err(|_| Error::Malformed(format!("{text:?} is no hash")));
    hashes.iter().map(decode).collect()
}
