//! API keys: who may ask, for what, how much.
//!
//! A secret is `tsk-<id>-<random>`, shown once; what is kept is its id, in the clear, and the SHA-256 of the whole (the random part has 256 bits,
//! so nothing slower is needed). [`Keys::find`] looks only into memory: a copy of the table that is read again every refresh interval, and
//! goes on serving while the database is away. A revocation by another gateway is therefore seen within that interval; one by this gateway at
//! once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{Budget, Error, Ledger, Result, note::hex, store::Store, writer::Statement};

/// What every secret begins with.
pub const PREFIX: &str = "tsk-";

/// Creates, lists, revokes and finds API keys.
#[derive(Debug, Clone)]
pub struct Keys(Ledger);

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, in every tenant.
    Admin,
    /// Ask, and see one's own.
    User,
    /// Read the audit log of the tenant; no requests.
    Auditor,
}

/// What a key is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    /// For people, to tell keys apart.
    pub name: String,
    /// Whose requests these are.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
    /// The models it may ask, by public name; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Requests and tokens per minute.
    #[serde(default)]
    pub limits: Limits,
    /// What it may spend; all of them hold at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// Microseconds since 1970 from when on it is worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// What a key may do in a minute; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Requests per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Tokens per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
}

/// A key, as everybody may see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApiKey {
    /// Its public part.
    pub id: String,
    /// What it was made with.
    #[serde(flatten)]
    pub grant: Grant,
    /// Microseconds since 1970.
    pub created_at: i64,
    /// Since when it is worth nothing.
    pub revoked_at: Option<i64>,
    /// When it was last used, to within a few seconds.
    pub used_at: Option<i64>,
}

/// What is stored beside id and hash.
#[derive(Serialize, Deserialize)]
struct Data {
    #[serde(flatten)]
    grant: Grant,
    created_at: i64,
}

impl Keys {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// Makes a key. The secret is returned once and never again.
    pub async fn create(&self, grant: Grant) -> Result<(ApiKey, String)> {
        if grant.tenant.is_empty() || grant.tenant.len() > 128 || grant.tenant.contains('\0') {
            return Err(Error::Malformed("a key needs a tenant, of at most 128 bytes".into()));
        }
        let id = hex(&rand::random::<[u8; 6]>());
        let secret = format!("{PREFIX}{id}-{}", hex(&rand::random::<[u8; 32]>()));
        let created_at = self.0.clock().now();
        let data = Data { grant, created_at };
        let text = serde_json::to_string(&data).map_err(|error| Error::Malformed(error.to_string()))?;
        let insert = "INSERT INTO keys (id, hash, data, version)
                      VALUES ($1, $2, $3, (SELECT COALESCE(MAX(version), 0) + 1 FROM keys))";
        let hash = Sha256::digest(&secret).to_vec();
        self.0.run(vec![(insert, vec![id.as_str().into(), hash.into(), text.into()])]).await?;
        self.0.shared.keys.refresh(&self.0.shared.store).await?;
        Ok((ApiKey { id, grant: data.grant, created_at, revoked_at: None, used_at: None }, secret))
    }

    /// Every key of a tenant, or of all, newest first; revoked ones too.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<ApiKey>> {
        let keys = read(&self.0.shared.store).await?.into_iter().map(|stored| stored.key);
        let mut keys: Vec<ApiKey> = keys.filter(|key| tenant.is_none_or(|t| t == key.grant.tenant)).collect();
        let cached = self.0.shared.keys.known.load();
        for key in &mut keys {
            key.used_at = key.used_at.max(cached.get(&key.id).and_then(|stored| stored.used()));
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.created_at));
        Ok(keys)
    }

    /// Makes a key worthless: here at once, in other gateways within their refresh interval.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such key that is not revoked already.
    pub async fn revoke(&self, id: &str) -> Result<()> {
        let now = self.0.clock().now();
        let revoke = "UPDATE keys SET revoked_at = $1, version = (SELECT MAX(version) + 1 FROM keys)
                      WHERE id = $2 AND revoked_at IS NULL";
        if self.0.run(vec![(revoke, vec![now.into(), id.into()])]).await? == 0 {
            return Err(Error::NotFound(format!("there is no key {id} to revoke")));
        }
        self.0.shared.keys.refresh(&self.0.shared.store).await
    }

    /// The key behind a secret; `None` if it is unknown, revoked or past its time. Reads memory only.
    pub fn find(&self, secret: &str) -> Option<Arc<ApiKey>> {
        let known = self.0.shared.keys.known.load();
        let id = secret.strip_prefix(PREFIX)?.split('-').next()?;
        let stored = known.get(id)?;
        let same = bool::from(Sha256::digest(secret).as_slice().ct_eq(&stored.hash));
        let now = self.0.clock().now();
        let valid = stored.key.revoked_at.is_none() && stored.key.grant.expires_at.is_none_or(|end| now < end);
        if !(same && valid) {
            return None;
        }
        stored.used.fetch_max(now, Ordering::Relaxed);
        Some(stored.key.clone())
    }

    /// There are keys at all. Until then a gateway is open, on loopback.
    pub fn exist(&self) -> bool {
        !self.0.shared.keys.known.load().is_empty()
    }
}

/// The keys as last read.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    known: ArcSwap<HashMap<String, Stored>>,
    version: AtomicU64,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Stored {
    key: Arc<ApiKey>,
    hash: Vec<u8>,
    /// When it was last used here, 0 if not; the same for as long as this process knows the key.
    used: Arc<AtomicI64>,
}

impl Stored {
    fn used(&self) -> Option<i64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|&at| at > 0)
    }
}

impl Cache {
    /// Reads the keys again if one changed.
    pub(crate) async fn refresh(&self, store: &Store) -> Result<()> {
        // One at a time: who read earlier must not put back what was revoked since.
        let _alone = self.refreshing.lock().await;
        let rows = store.rows("SELECT COALESCE(MAX(version), 0) FROM keys", vec![]).await?;
        let version = rows.first().map_or(Ok(0), |row| row.count(0))?;
        if version <= self.version.load(Ordering::Acquire) {
            return Ok(());
        }
        let before = self.known.load();
        let keep = |read: Read| {
            let used = before.get(&read.key.id).map_or_else(Arc::default, |stored| stored.used.clone());
            (read.key.id.clone(), Stored { key: Arc::new(read.key), hash: read.hash, used })
        };
        let known = read(store).await?.into_iter().map(keep).collect();
        self.known.store(Arc::new(known));
        self.version.store(version, Ordering::Release);
        Ok(())
    }

    /// What writes down when keys were last used, as far as that is news.
    pub(crate) fn uses(&self) -> Vec<Statement> {
        let update = "UPDATE keys SET used_at = $1 WHERE id = $2 AND (used_at IS NULL OR used_at < $1)";
        let known = self.known.load();
        let used = known.values().filter_map(|stored| Some((stored, stored.used()?)));
        let news = used.filter(|(stored, at)| stored.key.used_at.is_none_or(|known| known < *at));
        news.map(|(stored, at)| (update, vec![at.into(), stored.key.id.as_str().into()])).collect()
    }
}

struct Read {
    key: ApiKey,
    hash: Vec<u8>,
}

async fn read(store: &Store) -> Result<Vec<Read>> {
    let rows = store.rows("SELECT id, hash, data, revoked_at, used_at FROM keys", vec![]).await?;
    let read = |row: &crate::store::Row| {
        let text = row.text(2)?;
        let Data { grant, created_at } = serde_json::from_str(&text)
            .map_err(|error| Error::Store(format!("a key's data cannot be read: {error}")))?;
        let key = ApiKey { id: row.text(0)?, grant, created_at, revoked_at: row.maybe(3)?, used_at: row.maybe(4)? };
        Ok(Read { key, hash: row.blob(1)? })
    };
    rows.iter().map(read).collect()
}
