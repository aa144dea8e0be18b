//! Signed notes (c2sp.org/signed-note) and the checkpoints they carry (c2sp.org/tlog-checkpoint), byte for byte as other tools read them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tlog_tiles::Hash;

use crate::{Error, Result};

/// The algorithm byte of Ed25519 in key ids and encoded keys.
const ED25519: u8 = 1;

/// Who may sign: a name and the first four bytes of a hash over it and the public key.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key: SigningKey,
    verifier: Verifier,
}

/// Who signed: what an auditor needs to check a checkpoint. Shown and read as `NAME+ID+KEY`, the encoding of Go's `sumdb/note`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

impl Signer {
    pub(crate) fn new(name: &str, seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        Self { verifier: Verifier { name: name.to_owned(), key: key.verifying_key() }, key }
    }

    pub(crate) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Signs the state of a log.
    pub(crate) fn sign(&self, size: u64, root: Hash) -> Checkpoint {
        let text = format!("{}\n{size}\n{root}\n", self.verifier.name);
        let signature = self.key.sign(text.as_bytes());
        let signed = [&self.verifier.id()[..], &signature.to_bytes()].concat();
        let note = format!("{text}\n\u{2014} {} {}\n", self.verifier.name, STANDARD.encode(signed));
        Checkpoint { size, root: Root(root), note }
    }

    /// `PRIVATE+KEY+NAME+ID+KEY`.
    pub(crate) fn encode(&self) -> String {
        let key = [&[ED25519][..], self.key.as_bytes()].concat();
        let Verifier { name, .. } = &self.verifier;
        format!("PRIVATE+KEY+{name}+{}+{}", hex(&self.verifier.id()), STANDARD.encode(key))
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let (name, id, seed) = split(text.strip_prefix("PRIVATE+KEY+")?)?;
        let signer = Self::new(name, &seed);
        (hex(&signer.verifier.id()) == id).then_some(signer)
    }
}

impl Verifier {
    /// The log's name, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads `NAME+ID+KEY`.
    pub fn decode(text: &str) -> Result<Self> {
        let malformed = || Error::Malformed(format!("{text:?} is no public key of a log: NAME+ID+KEY is expected"));
        let (name, id, key) = split(text.trim()).ok_or_else(malformed)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| malformed())?;
        let verifier = Self { name: name.to_owned(), key };
        if hex(&verifier.id()) == id { Ok(verifier) } else { Err(malformed()) }
    }

    /// A checkpoint that this key signed; signatures of others (witnesses) may stand beside it.
    pub fn open(&self, note: &str) -> Result<Checkpoint> {
        let bad = |why: &str| Error::Malformed(format!("the checkpoint {why}"));
        let (text, signatures) = note.split_once("\n\n").ok_or_else(|| bad("is no signed note"))?;
        let text = format!("{text}\n");
        let parsed =
            tlog_tiles::Checkpoint::from_bytes(text.as_bytes()).map_err(|_| bad("has no origin, size and root"))?;
        if parsed.origin() != self.name {
            return Err(bad(&format!("is one of the log {:?}, not of {:?}", parsed.origin(), self.name)));
        }
        let prefix = format!("\u{2014} {} ", self.name);
        let ours = signatures.lines().filter_map(|line| STANDARD.decode(line.strip_prefix(&prefix)?).ok());
        let signed = |bytes: Vec<u8>| {
            let signature = bytes.strip_prefix(&self.id()).and_then(|rest| Signature::from_slice(rest).ok());
            signature.is_some_and(|signature| self.key.verify_strict(text.as_bytes(), &signature).is_ok())
        };
        if !ours.into_iter().any(signed) {
            return Err(bad("is not signed by this log's key"));
        }
        Ok(Checkpoint { size: parsed.size(), root: Root(*parsed.hash()), note: note.to_owned() })
    }

    fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        let digest = hash.finalize();
        [digest[0], digest[1], digest[2], digest[3]]
    }
}

impl std::fmt::Display for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = [&[ED25519][..], self.key.as_bytes()].concat();
        write!(f, "{}+{}+{}", self.name, hex(&self.id()), STANDARD.encode(key))
    }
}

/// A signed state of the log: so many entries, under this root.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checkpoint {
    /// Entries it covers.
    pub size: u64,
    /// The root over them.
    pub root: Root,
    /// The signed note, to keep elsewhere.
    pub note: String,
}

/// A root hash; shown in base64.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Root(pub(crate) Hash);

impl std::fmt::Display for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Root {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// `NAME+ID+KEY` into name, id and the 32 bytes of the key. The key may contain a plus sign, name and id may not.
fn split(text: &str) -> Option<(&str, &str, [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    let bytes = STANDARD.decode(key).ok()?;
    let key = bytes.strip_prefix(&[ED25519])?.try_into().ok()?;
    (!name.is_empty()).then_some((name, id, key))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    digits.map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's golang.org/x/mod/sumdb/note.
    #[test]
    fn keys_and_signatures_are_those_of_go() {
        let signer =
            Signer::decode("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz").unwrap();
        let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        assert_eq!(signer.verifier().to_string(), public);
        assert_eq!(Verifier::decode(public).unwrap(), *signer.verifier());
        assert_eq!(Signer::decode(&signer.encode()).unwrap().encode(), signer.encode());
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = signer.key.sign(text.as_bytes());
        let line = STANDARD.encode([&signer.verifier.id()[..], &signature.to_bytes()].concat());
        assert_eq!(
            line,
            "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
        );
    }

    #[test]
    fn a_checkpoint_opens_with_its_key_only_and_unchanged_only() {
        let signer = Signer::new("log.example", &[7; 32]);
        let checkpoint = signer.sign(42, Hash([9; 32]));
        assert_eq!(signer.verifier().open(&checkpoint.note).unwrap(), checkpoint);
        let witnessed = format!("{}\u{2014} witness AAAA\n", checkpoint.note);
        assert_eq!(signer.verifier().open(&witnessed).unwrap().size, 42);
        let check = |note: &str, part: &str| {
            let error = signer.verifier().open(note).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        check(&checkpoint.note.replace("\n42\n", "\n43\n"), "not signed");
        check(&checkpoint.note.replace("log.example", "other"), "is one of the log \"other\"");
        check(&Signer::new("log.example", &[8; 32]).sign(42, Hash([9; 32])).note, "not signed");
        check("", "no signed note");
        check("log.example\n42\n\n", "no origin, size and root");
    }
}
