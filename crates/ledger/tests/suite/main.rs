//! One suite, run on both stores: every case gets a [`Bench`] and does not know which database is under it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

mod bench;
mod money;
mod postgres;
mod records;

use std::{future::Future, pin::Pin};

use bench::Bench;

/// A case of the suite.
type Case = fn(Bench) -> Pin<Box<dyn Future<Output = ()>>>;

/// Every case, as a test on SQLite and as an entry of the list that the test on PostgreSQL walks.
macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        /// Every case by name.
        const CASES: &[(&str, Case)] = &[$($((stringify!($case), |bench| Box::pin($module::$case(bench)))),+),+];

        mod sqlite {
            $($(
                #[test]
                fn $case() {
                    super::bench::run(|| async { super::$module::$case(super::Bench::sqlite()).await });
                }
            )+)+
        }
    };
}

cases! {
    records: a_request_is_two_entries_and_reads_as_one_story, a_dropped_request_is_settled_as_aborted,
        an_id_is_used_once, tenants_see_their_own, what_a_dead_gateway_left_open_is_closed_as_lost;
    money: a_budget_for_m_admits_exactly_m_of_n;
}

/// One server for all cases: starting one takes longer than most of them.
#[test]
fn postgres() {
    let Some(server) = postgres::Server::start() else { return };
    for (name, case) in CASES {
        println!("{name}");
        let bench = Bench::postgres(&server, name);
        bench::run(|| case(bench));
    }
}
