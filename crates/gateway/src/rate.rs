//! Rate limits: requests and tokens a minute, by key and by tenant.
//!
//! The generic cell rate algorithm (ITU-T I.371): an account is one number, the time at which it will have its whole minute
//! again; taking moves it ahead, and whoever would move it more than a minute ahead is refused with the time to wait. Tokens
//! are taken by an estimate and the difference is given back or taken behind the work, which is why this is not `governor`:
//! that library can only take. Accounts that are whole again are forgotten.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// Accounts kept before those that are whole again are looked for.
const MANY: usize = 16_384;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Requests,
    Tokens,
}

/// Whose, and what of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Account {
    pub(crate) owner: String,
    pub(crate) what: What,
}

/// Where an account stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// In a minute.
    pub(crate) limit: u64,
    /// What could be taken now.
    pub(crate) remaining: u64,
    /// Until it is whole again.
    pub(crate) reset: Duration,
}

/// A limit was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) standing: Standing,
    /// When the same would be granted; `None` is never, because it is more than a minute's worth.
    pub(crate) wait: Option<Duration>,
}

/// All accounts.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    whole_at: Mutex<HashMap<Account, Instant>>,
}

/// How long `n` take to come back.
fn time(n: u64, limit: u64) -> Duration {
    MINUTE.mul_f64(n as f64 / limit.max(1) as f64)
}

fn standing(whole_at: Instant, now: Instant, limit: u64) -> Standing {
    let reset = whole_at.saturating_duration_since(now);
    let used = (reset.as_secs_f64() / MINUTE.as_secs_f64() * limit as f64 - 1e-6).ceil().max(0.0) as u64;
    Standing { limit, remaining: limit.saturating_sub(used), reset }
}

impl Rates {
    /// Takes `n` of the `limit` a minute has.
    pub(crate) fn take(&self, account: &Account, n: u64, limit: u64, now: Instant) -> Result<Standing, Exceeded> {
        let mut accounts = self.whole_at.lock();
        if accounts.len() >= MANY {
            accounts.retain(|_, whole_at| *whole_at > now);
        }
        let whole_at = accounts.get(account).copied().unwrap_or(now).max(now);
        let next = whole_at + time(n, limit);
        // A microsecond for the rounding of the division.
        let over = next.saturating_duration_since(now + MINUTE + Duration::from_micros(1));
        if over.is_zero() {
            accounts.insert(account.clone(), next);
            return Ok(standing(next, now, limit));
        }
        Err(Exceeded { standing: standing(whole_at, now, limit), wait: (n <= limit).then_some(over) })
    }

    /// Settles an estimate: what was taken too much comes back, what was used beyond it is taken whatever stands there.
    pub(crate) fn correct(&self, account: &Account, taken: u64, used: u64, limit: u64) {
        let mut accounts = self.whole_at.lock();
        if let Some(whole_at) = accounts.get_mut(account) {
            *whole_at = match used.checked_sub(taken) {
                Some(more) => *whole_at + time(more, limit),
                None => whole_at.checked_sub(time(taken - used, limit)).unwrap_or(*whole_at),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account() -> Account {
        Account { owner: "k".to_owned(), what: What::Tokens }
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_has_its_limit_and_comes_back_bit_by_bit() {
        let (rates, start) = (Rates::default(), Instant::now());
        let take = |n, at: u64| rates.take(&account(), n, 60, start + Duration::from_secs(at));
        assert_eq!(take(60, 0).unwrap().remaining, 0);
        let refused = take(1, 0).unwrap_err();
        assert_eq!((refused.standing.remaining, refused.wait.unwrap().as_secs()), (0, 0));
        assert!(refused.wait.unwrap() > Duration::from_millis(990));
        assert_eq!(take(10, 10).unwrap().remaining, 0);
        assert!(take(1, 10).is_err());
        assert_eq!(take(1, 600).unwrap().remaining, 59);
        assert_eq!(take(61, 600).unwrap_err().wait, None);
    }

    #[tokio::test(start_paused = true)]
    async fn estimates_are_settled() {
        let (rates, now) = (Rates::default(), Instant::now());
        rates.take(&account(), 80, 100, now).unwrap();
        rates.correct(&account(), 80, 30, 100);
        assert_eq!(rates.take(&account(), 10, 100, now).unwrap().remaining, 60);
        rates.correct(&account(), 10, 90, 100);
        assert!(rates.take(&account(), 1, 100, now).is_err());
    }

    proptest! {
        /// Whatever is asked for and when: no stretch of time grants more than a minute's burst and what flows in meanwhile.
        #[test]
        fn never_more_than_the_limit(asked in prop::collection::vec((0_u64..20_000, 1_u64..40), 1..60), limit in 1_u64..100) {
            let rates = Rates::default();
            let start = tokio::time::Instant::now();
            let (mut at, mut granted) = (Duration::ZERO, 0);
            for (wait, n) in asked {
                at += Duration::from_millis(wait);
                if rates.take(&account(), n, limit, start + at).is_ok() {
                    granted += n;
                }
                let most = limit as f64 + at.as_secs_f64() / 60.0 * limit as f64;
                prop_assert!(granted as f64 <= most + 1e-3, "{granted} of {most}");
            }
        }
    }
}
