//! Contents, sealed per person.
//!
//! Every subject of a tenant has a random key, stored wrapped under the ledger's; contents are sealed with it (XChaCha20-Poly1305, random
//! nonces), bound to the entry they belong to. A content carries its own salt, and the log holds the hash over both: who destroys the key
//! destroys the salt too, so nobody can try likely contents against the hash. Erasing a person is deleting one row.

use chacha20poly1305::{
    Key, KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use sha2::{Digest, Sha256};

use crate::{Error, Result, note::hex};

const NONCE: usize = 24;
/// Bytes of salt before the content.
pub(crate) const SALT: usize = 16;

/// What is to be sealed: salt and content. The log holds its hash.
#[derive(Debug, Clone)]
pub(crate) struct Plain(Vec<u8>);

impl Plain {
    pub(crate) fn new(content: &impl serde::Serialize) -> Result<Self> {
        let mut bytes = rand::random::<[u8; SALT]>().to_vec();
        serde_json::to_writer(&mut bytes, content).map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// What the log says about it.
    pub(crate) fn hash(&self) -> String {
        hex(&Sha256::digest(&self.0))
    }

    /// Salt and content: what the hash is over.
    pub(crate) fn salted(&self) -> &[u8] {
        &self.0
    }

    /// The content without its salt.
    pub(crate) fn content(&self) -> &[u8] {
        self.0.get(SALT..).unwrap_or_default()
    }
}

/// A person's key.
#[derive(Clone)]
pub(crate) struct SubjectKey(XChaCha20Poly1305);

impl SubjectKey {
    /// A new one, and how it is stored.
    pub(crate) fn create(wrap: &XChaCha20Poly1305, id: &str) -> Result<(Self, Vec<u8>)> {
        let key: [u8; 32] = rand::random();
        let wrapped = seal(wrap, id, &key)?;
        Ok((Self(XChaCha20Poly1305::new(&Key::from(key))), wrapped))
    }

    pub(crate) fn unwrap(wrap: &XChaCha20Poly1305, id: &str, wrapped: &[u8]) -> Option<Self> {
        let key: [u8; 32] = open(wrap, id, wrapped)?.try_into().ok()?;
        Some(Self(XChaCha20Poly1305::new(&Key::from(key))))
    }

    /// Seals the content of an entry.
    pub(crate) fn seal(&self, entry: &str, plain: &Plain) -> Result<Vec<u8>> {
        seal(&self.0, entry, &plain.0)
    }

    /// Opens it again; `None` if key, entry or bytes are not those it was sealed with.
    pub(crate) fn open(&self, entry: &str, sealed: &[u8]) -> Option<Plain> {
        open(&self.0, entry, sealed).map(Plain)
    }
}

impl std::fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectKey")
    }
}

fn seal(key: &XChaCha20Poly1305, bound_to: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE] = rand::random();
    let payload = Payload { msg: bytes, aad: bound_to.as_bytes() };
    let sealed = key.encrypt(&XNonce::from(nonce), payload).map_err(|_| Error::Malformed("content too long".into()))?;
    Ok([&nonce[..], &sealed].concat())
}

fn open(key: &XChaCha20Poly1305, bound_to: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    key.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: bound_to.as_bytes() }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_opens_with_its_key_and_entry_only() {
        let wrap = XChaCha20Poly1305::new(&Key::from([1; 32]));
        let (key, wrapped) = SubjectKey::create(&wrap, "subject").unwrap();
        let key = SubjectKey::unwrap(&wrap, "subject", &wrapped).map(|again| (key, again)).unwrap();
        let plain = Plain::new(&"hello").unwrap();
        assert_ne!(plain.hash(), Plain::new(&"hello").unwrap().hash(), "salted");
        let mut sealed = key.0.seal("request 0", &plain).unwrap();
        assert_eq!(key.1.open("request 0", &sealed).unwrap().content(), b"\"hello\"");
        assert!(key.1.open("request 1", &sealed).is_none());
        assert!(SubjectKey::create(&wrap, "subject").unwrap().0.open("request 0", &sealed).is_none());
        assert!(SubjectKey::unwrap(&wrap, "another", &wrapped).is_none());
        sealed[30] ^= 1;
        assert!(key.1.open("request 0", &sealed).is_none());
    }
}
