//! Bills: sums of rows, whoever asks for them.

use serde::Serialize;

use crate::{
    Account, Balance, Item, Ledger, Period, Result, Window,
    counters::{SPENT, spent_args},
    store::Value,
};

/// Balances and bills.
#[derive(Debug, Clone)]
pub struct Usage(Ledger);

/// A line of a bill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The public part of the key.
    pub key_id: String,
    /// What was used.
    pub item: Item,
    /// How much of it.
    pub quantity: u64,
    /// Nano-units of currency.
    pub amount: i64,
    /// Rows it sums up.
    pub rows: u64,
}

impl Usage {
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// What an account has spent, and holds, in the window that runs now: money and tokens by the usage rows, holds by the counter.
    pub async fn balance(&self, account: &Account, window: Window) -> Result<Balance> {
        let period = window.around(self.0.clock().now());
        let store = &self.0.shared.store;
        let sums = store.rows(SPENT, spent_args(account, period)).await?;
        let held =
            "SELECT held, held_tokens FROM counters WHERE tenant = $1 AND key_id = $2 AND starts = $3 AND ends = $4";
        let held = store.rows(held, spent_args(account, period)).await?;
        let mut balance = Balance::default();
        if let Some(row) = sums.first() {
            (balance.spent, balance.spent_tokens) = (row.int(0)?, row.int(1)?);
        }
        if let Some(row) = held.first() {
            (balance.held, balance.held_tokens) = (row.int(0)?, row.int(1)?);
        }
        Ok(balance)
    }

    /// A tenant's bill for a period, by key and item.
    pub async fn bill(&self, tenant: &str, period: Period) -> Result<Vec<Line>> {
        let sql = "SELECT key_id, item, CAST(SUM(quantity) AS BIGINT), CAST(SUM(amount) AS BIGINT), COUNT(*) FROM usage
                   WHERE tenant = $1 AND at >= $2 AND at < $3 GROUP BY key_id, item ORDER BY key_id, item";
        let args: Vec<Value> = vec![tenant.into(), period.starts.into(), period.ends.into()];
        let rows = self.0.shared.store.rows(sql, args).await?;
        let line = |row: &crate::store::Row| {
            let name = row.text(1)?;
            let item = Item::ALL.into_iter().find(|item| item.name() == name);
            let unknown = || crate::Error::Store(format!("{name:?} is nothing that can be charged for"));
            Ok(Line {
                key_id: row.text(0)?,
                item: item.ok_or_else(unknown)?,
                quantity: row.count(2)?,
                amount: row.int(3)?,
                rows: row.count(4)?,
            })
        };
        rows.iter().map(line).collect()
    }
}
