//! How a gateway and its workers know each other: both hold one secret, and neither sends it.
//!
//! A worker draws a name whenever it starts, and tells it to whoever does not know it. A request carries the time, a number used once, the name
//! of the worker it is for, the hash of its body, and an HMAC-SHA-256 over all of them and the path. The answer carries an HMAC over the
//! same number. So a worker works for nobody who does not know the secret, and reads nothing of theirs but a header; nobody can change a request
//! on its way, send it to this worker a second time (numbers are remembered as long as their time is good), or to another one, or to this one
//! once it was started anew; and a gateway believes no answer of somebody who took the worker's place.
//!
//! What this does not do: hide anything, or protect an answer behind its head. Whoever reads or rewrites the traffic between the
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
/// The header in which a worker tells its name.
pub const WORKER: &str = "x-tessera-worker";
/// What stands for the name of a worker that has not told it yet.
pub(super) const UNNAMED: &str = "-";
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
    claim: String,
    number: String,
    proof: String,
}

impl Signed {
    pub(super) fn header(&self) -> String {
        format!("{} {}", self.claim, self.proof)
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

    /// The proof of a request for this worker.
    pub(super) fn sign(&self, worker: &str, path: &str, body: &[u8]) -> Signed {
        self.sign_at(worker, path, body, unix_seconds())
    }

    fn sign_at(&self, worker: &str, path: &str, body: &[u8], time: u64) -> Signed {
        let (number, hash) = (drawn(), hex(&Sha256::digest(body)));
        let claim = format!("{time} {number} {worker} {hash}");
        let proof = hex(&self.request(path, &claim).finalize().into_bytes());
        Signed { claim, number, proof }
    }

    /// Whether `proof` shows that who answers knows the secret.
    pub(super) fn proves(&self, signed: &Signed, proof: &str) -> bool {
        unhex(proof).is_some_and(|proof| self.response(&signed.number).verify_slice(&proof).is_ok())
    }

    fn request(&self, path: &str, claim: &str) -> Hmac<Sha256> {
        self.over(&format!("tessera request\n{path}\n{claim}"))
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
    name: String,
    /// Numbers that were used, with their time.
    used: Mutex<HashMap<String, u64>>,
}

impl Gatekeeper {
    /// Lets those in who know the secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, name: drawn(), used: Mutex::default() }
    }

    /// What this worker is called until it ends.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who sends this header knows the secret and means this worker, and sends it for the first time. The body is still to come.
    pub fn admit(&self, path: &str, header: &str) -> Result<Admitted, Error> {
        self.admit_at(path, header, unix_seconds())
    }

    fn admit_at(&self, path: &str, header: &str, now: u64) -> Result<Admitted, Error> {
        let (claim, proof) = header.rsplit_once(' ').ok_or_else(stranger)?;
        let proof = unhex(proof).ok_or_else(stranger)?;
        // In constant time, and before anything is remembered.
        self.secret.request(path, claim).verify_slice(&proof).map_err(|_| stranger())?;
        let parts: Vec<&str> = claim.split(' ').collect();
        let [time, number, worker, hash] = parts[..] else { return Err(stranger()) };
        let (time, body) = (time.parse().map_err(|_| stranger())?, unhex(hash).ok_or_else(stranger)?);
        if now.abs_diff(time) > SKEW || worker != self.name {
            return Err(stranger());
        }
        self.remember(number, time, now)?;
        Ok(Admitted { body, proof: hex(&self.secret.response(number).finalize().into_bytes()) })
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

/// A gateway's request whose body is still to come.
#[derive(Debug)]
pub struct Admitted {
    body: Vec<u8>,
    proof: String,
}

impl Admitted {
    /// The proof for the answer, if this is the body.
    pub fn with(self, body: &[u8]) -> Result<String, Error> {
        if Sha256::digest(body)[..] == self.body[..] { Ok(self.proof) } else { Err(stranger()) }
    }
}

fn stranger() -> Error {
    Error::new(ErrorKind::Unauthenticated, "Only a gateway that knows the workers' secret may ask.")
}

/// A number that nobody else draws.
fn drawn() -> String {
    hex(&rand::rng().random::<[u8; 16]>())
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

    fn admits(door: &Gatekeeper, path: &str, header: &str, body: &[u8], now: u64) -> bool {
        door.admit_at(path, header, now).is_ok_and(|admitted| admitted.with(body).is_ok())
    }

    #[test]
    fn who_knows_the_secret_is_let_in_once() {
        let (ours, door, time) = (secret("a"), Gatekeeper::new(secret("a")), 1_000_000);
        let signed = || ours.sign_at(door.name(), PATH, b"body", time).header();
        let header = signed();
        let check = |path: &str, header: &str, now: u64| admits(&door, path, header, b"body", now);
        // Another path, another time, nonsense: none of them uses the number up.
        assert!(!check("/internal/v1/embed", &header, time));
        assert!(!check(PATH, &header, time + SKEW + 1));
        assert!(!check(PATH, &header, time - SKEW - 1));
        assert!(!check(PATH, &header.replacen("1000000", "1000001", 1), time));
        for nonsense in ["", "1", "1 2", "1 2 3", "1 2 zz", "x y 00", "1 2 3 4 zz", "1 2 3 4 5 00"] {
            assert!(!check(PATH, nonsense, time), "{nonsense}");
        }
        assert!(check(PATH, &header, time + SKEW));
        assert!(!check(PATH, &header, time), "a second time");
        assert!(!admits(&door, PATH, &signed(), b"bodY", time), "another body");
        let stranger = secret("b").sign_at(door.name(), PATH, b"body", time);
        assert!(!check(PATH, &stranger.header(), time), "another secret");
    }

    /// What was recorded is good for the worker it was meant for, as long as that runs.
    #[test]
    fn recorded_requests_are_good_nowhere_else() {
        let (ours, time) = (secret("a"), 1_000_000);
        let (door, other) = (Gatekeeper::new(secret("a")), Gatekeeper::new(secret("a")));
        let header = ours.sign_at(door.name(), PATH, b"", time).header();
        assert!(!admits(&other, PATH, &header, b"", time));
        assert!(!admits(&door, PATH, &ours.sign_at(UNNAMED, PATH, b"", time).header(), b"", time));
        assert!(admits(&door, PATH, &header, b"", time));
    }

    #[test]
    fn answers_prove_who_answers() {
        let (ours, door) = (secret("a"), Gatekeeper::new(secret("a")));
        let (first, second) = (ours.sign(door.name(), PATH, b""), ours.sign(door.name(), PATH, b""));
        let proof = door.admit(PATH, &first.header()).unwrap().with(b"").unwrap();
        assert!(ours.proves(&first, &proof));
        assert!(!ours.proves(&second, &proof), "the proof of another request");
        assert!(!secret("b").proves(&first, &proof) && !ours.proves(&first, "") && !ours.proves(&first, "é0"));
    }

    #[test]
    fn secrets_are_long_and_do_not_print() {
        assert!(Secret::new(" short ").is_err());
        // A letter that no drawn name, which is hexadecimal, can have by chance.
        let printed = format!("{:?} {:?}", secret("z"), Gatekeeper::new(secret("z")));
        assert!(!printed.contains("zzz"), "{printed}");
    }
}
