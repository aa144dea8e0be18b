//! `tessera keys`: who may use a gateway.

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use gateway::{
    DEFAULT_TENANT,
    settings::{Money, Span},
};
use ledger::{ApiKey, Budget, Grant, Limits, Role, Window};

use crate::{
    compose::{self, FileArgs},
    screen,
};

/// Options of `keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(subcommand)]
    verb: KeysVerb,
}

#[derive(Debug, Subcommand)]
enum KeysVerb {
    /// Make a key and print it; it is shown this once
    Create(CreateArgs),
    /// List the keys
    List {
        /// Only those of a tenant
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make keys worthless, here at once and on other gateways within seconds
    Revoke {
        /// Their ids, as `list` shows them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// What people call it
    #[arg(long, value_name = "TEXT", default_value = "")]
    name: String,
    /// Whose requests it makes
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TENANT)]
    tenant: String,
    /// What it may do: admin everything, user ask models and see its own, auditor read records
    #[arg(long, value_enum, default_value = "user")]
    role: RoleName,
    /// A model it may use; may be repeated [default: all]
    #[arg(long, value_name = "MODEL")]
    model: Vec<String>,
    /// Requests a minute [default: as limits.requests_per_minute says]
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// Tokens a minute [default: as limits.tokens_per_minute says]
    #[arg(long, value_name = "N")]
    tokens: Option<u32>,
    /// Money it may spend in a period, such as 12.50
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<Money>,
    /// Tokens it may use in a period
    #[arg(long, value_name = "N")]
    token_budget: Option<i64>,
    /// The period of both budgets
    #[arg(long, value_enum, default_value = "month")]
    period: PeriodName,
    /// How long it is worth anything, such as 90d [default: for ever]
    #[arg(long, value_name = "TIME")]
    expires: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    Admin,
    User,
    Auditor,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PeriodName {
    Day,
    Month,
    Total,
}

impl CreateArgs {
    fn grant(&self) -> Grant {
        let role = match self.role {
            RoleName::Admin => Role::Admin,
            RoleName::User => Role::User,
            RoleName::Auditor => Role::Auditor,
        };
        let window = match self.period {
            PeriodName::Day => Window::Day,
            PeriodName::Month => Window::Month,
            PeriodName::Total => Window::Total,
        };
        let money = self.budget.map(|budget| i64::try_from(budget.0).unwrap_or(i64::MAX));
        let budget = Budget { money, tokens: self.token_budget, window };
        let end = |span: Span| i64::try_from(span.0.as_micros()).unwrap_or(i64::MAX);
        Grant {
            name: self.name.clone(),
            tenant: self.tenant.clone(),
            role,
            models: self.model.clone(),
            limits: Limits { requests: self.requests, tokens: self.tokens },
            budgets: (budget.money.is_some() || budget.tokens.is_some()).then_some(budget).into_iter().collect(),
            expires_at: self.expires.map(|span| ledger::Clock::system().now().saturating_add(end(span))),
        }
    }
}

/// Runs it.
pub(crate) async fn run(args: KeysArgs) -> anyhow::Result<()> {
    let ledger = compose::ledger(&args.file.load()?).await?;
    let result = act(&ledger.keys(), args.verb).await;
    ledger.close().await;
    result
}

async fn act(keys: &ledger::Keys, verb: KeysVerb) -> anyhow::Result<()> {
    match verb {
        KeysVerb::Create(args) => create(keys, &args).await,
        KeysVerb::List { tenant, json } => {
            let keys = keys.list(tenant.as_deref()).await?;
            screen::show(json, &keys, screen::table(&table(&keys)))
        }
        KeysVerb::Revoke { ids } => {
            for id in ids {
                keys.revoke(&id).await?;
                screen::line(format_args!("revoked {id}"))?;
            }
            Ok(())
        }
    }
}

async fn create(keys: &ledger::Keys, args: &CreateArgs) -> anyhow::Result<()> {
    if args.token_budget.is_some_and(|tokens| tokens < 0) {
        bail!("--token-budget is less than nothing");
    }
    let first = !keys.exist();
    let (key, secret) = keys.create(args.grant()).await?;
    if first {
        screen::note("This is the first key: from now on every request needs one.");
    }
    screen::note("The key is shown this once; keep it where secrets are kept.");
    screen::show(args.json, &serde_json::json!({ "key": secret, "about": key }), &secret)
}

fn table(keys: &[ApiKey]) -> Vec<Vec<String>> {
    let head = ["ID", "NAME", "TENANT", "ROLE", "MODELS", "STATE"].map(str::to_owned).to_vec();
    let row = |key: &ApiKey| {
        let grant = &key.grant;
        let models = if grant.models.is_empty() { "all".to_owned() } else { grant.models.join(",") };
        let role = format!("{:?}", grant.role).to_lowercase();
        let state = match (key.revoked_at, grant.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if end <= ledger::Clock::system().now() => "expired",
            _ => "valid",
        };
        vec![key.id.clone(), grant.name.clone(), grant.tenant.clone(), role, models, state.to_owned()]
    };
    std::iter::once(head).chain(keys.iter().map(row)).collect()
}
