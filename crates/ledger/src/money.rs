//! Money: prices, charges, budgets. Integers only.
//!
//! Amounts are nano-units of whatever currency the prices are in. A price is nano-units per **million** units (a cached token at 0.0125 a
//! million is 12.5 nano, which is no integer), and a charge rounds once, half to even, when it is made. From then on only its amount is
//! added up, so a bill is a sum of integers and reconciles to the nano-unit whatever crashed in between.
//!
//! A [`Hold`] is what a request may cost at most, held back from a [`Budget`] until the request settles. One row per account and window
//! counts what is spent and what is held, in the same transaction that writes the entry and the charges: what tracks is what enforces is
//! what is shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::date::{DAY, civil, days};

/// One line of a bill: a request's use of one thing, or what came of it. Idempotent by request id (or that of the feedback) and item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    /// What was used.
    pub item: Item,
    /// How much of it.
    pub quantity: u64,
    /// Nano-units of currency per million units.
    pub price: i64,
    /// Nano-units of currency: quantity times price, rounded once; of a conversion no more than its price allows.
    pub amount: i64,
}

impl Charge {
    /// A charge of `quantity` units at `price` nano-units per million, rounded half to even.
    pub fn new(item: Item, quantity: u64, price: i64) -> Self {
        Self { item, quantity, price, amount: amount(quantity, price) }
    }

    /// The tokens that count against a token budget.
    pub(crate) fn tokens(&self) -> i64 {
        if self.item.is_tokens() { i64::try_from(self.quantity).unwrap_or(i64::MAX) } else { 0 }
    }
}

/// `quantity` times `price` over a million, half to even; what does not fit is the largest there is.
pub fn amount(quantity: u64, price: i64) -> i64 {
    const MILLION: i128 = 1_000_000;
    let product = i128::from(quantity) * i128::from(price);
    let (whole, rest) = (product.div_euclid(MILLION), product.rem_euclid(MILLION));
    let up = rest * 2 > MILLION || (rest * 2 == MILLION && whole % 2 != 0);
    i64::try_from(whole + i128::from(up)).unwrap_or(if product < 0 { i64::MIN } else { i64::MAX })
}

/// What can be charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Item {
    /// Tokens of the prompt that had to be computed.
    InputTokens,
    /// Tokens of the prompt found in a cache.
    CachedTokens,
    /// Tokens generated.
    OutputTokens,
    /// Images drawn.
    Images,
    /// Decisions made.
    Decisions,
    /// Requests served, whatever they are.
    Requests,
    /// What conversions were worth, in nano-units of currency.
    Value,
    /// Conversions, whatever they were worth.
    Conversions,
}

impl Item {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::InputTokens,
        Self::CachedTokens,
        Self::OutputTokens,
        Self::Images,
        Self::Decisions,
        Self::Requests,
        Self::Value,
        Self::Conversions,
    ];

    /// Its name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::InputTokens => "input_tokens",
            Self::CachedTokens => "cached_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Images => "images",
            Self::Decisions => "decisions",
            Self::Requests => "requests",
            Self::Value => "value",
            Self::Conversions => "conversions",
        }
    }

    /// It counts against token budgets.
    pub fn is_tokens(self) -> bool {
        matches!(self, Self::InputTokens | Self::CachedTokens | Self::OutputTokens)
    }
}

/// Who pays: a tenant as a whole, or one key of it. What a key is charged its tenant is charged too.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    /// The tenant.
    pub tenant: String,
    /// The public part of the key; empty for the tenant as a whole.
    pub key_id: String,
}

impl Account {
    /// A tenant as a whole.
    pub fn tenant(tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), key_id: String::new() }
    }

    /// One key of a tenant.
    pub fn key(tenant: impl Into<String>, key_id: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), key_id: key_id.into() }
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key_id.is_empty() {
            write!(f, "tenant {}", self.tenant)
        } else {
            write!(f, "key {} of tenant {}", self.key_id, self.tenant)
        }
    }
}

/// What an account may spend in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Nano-units of currency; `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub money: Option<i64>,
    /// Tokens; `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// When it begins anew.
    pub window: Window,
}

/// When a budget begins anew; in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Never.
    Total,
    /// Every day.
    Day,
    /// On the first of every month.
    Month,
}

/// A window that a moment lies in: the first microsecond, and the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    /// Microseconds since 1970.
    pub starts: i64,
    /// Microseconds since 1970.
    pub ends: i64,
}

impl Window {
    /// The window that `at` (microseconds since 1970) lies in.
    pub fn around(self, at: i64) -> Period {
        let day = at.div_euclid(DAY);
        match self {
            Self::Total => Period { starts: 0, ends: i64::MAX },
            Self::Day => Period { starts: day * DAY, ends: (day + 1) * DAY },
            Self::Month => {
                let (year, month, _) = civil(day);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                Period { starts: days(year, month, 1) * DAY, ends: days(next.0, next.1, 1) * DAY }
            }
        }
    }
}

impl std::fmt::Display for Period {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.ends == i64::MAX {
            return f.write_str("total");
        }
        let (year, month, day) = civil(self.starts.div_euclid(DAY));
        if self.ends - self.starts > DAY {
            write!(f, "{year}-{month:02}")
        } else {
            write!(f, "{year}-{month:02}-{day:02}")
        }
    }
}

/// What a request may cost at most, held back from one budget until it settles. A request may hold from several: its key's for the day, its
/// tenant's for the month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Whose budget.
    pub account: Account,
    /// The limit in force.
    pub budget: Budget,
    /// Nano-units of currency.
    pub money: i64,
    /// Tokens.
    pub tokens: i64,
}

/// What an account has spent and holds in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// Nano-units of currency spent.
    pub spent: i64,
    /// Tokens spent.
    pub spent_tokens: i64,
    /// Nano-units of currency held back for requests that run.
    pub held: i64,
    /// Tokens held back for requests that run.
    pub held_tokens: i64,
}

impl Balance {
    /// What a budget has left: money, tokens; `None` where it has no limit.
    pub fn left(&self, budget: &Budget) -> (Option<i64>, Option<i64>) {
        let left = |limit: Option<i64>, used: i64| limit.map(|limit| limit.saturating_sub(used));
        (
            left(budget.money, self.spent.saturating_add(self.held)),
            left(budget.tokens, self.spent_tokens.saturating_add(self.held_tokens)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_rounds_once_half_to_even() {
        let check = |quantity, price, expected| assert_eq!(amount(quantity, price), expected, "{quantity} at {price}");
        check(0, 5, 0);
        check(1_000_000, 12_500_000, 12_500_000);
        check(1, 12_500_000, 12); // 12.5
        check(3, 12_500_000, 38); // 37.5
        check(1, 500_000, 0); // 0.5
        check(1, 1_500_000, 2); // 1.5
        check(1, 500_001, 1);
        check(1, -500_000, 0);
        check(1, -1_500_000, -2);
        check(u64::MAX, i64::MAX, i64::MAX);
        check(u64::MAX, i64::MIN, i64::MIN);
    }

    #[test]
    fn windows_meet_without_gap_or_overlap() {
        let check = |window: Window, at: i64, name: &str| {
            let period = window.around(at);
            assert!(period.starts <= at && at < period.ends, "{name}");
            assert_eq!(period.to_string(), name);
            if window != Window::Total {
                assert_eq!(window.around(period.ends).starts, period.ends);
                assert_eq!(window.around(period.ends - 1), period);
            }
        };
        check(Window::Total, 1, "total");
        check(Window::Day, 0, "1970-01-01");
        check(Window::Month, 0, "1970-01");
        check(Window::Day, 1_709_208_000_000_000, "2024-02-29");
        check(Window::Month, 1_709_208_000_000_000, "2024-02");
        check(Window::Month, 1_798_675_200_000_000, "2026-12");
    }
}
