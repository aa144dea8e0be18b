//! One set of queries over two databases.
//!
//! SQLite and PostgreSQL read the same SQL here: `$1` placeholders, `ON CONFLICT`, rows of values. [`Value`] and [`Row`] carry what goes
//! in and comes out; where the two differ stands in one table, [`Dialect`]. Nothing else in the crate knows which of them it speaks to,
//! except for the durability of SQLite's log (the keeper) and for copies (`backup`).
//!
//! *SQLite* runs in WAL mode with `synchronous=NORMAL`: a commit is a `write()` to the log file, so what was acknowledged survives a
//! killed process and, once the keeper has synced the log (every flush interval), a crash of the system or a loss of power. A torn tail is
//! recognised by the log's checksums and dropped as a whole transaction. The writer never checkpoints by itself
//! (`wal_autocheckpoint=0`): that would block requests behind two syncs, so the keeper does it.
//!
//! *PostgreSQL* commits with `synchronous_commit=on`: a commit waits for the disk, group commit makes up for it, and nothing is lost
//! when gateway, server process or machine die.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, Connection, Postgres, Row as _, SqlSafeStr, SqlStr, Sqlite,
    postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow},
    query::Query,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use crate::{Error, Result, schema};

/// Bytes of a page of a new SQLite file. A commit writes every page that it touched, whole, and a request touches about sixteen, each
/// for a few hundred bytes: pages of 4 KiB would write, and sync, three times as much.
const PAGE: u32 = 1024;
/// How long a statement waits for another process that writes to the same file.
const BUSY: Duration = Duration::from_secs(5);
/// How long a connection to a server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Arguments of statements that go to SQLite in one call, which spares the way to its thread and back for each. A text of its own is kept
/// for every mixture of statements, so that many of them are better sent one by one.
const FEW: usize = 256;
/// Statements that stay prepared: rows for each table in every number up to a statement's most, and all others.
const PREPARED: usize = 512;
/// Connections for reading.
const READERS: u32 = 4;

/// Where the two databases differ.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// The type of bytes.
    pub(crate) blob: &'static str,
    /// The type of a primary key that is a number.
    pub(crate) id: &'static str,
    /// What a table clustered by its key says at its end.
    pub(crate) clustered: &'static str,
    /// Begins a transaction that will write.
    pub(crate) begin: &'static str,
    /// Begins a transaction that reads one state of all tables.
    pub(crate) snapshot: &'static str,
    /// Takes the lock under which entries get their places; held until the transaction ends.
    pub(crate) lock: Option<&'static str>,
    /// Fails inside a transaction if another connection changed anything since `$1` was read ([`Link::version`]).
    pub(crate) guard: Option<&'static str>,
}

const SQLITE: Dialect = Dialect {
    blob: "BLOB",
    id: "INTEGER",
    clustered: " WITHOUT ROWID",
    begin: "BEGIN IMMEDIATE",
    snapshot: "BEGIN",
    lock: None,
    // The row is there already.
    guard: Some("INSERT INTO meta SELECT 'schema', 0 FROM pragma_data_version WHERE data_version <> $1"),
};

/// The number is the word "tessera" in ASCII: one lock for all gateways on the database.
const POSTGRES: Dialect = Dialect {
    blob: "BYTEA",
    id: "BIGINT",
    clustered: "",
    begin: "BEGIN",
    snapshot: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    lock: Some("SELECT pg_advisory_xact_lock(32762643847147105)"),
    guard: None,
};

/// A value that goes into a statement.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Int(i64),
    /// A number or nothing.
    Maybe(Option<i64>),
    Text(String),
    Blob(Vec<u8>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

/// A row that came out. Columns are read by position; `COALESCE` in the query stands for what may be missing.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn maybe(&self, column: usize) -> Result<Option<i64>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// A number that is never negative: an index, a size.
    pub(crate) fn count(&self, column: usize) -> Result<u64> {
        u64::try_from(self.int(column)?).map_err(|_| Error::Store(format!("column {column} is negative")))
    }

    pub(crate) fn text(&self, column: usize) -> Result<String> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(crate) fn blob(&self, column: usize) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Bytes that an outer join may not have found.
    pub(crate) fn maybe_blob(&self, column: usize) -> Result<Option<Vec<u8>>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

/// A database, open.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Sqlite { pool: SqlitePool, options: SqliteConnectOptions, path: PathBuf },
    Postgres { pool: PgPool, options: PgConnectOptions },
}

/// One connection, for whoever needs transactions.
#[derive(Debug)]
pub(crate) enum Link {
    Sqlite(SqliteConnection),
    Postgres(Box<PgConnection>),
}

impl Store {
    /// Opens the database behind the URL, and creates what is missing in it.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let store = if url.starts_with("sqlite:") {
            let options = sqlite_options(url)?;
            let path = options.get_filename().to_owned();
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(|error| Error::file(directory, &error))?;
            }
            let readers = SqlitePoolOptions::new().max_connections(READERS);
            Self::Sqlite { pool: readers.connect_lazy_with(options.clone()), options, path }
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options =
                PgConnectOptions::from_str(url)?.application_name("tessera").statement_cache_capacity(PREPARED);
            let readers = PgPoolOptions::new().max_connections(READERS).acquire_timeout(CONNECT);
            Self::Postgres { pool: readers.connect_lazy_with(options.clone()), options }
        } else {
            return Err(Error::Settings(format!("{url}: a ledger lives at sqlite:PATH or postgres://HOST/DATABASE")));
        };
        let mut link = store.link().await?;
        schema::prepare(&mut link).await?;
        link.close().await?;
        Ok(store)
    }

    /// A connection of its own.
    pub(crate) async fn link(&self) -> Result<Link> {
        Ok(match self {
            Self::Sqlite { options, .. } => Link::Sqlite(SqliteConnection::connect_with(options).await?),
            Self::Postgres { options, .. } => {
                let connect = PgConnection::connect_with(options);
                let connected = tokio::time::timeout(CONNECT, connect).await;
                Link::Postgres(Box::new(connected.map_err(|_| Error::Store("no connection within 5 s".into()))??))
            }
        })
    }

    /// Reads rows, over a connection of the pool.
    pub(crate) async fn rows(&self, sql: impl SqlSafeStr, args: Vec<Value>) -> Result<Vec<Row>> {
        let sql = sql.into_sql_str();
        Ok(match self {
            Self::Sqlite { pool, .. } => {
                let rows = bind_sqlite(sqlx::query(sql), args).fetch_all(pool).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres { pool, .. } => {
                let rows = bind_postgres(sqlx::query(sql), args).fetch_all(pool).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite { pool, .. } => pool.close().await,
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

fn sqlite_options(url: &str) -> Result<SqliteConnectOptions> {
    let options = SqliteConnectOptions::from_str(url)?;
    Ok(options
        .create_if_missing(true)
        .statement_cache_capacity(PREPARED)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .page_size(PAGE)
        .pragma("wal_autocheckpoint", "0")
        // Freed pages are overwritten: a destroyed key is gone from the file.
        .pragma("secure_delete", "FAST"))
}

impl Link {
    /// Reads a file that may not be written to.
    pub(crate) async fn file(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        Ok(Self::Sqlite(SqliteConnection::connect_with(&options).await?))
    }

    pub(crate) fn dialect(&self) -> &'static Dialect {
        match self {
            Self::Sqlite(_) => &SQLITE,
            Self::Postgres(_) => &POSTGRES,
        }
    }

    /// Runs a statement; how many rows it changed.
    pub(crate) async fn run(&mut self, sql: impl SqlSafeStr, args: Vec<Value>) -> Result<u64> {
        let sql = sql.into_sql_str();
        Ok(match self {
            Self::Sqlite(link) => bind_sqlite(sqlx::query(sql), args).execute(link).await?.rows_affected(),
            Self::Postgres(link) => bind_postgres(sqlx::query(sql), args).execute(&mut **link).await?.rows_affected(),
        })
    }

    /// Reads rows.
    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, args: Vec<Value>) -> Result<Vec<Row>> {
        let sql = sql.into_sql_str();
        Ok(match self {
            Self::Sqlite(link) => {
                let rows = bind_sqlite(sqlx::query(sql), args).fetch_all(link).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(link) => {
                let rows = bind_postgres(sqlx::query(sql), args).fetch_all(&mut **link).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// Begins a transaction that writes, alone: no other one gets places in the log until it ends.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let dialect = self.dialect();
        self.run(dialect.begin, vec![]).await?;
        if let Some(lock) = dialect.lock {
            self.rows(lock, vec![]).await?;
        }
        Ok(())
    }

    /// SQLite's number of changes by other connections, as of the transaction that was begun. Of no use to another connection.
    pub(crate) async fn version(&mut self) -> Result<Option<i64>> {
        if matches!(self, Self::Postgres(_)) {
            return Ok(None);
        }
        self.rows("PRAGMA data_version", vec![]).await?.first().map(|row| row.int(0)).transpose()
    }

    /// Begins a transaction, makes sure that nobody else wrote since, runs statements and commits.
    pub(crate) async fn transact(&mut self, guard: Text, statements: Vec<Text>) -> Result<()> {
        let begin = (self.dialect().begin.to_owned(), vec![]);
        self.commit_with([begin, guard].into_iter().chain(statements).collect()).await
    }

    /// Runs statements one after the other and commits.
    pub(crate) async fn commit_with(&mut self, statements: Vec<Text>) -> Result<()> {
        let values: usize = statements.iter().map(|(_, args)| args.len()).sum();
        if matches!(self, Self::Sqlite(_)) && values <= FEW {
            let (sql, args) = joined(statements.into_iter().chain([("COMMIT".to_owned(), vec![])]));
            return self.run(built(sql), args).await.map(drop);
        }
        for (sql, args) in statements {
            let sql = if matches!(self, Self::Sqlite(_)) { positional(&sql).unwrap_or(sql) } else { sql };
            self.run(built(sql), args).await?;
        }
        self.commit().await
    }

    /// Begins a transaction that reads one state of all tables, whatever is written meanwhile.
    pub(crate) async fn snapshot(&mut self) -> Result<()> {
        self.run(self.dialect().snapshot, vec![]).await.map(drop)
    }

    pub(crate) async fn commit(&mut self) -> Result<()> {
        self.run("COMMIT", vec![]).await.map(drop)
    }

    /// Ends the connection, once all it did is done.
    pub(crate) async fn close(self) -> Result<()> {
        let closed = match self {
            Self::Sqlite(link) => link.close().await,
            Self::Postgres(link) => link.close().await,
        };
        Ok(closed?)
    }

    /// Gives a transaction up; that there is none is no error.
    pub(crate) async fn rollback(&mut self) {
        let _ = self.run("ROLLBACK", vec![]).await;
    }
}

/// SQL that was put together here, and its arguments.
pub(crate) type Text = (String, Vec<Value>);

/// Statements as one text for SQLite; the arguments of all of them are numbered together.
fn joined(statements: impl IntoIterator<Item = Text>) -> Text {
    let (mut sql, mut args) = (String::new(), Vec::new());
    for (text, mut values) in statements {
        renumbered(&text, |n, sql| _ = write!(sql, "${}", n + args.len()), &mut sql);
        sql.push(';');
        args.append(&mut values);
    }
    (sql, args)
}

/// `?` for `$1`, `$2` and so on if they stand in this order: SQLite looks for numbered arguments in a list, one by one.
fn positional(sql: &str) -> Option<String> {
    let (mut text, mut seen, mut ordered) = (String::with_capacity(sql.len()), 0, true);
    let number = |n: usize, text: &mut String| {
        seen += 1;
        ordered &= n == seen;
        text.push('?');
    };
    renumbered(sql, number, &mut text);
    ordered.then_some(text)
}

/// Copies a statement, with something else for the numbers of its arguments.
fn renumbered(sql: &str, mut number: impl FnMut(usize, &mut String), into: &mut String) {
    let mut parts = sql.split('$');
    into.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let (n, rest) = part.split_at(digits);
        number(n.parse().unwrap_or_default(), into);
        into.push_str(rest);
    }
}

type SqliteQuery<'q> = Query<'q, Sqlite, <Sqlite as sqlx::Database>::Arguments>;
type PostgresQuery<'q> = Query<'q, Postgres, <Postgres as sqlx::Database>::Arguments>;

fn bind_sqlite(query: SqliteQuery<'_>, args: Vec<Value>) -> SqliteQuery<'_> {
    args.into_iter().fold(query, |query, arg| match arg {
        Value::Int(value) => query.bind(value),
        Value::Maybe(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Blob(value) => query.bind(value),
    })
}

fn bind_postgres(query: PostgresQuery<'_>, args: Vec<Value>) -> PostgresQuery<'_> {
    args.into_iter().fold(query, |query, arg| match arg {
        Value::Int(value) => query.bind(value),
        Value::Maybe(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Blob(value) => query.bind(value),
    })
}

/// `($1,$2),($3,$4)`: rows of placeholders.
pub(crate) fn placeholders(rows: usize, columns: usize) -> String {
    let mut text = String::with_capacity(rows * columns * 6);
    for row in 0..rows {
        text.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            if column > 0 {
                text.push(',');
            }
            let _ = write!(text, "${}", row * columns + column + 1);
        }
        text.push(')');
    }
    text
}

/// SQL that was put together here: of names and placeholders, never of values.
pub(crate) fn built(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_numbered_anew() {
        let text = |sql: &str, args: &[i64]| (sql.to_owned(), args.iter().map(|n| Value::Int(*n)).collect());
        let (sql, args) = joined([text("BEGIN", &[]), text("A $1 B $2", &[1, 2]), text("C $2 D $1 E $1", &[3, 4])]);
        assert_eq!((&*sql, args.len()), ("BEGIN;A $1 B $2;C $4 D $3 E $3;", 4));
        assert_eq!(positional("INSERT ($1,$2),($3)").as_deref(), Some("INSERT (?,?),(?)"));
        assert_eq!(positional("a = $1 OR b = $1"), None);
    }
}
