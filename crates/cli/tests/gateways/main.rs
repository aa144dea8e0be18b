//! Real `tessera serve --only gateway` processes in front of a stub upstream: under more load than they take, and killed while
//! two of them share one PostgreSQL.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's shared functions may panic")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what was seen, for whoever runs it with --nocapture")]

mod bench;
mod overload;
#[path = "../../../ledger/tests/suite/postgres.rs"]
mod postgres;
mod shared;
#[expect(dead_code, reason = "shared with the load generator, which uses more of it")]
#[path = "../../../gateway/examples/load/stub.rs"]
mod stub;
