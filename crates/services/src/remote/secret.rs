//! How a gateway and its workers know each other: both hold one secret, and neither sends it.
//!
//! A request carries the time, a number used once, and an HMAC-SHA-256 over both, the path and the hash of the body. The answer
//! carries an HMAC over the same number. So a worker works for nobody who does not know the secret, nobody can change a request on
//! its way or send it to this worker a second time (numbers are remembered as long as their time is good), and a gateway believes no
//! answer of somebody who took the worker's place.
//!
//! What this does not do: keep a recorded request from another worker with the same secret, or from this one after a new start, as long as its
//! time is good; hide anything, or protect an answer behind its head. Whoever reads or rewrites the traffic between the
//! machines reads prompts and answers and can change answers. Over a network that is not yours alone, lay it through a tunnel
//! (WireGuard, stunnel, a service mesh).

use std::{
    collections::HashMap,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use protocol::{Error, ErrorKind};
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// The header of a request's proof.
pub const REQUEST: &str = "x-tessera-request";
/// The header of an answer's proof.
pub const RESPONSE: &str = "x-tessera-response";
/// The shortest secret, in bytes: 32 hex digits are 128 bits.
const SHORTEST: usize = 32;
/// How far clocks may be apart, in seconds.
const SKEW: u64 = 60;
/// The most numbers that are remembered. One more means that somebody who knows the secret floods us, or a gateway with
/// thousands of requests a second: those get the honest answer that it is too much.
const REMEMBERED: usize = 1 << 20;

/// What both sides know. It does not print.
#[derive(Clone)]
pub struct Secret(SecretString);

/// For settings that are read again; whoever asks from outside is compared by proofs.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A request's proof.
pub(super) struct Signed {
    time: u64,
    number: String,
    proof: String,
}

impl Signed {
    pub(super) fn header(&self) -> String {
        format!("{} {} {}", self.time, self.number, self.proof)
    }
}

impl Secret {
    /// A secret of at least 32 characters; white space around it is not part of it.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() < SHORTEST {
            let message = format!(
                "The workers' secret has {} characters, but needs {SHORTEST}: make one with `openssl rand -hex 32`.",
                text.len()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self(text.into()))
    }

    pub(super) fn sign(&self, path: &str, body: &[u8]) -> Signed {
        let (time, number) = (unix_seconds(), hex(&rand::rng().random::<[u8; 16]>()));
        let proof = hex(&self.request(path, body, time, &number).finalize().into_bytes());
        Signed { time, number, proof }
    }

    /// Whether `proof` shows that who answers knows the secret.
    pub(super) fn proves(&self, signed: &Signed, proof: &str) -> bool {
        unhex(proof).is_some_and(|proof| self.response(&signed.number).verify_slice(&proof).is_ok())
    }

    fn request(&self, path: &str, body: &[u8], time: u64, number: &str) -> Hmac<Sha256> {
        self.over(&format!("tessera request\n{path}\n{time}\n{number}\n{}", hex(&Sha256::digest(body))))
    }

    fn response(&self, number: &str) -> Hmac<Sha256> {
        self.over(&format!("tessera response\n{number}"))
    }

    fn over(&self, text: &str) -> Hmac<Sha256> {
        // The hash of the secret, filled up to SHA-256's block with zeros, as RFC 2104 has it for long keys.
        let mut key = [0; 64];
        key[..32].copy_from_slice(&Sha256::digest(self.0.expose_secret()));
        let mut mac = Hmac::<Sha256>::new(&key.into());
        mac.update(text.as_bytes());
        mac
    }
}

/// The worker's side: who may come in.
#[derive(Debug)]
pub struct Gatekeeper {
    secret: Secret,
    /// Numbers that were used, with their time.
    used: Mutex<HashMap<String, u64>>,
}

impl Gatekeeper {
    /// Lets those in who know the secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, used: Mutex::default() }
    }

    /// The proof for the answer to a request with this header, or that the request is none of a gateway that knows the secret.
    pub fn admit(&self, path: &str, header: &str, body: &[u8]) -> Result<String, Error> {
        self.admit_at(path, header, body, unix_seconds())
    }

    fn admit_at(&self, path: &str, header: &str, body: &[u8], now: u64) -> Result<String, Error> {
        let stranger =
            || Error::new(ErrorKind::Unauthenticated, "Only a gateway that knows the workers' secret may ask.");
        let mut parts = header.split(' ');
        let mut next = || parts.next().ok_or_else(stranger);
        let (time, number, proof) = (next()?, next()?, next()?);
        let (time, proof) = (time.parse().map_err(|_| stranger())?, unhex(proof).ok_or_else(stranger)?);
        // In constant time, and before anything is remembered.
        self.secret.request(path, body, time, number).verify_slice(&proof).map_err(|_| stranger())?;
        if now.abs_diff(time) > SKEW {
            return Err(stranger());
        }
        self.remember(number, time, now)?;
        Ok(hex(&self.secret.response(number).finalize().into_bytes()))
    }

    /// Fails for a number that was used before.
    fn remember(&self, number: &str, time: u64, now: u64) -> Result<(), Error> {
        let mut used = self.used.lock();
        if used.len() >= REMEMBERED {
            used.retain(|_, time| now.abs_diff(*time) <= SKEW);
        }
        if used.len() >= REMEMBERED {
            return Err(Error::new(ErrorKind::Overloaded, "More requests a minute than a worker can tell apart."));
        }
        if used.insert(number.to_owned(), time).is_some() {
            return Err(Error::new(ErrorKind::Unauthenticated, "This request has come before."));
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "two machines have only the date in common; tests hand theirs in")]
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/internal/v1/load";

    fn secret(letter: &str) -> Secret {
        Secret::new(&letter.repeat(32)).unwrap()
    }

    #[test]
    fn who_knows_the_secret_is_let_in_once() {
        let (ours, door) = (secret("a"), Gatekeeper::new(secret("a")));
        let signed = ours.sign(PATH, b"body");
        let (header, time) = (signed.header(), signed.time);
        let check = |path: &str, header: &str, body: &[u8], now: u64| door.admit_at(path, header, body, now).is_ok();
        // Another path, another body, another time, nonsense: none of them uses the number up.
        assert!(!check("/internal/v1/embed", &header, b"body", time));
        assert!(!check(PATH, &header, b"bodY", time));
        assert!(!check(PATH, &header, b"body", time + SKEW + 1));
        assert!(!check(PATH, &header, b"body", time - SKEW - 1));
        assert!(!check(PATH, &header.replacen(&time.to_string(), &(time + 1).to_string(), 1), b"body", time));
        for nonsense in ["", "1", "1 2", "1 2 3", "1 2 zz", "x y 00"] {
            assert!(!check(PATH, nonsense, b"body", time), "{nonsense}");
        }
        assert!(check(PATH, &header, b"body", time + SKEW));
        assert!(!check(PATH, &header, b"body", time), "a second time");
        assert!(Gatekeeper::new(secret("b")).admit_at(PATH, &ours.sign(PATH, b"").header(), b"", time).is_err());
    }

    #[test]
    fn answers_prove_who_answers() {
        let (ours, door) = (secret("a"), Gatekeeper::new(secret("a")));
        let (first, second) = (ours.sign(PATH, b""), ours.sign(PATH, b""));
        let proof = door.admit(PATH, &first.header(), b"").unwrap();
        assert!(ours.proves(&first, &proof));
        assert!(!ours.proves(&second, &proof), "the proof of another request");
        assert!(!secret("b").proves(&first, &proof) && !ours.proves(&first, "") && !ours.proves(&first, "é0"));
    }

    #[test]
    fn secrets_are_long_and_do_not_print() {
        assert!(Secret::new(" short ").is_err());
        assert!(!format!("{:?} {:?}", secret("a"), Gatekeeper::new(secret("a"))).contains("aaa"));
    }
}
