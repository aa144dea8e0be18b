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

use std::{fmt::Write as _, path::Path, str::FromStr, sync::Arc, time::Duration};

use rusqlite::types::Value as Cell;
use sqlx::{
    AssertSqlSafe, Connection, Postgres, Row as _, SqlSafeStr, SqlStr,
    postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow},
    query::Query,
};

use crate::{
    Error, Result, schema,
    sqlite::{Cells, Readers, Sqlite},
};

/// How long a connection to a server may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Statements that stay prepared: rows for each table in every number up to a statement's most, and all others.
pub(crate) const PREPARED: usize = 256;
/// Connections for reading.
pub(crate) const READERS: u32 = 4;

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
    Sqlite(Cells),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn int(&self, column: usize) -> Result<i64> {
        match self {
            Self::Sqlite(row) => match row.get(column) {
                Some(Cell::Integer(value)) => Ok(*value),
                other => unlike(column, "a number", other),
            },
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn maybe(&self, column: usize) -> Result<Option<i64>> {
        match self {
            Self::Sqlite(row) if row.get(column) == Some(&Cell::Null) => Ok(None),
            Self::Sqlite(_) => self.int(column).map(Some),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// A number that is never negative: an index, a size.
    pub(crate) fn count(&self, column: usize) -> Result<u64> {
        u64::try_from(self.int(column)?).map_err(|_| Error::Store(format!("column {column} is negative")))
    }

    pub(crate) fn text(&self, column: usize) -> Result<String> {
        match self {
            Self::Sqlite(row) => match row.get(column) {
                Some(Cell::Text(text)) => Ok(text.clone()),
                other => unlike(column, "text", other),
            },
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn blob(&self, column: usize) -> Result<Vec<u8>> {
        match self {
            Self::Sqlite(row) => match row.get(column) {
                Some(Cell::Blob(bytes)) => Ok(bytes.clone()),
                other => unlike(column, "bytes", other),
            },
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// Bytes that an outer join may not have found.
    pub(crate) fn maybe_blob(&self, column: usize) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Sqlite(row) if row.get(column) == Some(&Cell::Null) => Ok(None),
            Self::Sqlite(_) => self.blob(column).map(Some),
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }
}

/// Whoever writes to the file by hand may put anything into a column.
fn unlike<T>(column: usize, wanted: &str, found: Option<&Cell>) -> Result<T> {
    let found = found.map_or_else(|| "nothing".to_owned(), |cell| cell.data_type().to_string());
    Err(Error::Store(format!("column {column} is not {wanted} but {found}")))
}

/// A database, open.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Sqlite(Arc<Readers>),
    Postgres { pool: PgPool, options: Box<PgConnectOptions> },
}

/// One connection, for whoever needs transactions.
#[derive(Debug)]
pub(crate) enum Link {
    Sqlite(Sqlite),
    Postgres(Box<PgConnection>),
}

impl Store {
    /// Opens the database behind the URL, and creates what is missing in it.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let store = if let Some(path) = url.strip_prefix("sqlite:") {
            let path = Path::new(path.strip_prefix("//").unwrap_or(path));
            if url.contains('?') || path == Path::new(":memory:") {
                return Err(Error::Settings(format!("{url}: a ledger lives in a file, sqlite:PATH, without options")));
            }
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory).map_err(|error| Error::file(directory, &error))?;
            }
            Self::Sqlite(Arc::new(Readers::new(path.to_owned())))
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(url)?;
            let options = options.application_name("tessera").statement_cache_capacity(PREPARED);
            let readers = PgPoolOptions::new().max_connections(READERS).acquire_timeout(CONNECT);
            Self::Postgres { pool: readers.connect_lazy_with(options.clone()), options: Box::new(options) }
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
            Self::Sqlite(readers) => Link::Sqlite(Sqlite::open(readers.path().to_owned()).await?),
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
            Self::Sqlite(readers) => {
                readers.rows((sql.as_str().to_owned(), args)).await?.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres { pool, .. } => {
                let rows = bind(sqlx::query(sql), args).fetch_all(pool).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(readers) => readers.close().await,
            Self::Postgres { pool, .. } => pool.close().await,
        }
    }
}

impl Link {
    /// Reads a file that may not be written to.
    pub(crate) async fn file(path: &Path) -> Result<Self> {
        Ok(Self::Sqlite(Sqlite::read_only(path.to_owned()).await?))
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
            Self::Sqlite(link) => link.run(vec![(sql.as_str().to_owned(), args)]).await?,
            Self::Postgres(link) => bind(sqlx::query(sql), args).execute(&mut **link).await?.rows_affected(),
        })
    }

    /// Reads rows.
    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, args: Vec<Value>) -> Result<Vec<Row>> {
        let sql = sql.into_sql_str();
        Ok(match self {
            Self::Sqlite(link) => {
                let rows = link.rows((sql.as_str().to_owned(), args)).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(link) => {
                let rows = bind(sqlx::query(sql), args).fetch_all(&mut **link).await?;
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

    /// Runs statements as a transaction without waiting for anybody. If that cannot be, nothing was done: `false`.
    pub(crate) fn at_once(&mut self, statements: &[Text]) -> bool {
        let Self::Sqlite(link) = self else { return false };
        let done = link.at_once(SQLITE.begin, statements);
        if let Err(error) = &done {
            tracing::debug!(%error, "once more, with waiting");
        }
        done.is_ok()
    }

    /// Runs statements one after the other and commits.
    pub(crate) async fn commit_with(&mut self, mut statements: Vec<Text>) -> Result<()> {
        match self {
            Self::Sqlite(link) => {
                statements.push(("COMMIT".to_owned(), vec![]));
                link.run(statements).await.map(drop)
            }
            Self::Postgres(link) => {
                for (sql, args) in statements {
                    bind(sqlx::query(built(sql)), args).execute(&mut **link).await?;
                }
                self.commit().await
            }
        }
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
        match self {
            Self::Sqlite(link) => link.close().await,
            Self::Postgres(link) => Ok(link.close().await?),
        }
    }

    /// Gives a transaction up; that there is none is no error.
    pub(crate) async fn rollback(&mut self) {
        let _ = self.run("ROLLBACK", vec![]).await;
    }
}

/// SQL that was put together here, and its arguments.
pub(crate) type Text = (String, Vec<Value>);

type PostgresQuery<'q> = Query<'q, Postgres, <Postgres as sqlx::Database>::Arguments>;

fn bind(query: PostgresQuery<'_>, args: Vec<Value>) -> PostgresQuery<'_> {
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
