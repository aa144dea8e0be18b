//! Who asks: one value that the auth layer puts among a request's extensions, and the only thing routes ask about rights.

use std::sync::Arc;

use protocol::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tenant of everybody while no keys are demanded.
pub const DEFAULT_TENANT: &str = "default";

/// Who asks, and what they may do. Routes take it as `Extension<Arc<Caller>>`.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// Whose traffic, records, budgets and decisions these are.
    pub tenant: String,
    /// The public id of the key, or the subject of the token; empty while no keys are demanded.
    pub key_id: String,
    /// What they may do.
    pub role: Role,
    /// Models they may use, by their key and by their tenant's settings; `None` is all of them.
    pub models: Option<Vec<String>>,
    /// What the key was made with, where there is a key.
    pub grant: Option<ledger::Grant>,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, in every tenant.
    Admin,
    /// Use models and see what is their tenant's own.
    User,
    /// Read the records of their tenant; not use models.
    Auditor,
}

impl From<ledger::Role> for Role {
    fn from(role: ledger::Role) -> Self {
        match role {
            ledger::Role::Admin => Self::Admin,
            ledger::Role::User => Self::User,
            ledger::Role::Auditor => Self::Auditor,
        }
    }
}

impl From<Role> for ledger::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Admin => Self::Admin,
            Role::User => Self::User,
            Role::Auditor => Self::Auditor,
        }
    }
}

impl Caller {
    /// Everybody, while no keys are demanded: this machine's owner.
    pub fn open() -> Self {
        Self { tenant: DEFAULT_TENANT.to_owned(), key_id: String::new(), role: Role::Admin, models: None, grant: None }
    }

    /// Somebody who did not say who they are although that is demanded; only public pages meet them.
    pub fn nobody() -> Self {
        let tenant = String::new();
        Self { tenant, key_id: String::new(), role: Role::User, models: Some(Vec::new()), grant: None }
    }

    /// Nobody knows who that is.
    pub fn is_nobody(&self) -> bool {
        self.tenant.is_empty()
    }

    /// Whom a key stands for.
    pub(crate) fn of_key(key: &ledger::ApiKey) -> Self {
        let grant = &key.grant;
        Self {
            tenant: grant.tenant.clone(),
            key_id: key.id.clone(),
            role: grant.role.into(),
            models: (!grant.models.is_empty()).then(|| grant.models.clone()),
            grant: Some(grant.clone()),
        }
    }

    /// The same caller with what the tenant's list leaves of their models; an empty list leaves all of them.
    pub(crate) fn within(self: Arc<Self>, tenant: &[String]) -> Arc<Self> {
        if tenant.is_empty() {
            return self;
        }
        let both = |own: &[String]| own.iter().filter(|name| tenant.contains(name)).cloned().collect();
        let models = self.models.as_deref().map_or_else(|| tenant.to_vec(), both);
        Arc::new(Self { models: Some(models), ..Self::clone(&self) })
    }

    /// That somebody said who they are.
    pub fn is_known(&self) -> bool {
        !self.key_id.is_empty()
    }

    /// Who asks, for what must stay the same for the same one: the end user whom a request names, else the key. Empty while nobody
    /// says who asks.
    pub(crate) fn unit(&self, end_user: &str) -> String {
        match (end_user.is_empty(), self.is_known()) {
            (false, _) => format!("user {} {end_user}", self.tenant),
            (true, true) => format!("key {}", self.key_id),
            (true, false) => String::new(),
        }
    }

    /// Whether they may ask this model.
    pub fn may_use(&self, model: &str) -> Result<(), Error> {
        if self.role == Role::Auditor {
            return Err(forbidden("This key is an auditor's: it reads records and uses no models."));
        }
        if self.models.as_ref().is_none_or(|models| models.iter().any(|allowed| allowed == model)) {
            return Ok(());
        }
        let message = format!("This key may not use the model `{model}`; GET /v1/models lists those it may.");
        Err(forbidden(message).with_param("model").with_code("model_not_allowed"))
    }

    /// Whether they may read records; auditors and admins may.
    pub fn may_audit(&self) -> Result<(), Error> {
        match self.role {
            Role::Admin | Role::Auditor => Ok(()),
            Role::User => Err(forbidden("Reading records needs a key with the role auditor or admin.")),
        }
    }

    /// Whether they may change the server: keys and settings.
    pub fn may_administer(&self) -> Result<(), Error> {
        match self.role {
            Role::Admin => Ok(()),
            Role::User | Role::Auditor => Err(forbidden("This needs a key with the role admin.")),
        }
    }

    /// The tenant whose things they see; `None` is every tenant's.
    pub fn sees(&self) -> Option<&str> {
        (self.role != Role::Admin).then_some(self.tenant.as_str())
    }

    /// The same for the ledger's reads.
    pub fn scope(&self) -> ledger::Scope {
        self.sees().map_or(ledger::Scope::All, |tenant| ledger::Scope::Tenant(tenant.to_owned()))
    }
}

fn forbidden(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Forbidden, message).with_code("insufficient_permissions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        let check = |role, models: Option<&[&str]>, rights: [bool; 4], sees: Option<&str>| {
            let models = models.map(|names| names.iter().map(|&name| name.to_owned()).collect());
            let caller = Caller { tenant: "t".to_owned(), key_id: "k".to_owned(), role, models, grant: None };
            let found = [
                caller.may_use("a").is_ok(),
                caller.may_use("b").is_ok(),
                caller.may_audit().is_ok(),
                caller.may_administer().is_ok(),
            ];
            assert_eq!((found, caller.sees()), (rights, sees), "{role:?}");
        };
        check(Role::Admin, None, [true, true, true, true], None);
        check(Role::User, None, [true, true, false, false], Some("t"));
        check(Role::User, Some(&["a"]), [true, false, false, false], Some("t"));
        check(Role::Auditor, None, [false, false, true, false], Some("t"));
    }

    #[test]
    fn a_tenants_list_and_a_keys_both_count() {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let check = |own: Option<&[&str]>, tenant: &[&str], left: Option<&[&str]>| {
            let caller = Arc::new(Caller { models: own.map(owned), ..Caller::open() });
            assert_eq!(caller.within(&owned(tenant)).models, left.map(owned), "{own:?} {tenant:?}");
        };
        check(None, &[], None);
        check(Some(&["a"]), &[], Some(&["a"]));
        check(None, &["a"], Some(&["a"]));
        check(Some(&["a", "b"]), &["b", "c"], Some(&["b"]));
        check(Some(&["a"]), &["b"], Some(&[]));
    }
}
