//! What every account has spent and holds, inside one transaction of the writer.
//!
//! A row of `counters` is one account in one window. Rows come into being with the first hold in a window, from the sum of the usage rows so
//! far; from then on every charge of the account is added in the transaction that writes its usage rows, so the counter equals their sum at
//! all times (`verify` checks it).

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use crate::{
    Account, Balance, Charge, Error, Hold, Period, Result,
    store::{Link, Row, Text, Value, placeholders},
};

/// The counters that a transaction touches.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    rows: BTreeMap<(Account, Period), Counter>,
}

#[derive(Debug, Default)]
struct Counter {
    balance: Balance,
    changed: bool,
}

/// A hold, and the window it is for.
pub(crate) type Held = (Hold, Period);

impl Counters {
    /// The query for the running counters of all these accounts; `None` for no accounts.
    pub(crate) fn query(accounts: BTreeSet<Account>, at: i64) -> Option<Text> {
        let last = accounts.last().cloned()?;
        // A power of two, so that few statements are prepared.
        let padding = accounts.len().next_power_of_two() - accounts.len();
        let padded = accounts.into_iter().chain(std::iter::repeat_n(last, padding));
        let mut args: Vec<Value> = padded.flat_map(|account| [account.tenant.into(), account.key_id.into()]).collect();
        let list = placeholders(args.len() / 2, 2);
        args.push(at.into());
        let sql = format!(
            "SELECT tenant, key_id, starts, ends, spent, spent_tokens, held, held_tokens FROM counters
             WHERE (tenant, key_id) IN (VALUES {list}) AND ends > ${}",
            args.len()
        );
        Some((sql, args))
    }

    /// What the query found.
    pub(crate) fn of(found: &[Row]) -> Result<Self> {
        let counter = |row| read(row).map(|(key, balance)| (key, Counter { balance, changed: false }));
        Ok(Self { rows: found.iter().map(counter).collect::<Result<_>>()? })
    }

    /// Makes sure that the counters of these holds are there.
    pub(crate) async fn start(&mut self, link: &mut Link, holds: &[Held]) -> Result<()> {
        for (hold, period) in holds {
            if let Entry::Vacant(free) = self.rows.entry((hold.account.clone(), *period)) {
                let balance = spent(link, &hold.account, *period).await?;
                free.insert(Counter { balance, changed: true });
            }
        }
        Ok(())
    }

    /// Takes all holds, or none and says which budget is used up.
    pub(crate) fn take(&mut self, holds: &[Held]) -> Result<()> {
        for (hold, period) in holds {
            let counter = self.rows.entry((hold.account.clone(), *period)).or_default();
            check(hold, *period, &counter.balance)?;
        }
        self.add(holds, 1);
        Ok(())
    }

    /// Gives holds back.
    pub(crate) fn give_back(&mut self, holds: &[Held]) {
        self.add(holds, -1);
    }

    fn add(&mut self, holds: &[Held], sign: i64) {
        for (hold, period) in holds {
            if let Some(counter) = self.rows.get_mut(&(hold.account.clone(), *period)) {
                counter.balance.held += sign * hold.money;
                counter.balance.held_tokens += sign * hold.tokens;
                counter.changed = true;
            }
        }
    }

    /// Adds charges of a key to all of its and its tenant's counters that run at `at`.
    pub(crate) fn spend(&mut self, tenant: &str, key_id: &str, at: i64, charges: &[Charge]) {
        let money = charges.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.amount));
        let tokens = charges.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.tokens()));
        for ((account, period), counter) in &mut self.rows {
            let mine = account.tenant == tenant && (account.key_id.is_empty() || account.key_id == key_id);
            if mine && (period.starts..period.ends).contains(&at) {
                counter.balance.spent = counter.balance.spent.saturating_add(money);
                counter.balance.spent_tokens = counter.balance.spent_tokens.saturating_add(tokens);
                counter.changed = true;
            }
        }
    }

    /// The rows to write: eight values each.
    pub(crate) fn changed(self) -> Vec<Value> {
        let changed = self.rows.into_iter().filter(|(_, counter)| counter.changed);
        let values = changed.flat_map(|((account, period), Counter { balance, .. })| -> [Value; 8] {
            [
                account.tenant.into(),
                account.key_id.into(),
                period.starts.into(),
                period.ends.into(),
                balance.spent.into(),
                balance.spent_tokens.into(),
                balance.held.into(),
                balance.held_tokens.into(),
            ]
        });
        values.collect()
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
