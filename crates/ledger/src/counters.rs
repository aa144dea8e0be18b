//! What every account has spent and holds, as the writer's transactions find and leave it.
//!
//! A row of `counters` is one account in one window. Rows come into being with the first hold in a window, from the sum of the usage rows so
//! far; from then on every charge of the account is added in the transaction that writes its usage rows, so the counter equals their sum at
//! all times (`verify` checks it).

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::take,
};

use crate::{
    Account, Balance, Charge, Error, Hold, Period, Result,
    store::{Link, Row, Text, Value, placeholders},
    writer::Write,
};

/// Counters that were read or begun.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Every window of every account that was asked for.
    accounts: BTreeMap<Account, BTreeMap<Period, Balance>>,
    /// What is not written yet.
    changed: BTreeSet<(Account, Period)>,
}

/// A hold, and the window it is for.
pub(crate) type Held = (Hold, Period);

impl Counters {
    /// The query for the running counters of all these accounts; `None` for no accounts.
    pub(crate) fn query(accounts: &BTreeSet<Account>, at: i64) -> Option<Text> {
        let last = accounts.last()?;
        // A power of two, so that few statements are prepared.
        let padding = accounts.len().next_power_of_two() - accounts.len();
        let padded = accounts.iter().chain(std::iter::repeat_n(last, padding));
        let pair = |account: &Account| [account.tenant.as_str().into(), account.key_id.as_str().into()];
        let mut args: Vec<Value> = padded.flat_map(pair).collect();
        let list = placeholders(args.len() / 2, 2);
        args.push(at.into());
        let sql = format!(
            "SELECT tenant, key_id, starts, ends, spent, spent_tokens, held, held_tokens FROM counters
             WHERE (tenant, key_id) IN (VALUES {list}) AND ends > ${}",
            args.len()
        );
        Some((sql, args))
    }

    /// Takes in what the query for these accounts found.
    pub(crate) fn read(&mut self, accounts: BTreeSet<Account>, found: &[Row]) -> Result<()> {
        self.accounts.extend(accounts.into_iter().map(|account| (account, BTreeMap::new())));
        for row in found {
            let ((account, period), balance) = read(row)?;
            self.accounts.entry(account).or_default().insert(period, balance);
        }
        Ok(())
    }

    /// Whether the counters of an account were asked for.
    pub(crate) fn knows(&self, account: &Account) -> bool {
        self.accounts.contains_key(account)
    }

    /// How many accounts were asked for.
    pub(crate) fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether the counters of these holds are there.
    pub(crate) fn has(&self, holds: &[Held]) -> bool {
        holds.iter().all(|(hold, period)| self.balance(hold, period).is_some())
    }

    fn balance(&self, hold: &Hold, period: &Period) -> Option<&Balance> {
        self.accounts.get(&hold.account)?.get(period)
    }

    /// Makes sure that the counters of these holds are there.
    pub(crate) async fn start(&mut self, link: &mut Link, holds: &[Held]) -> Result<()> {
        for (hold, period) in holds {
            if self.balance(hold, period).is_none() {
                let balance = spent(link, &hold.account, *period).await?;
                self.accounts.entry(hold.account.clone()).or_default().insert(*period, balance);
                self.changed.insert((hold.account.clone(), *period));
            }
        }
        Ok(())
    }

    /// Takes or gives back what a write holds and adds its charges; or does nothing and says which budget is used up.
    pub(crate) fn admit(&mut self, write: &Write) -> Result<()> {
        if write.must() {
            self.add(&write.holds, -1);
        } else {
            self.take(&write.holds)?;
        }
        if !write.charges.is_empty() {
            self.spend(&write.columns.tenant, &write.columns.key_id, write.columns.at, &write.charges);
        }
        Ok(())
    }

    fn take(&mut self, holds: &[Held]) -> Result<()> {
        for (hold, period) in holds {
            check(hold, *period, self.balance(hold, period).unwrap_or(&Balance::default()))?;
        }
        self.add(holds, 1);
        Ok(())
    }

    fn add(&mut self, holds: &[Held], sign: i64) {
        for (hold, period) in holds {
            let Some(balance) = self.accounts.get_mut(&hold.account).and_then(|periods| periods.get_mut(period)) else {
                continue;
            };
            balance.held += sign * hold.money;
            balance.held_tokens += sign * hold.tokens;
            self.changed.insert((hold.account.clone(), *period));
        }
    }

    /// Adds charges of a key to all of its and its tenant's counters that run at `at`.
    fn spend(&mut self, tenant: &str, key_id: &str, at: i64, charges: &[Charge]) {
        let money = charges.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.amount));
        let tokens = charges.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.tokens()));
        // Without a key both are one.
        for account in BTreeSet::from([Account::tenant(tenant), Account::key(tenant, key_id)]) {
            let running = |period: &Period| (period.starts..period.ends).contains(&at);
            let periods = self.accounts.get_mut(&account).into_iter().flatten();
            for (period, balance) in periods.filter(|(period, _)| running(period)) {
                balance.spent = balance.spent.saturating_add(money);
                balance.spent_tokens = balance.spent_tokens.saturating_add(tokens);
                self.changed.insert((account.clone(), *period));
            }
        }
    }

    /// The rows to write: eight values each. From then on they count as written.
    pub(crate) fn changed(&mut self) -> Vec<Value> {
        let mut values = Vec::new();
        for (account, period) in take(&mut self.changed) {
            let Some(balance) = self.accounts.get(&account).and_then(|periods| periods.get(&period)) else { continue };
            let Balance { spent, spent_tokens, held, held_tokens } = *balance;
            values.extend([Value::from(account.tenant), account.key_id.into()]);
            values.extend([period.starts, period.ends, spent, spent_tokens, held, held_tokens].map(Value::from));
        }
        values
    }
}

fn check(hold: &Hold, period: Period, balance: &Balance) -> Result<()> {
    let (money, tokens) = balance.left(&hold.budget);
    let over = |left: i64, wanted: i64, unit: &str| Error::OverBudget {
        account: hold.account.to_string(),
        period: period.to_string(),
        left: format!("{left} {unit}"),
        wanted: format!("{wanted} {unit}"),
    };
    match (money, tokens) {
        // A budget that is used up stops requests that would cost nothing, too.
        (Some(left), _) if left < hold.money || left <= 0 => Err(over(left, hold.money, "nano-units")),
        (_, Some(left)) if left < hold.tokens || left <= 0 => Err(over(left, hold.tokens, "tokens")),
        _ => Ok(()),
    }
}

/// A row of `counters` in the order of its columns.
pub(crate) fn read(row: &crate::store::Row) -> Result<((Account, Period), Balance)> {
    let account = Account { tenant: row.text(0)?, key_id: row.text(1)? };
    let period = Period { starts: row.int(2)?, ends: row.int(3)? };
    let balance =
        Balance { spent: row.int(4)?, spent_tokens: row.int(5)?, held: row.int(6)?, held_tokens: row.int(7)? };
    Ok(((account, period), balance))
}

/// The sum of an account's usage rows in a period.
pub(crate) const SPENT: &str =
    "SELECT COALESCE(CAST(SUM(amount) AS BIGINT), 0), COALESCE(CAST(SUM(tokens) AS BIGINT), 0)
     FROM usage WHERE tenant = $1 AND ($2 = '' OR key_id = $2) AND at >= $3 AND at < $4";

/// The arguments of [`SPENT`].
pub(crate) fn spent_args(account: &Account, period: Period) -> Vec<Value> {
    vec![account.tenant.as_str().into(), account.key_id.as_str().into(), period.starts.into(), period.ends.into()]
}

async fn spent(link: &mut Link, account: &Account, period: Period) -> Result<Balance> {
    let rows = link.rows(SPENT, spent_args(account, period)).await?;
    let (spent, spent_tokens) = rows.first().map_or(Ok::<_, Error>((0, 0)), |row| Ok((row.int(0)?, row.int(1)?)))?;
    Ok(Balance { spent, spent_tokens, ..Balance::default() })
}
