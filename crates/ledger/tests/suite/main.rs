//! One suite, run on both stores: every case gets a [`Bench`] and does not know which database is under it.

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod bench;
mod contents;
mod copies;
mod feedback;
mod keys;
mod money;
mod postgres;
mod records;
mod tamper;

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
        an_id_is_used_once, tenants_see_their_own, a_list_is_read_in_parts, what_a_dead_gateway_left_open_is_closed_as_lost;
    money: a_budget_for_m_admits_exactly_m_of_n, a_window_that_begins_within_a_batch_counts_all_of_it,
        every_balance_is_the_fold_of_what_was_charged;
    tamper: a_log_that_nobody_touched_verifies, whatever_is_touched_is_named, a_cut_off_end_shows_against_a_checkpoint_from_outside,
        a_log_that_was_written_anew_is_not_signed,
        a_log_that_was_altered_is_not_signed_on, proofs_hold_offline_and_only_for_what_they_prove;
    contents: an_erased_person_is_gone_and_the_log_verifies, an_erasure_is_seen_by_other_gateways,
        old_contents_expire_and_the_log_stays, content_that_is_missing_without_its_reason_is_named;
    feedback: feedback_reads_with_its_request, feedback_that_says_nothing_is_refused,
        a_conversion_is_charged_once_and_in_time, conversions_count_against_budgets_and_once_among_many,
        a_rollout_is_moved_once_and_for_all, tables_beside_the_log_are_compared_with_it;
    copies: a_backup_is_taken_while_running_and_restored_verified, a_backup_that_does_not_verify_is_not_restored,
        an_export_verifies_from_its_files_alone;
    keys: a_secret_is_shown_once_and_found, a_revocation_is_seen_by_another_gateway,
        two_gateways_share_log_and_budgets, gateways_in_turns_know_what_the_other_did;
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

#[tokio::test]
async fn a_ledger_lives_in_a_file() {
    for url in ["sqlite::memory:", "sqlite:ledger.db?mode=ro", "mysql://localhost/ledger"] {
        let settings = ledger::Settings::new(url, "keys/ledger.key");
        let error = ledger::Ledger::open(settings).await.unwrap_err();
        assert!(matches!(error, ledger::Error::Settings(_)) && error.to_string().contains("lives"), "{url}: {error}");
    }
}
