//! SQLite, in this process.
//!
//! A commit to SQLite's log is a copy into the system's cache, a few tens of microseconds: less than it takes to wake another thread and be woken by
//! it. So the writer's transactions run [where they are asked for](Sqlite::at_once), if nobody has to be waited for; whatever may take
//! longer, reading among it, runs on a thread that may block.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{
    Connection, OpenFlags, ToSql, params_from_iter,
    types::{ToSqlOutput, Value as Cell, ValueRef},
};
use tokio::sync::Semaphore;

use crate::{
    Error, Result,
    store::{PREPARED, READERS, Text, Value},
};

/// Bytes of a page of a new file. A commit writes every page that it touched, whole, and a request touches about sixteen, each for a few
/// hundred bytes: pages of 4 KiB would write, and sync, three times as much.
const PAGE: u32 = 1024;
/// How long a statement waits for another process that writes to the same file.
const BUSY: Duration = Duration::from_secs(5);

/// A connection. Nobody ever waits for the lock: it only lets the keeper, who has one, be seen by several threads.
#[derive(Debug)]
pub(crate) struct Sqlite(Option<Mutex<Connection>>);

/// What every cell of a row holds.
pub(crate) type Cells = Vec<Cell>;

impl Sqlite {
    /// Opens a database, and creates the file if there is none.
    pub(crate) async fn open(path: PathBuf) -> Result<Self> {
        blocking(move || Ok(Self(Some(Mutex::new(open(&path)?))))).await
    }

    /// Opens a file that may not be written to.
    pub(crate) async fn read_only(path: PathBuf) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        blocking(move || Ok(Self(Some(Mutex::new(Connection::open_with_flags(path, flags)?))))).await
    }

    /// Runs statements one after the other; how many rows the last one changed.
    pub(crate) async fn run(&mut self, statements: Vec<Text>) -> Result<u64> {
        self.on(move |link| statements.iter().try_fold(0, |_, statement| run(link, statement))).await
    }

    pub(crate) async fn rows(&mut self, text: Text) -> Result<Vec<Cells>> {
        self.on(move |link| rows(link, &text)).await
    }

    /// Runs statements as a transaction here and now, all of them or none; an error, too, if another process would have to be waited for.
    pub(crate) fn at_once(&mut self, begin: &str, statements: &[Text]) -> Result<()> {
        let link = self.0.as_mut().ok_or_else(lost)?.get_mut();
        link.busy_timeout(Duration::ZERO)?;
        let done = transaction(link, begin, statements);
        if done.is_err() {
            // SQLite may have done so by itself.
            let _ = link.execute_batch("ROLLBACK");
        }
        link.busy_timeout(BUSY)?;
        done
    }

    /// Ends the connection.
    pub(crate) async fn close(mut self) -> Result<()> {
        let Some(link) = self.0.take() else { return Ok(()) };
        blocking(move || link.into_inner().close().map_err(|(_, error)| error.into())).await
    }

    async fn on<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let link = self.0.take().ok_or_else(lost)?;
        let (link, done) = blocking(move || {
            let done = work(&link.lock());
            Ok((link, done))
        })
        .await?;
        self.0 = Some(link);
        done
    }
}

/// Connections for reading.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    free: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS as usize)) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn rows(self: &Arc<Self>, text: Text) -> Result<Vec<Cells>> {
        let permit = self.free.clone().acquire_owned().await.map_err(|_| Error::Closed("it was closed".into()))?;
        let readers = self.clone();
        blocking(move || {
            let idle = readers.idle.lock().pop();
            let link = idle.map_or_else(|| open(&readers.path), Ok)?;
            let rows = rows(&link, &text);
            readers.idle.lock().push(link);
            drop(permit);
            rows
        })
        .await
    }

    /// Waits for what is being read and closes.
    pub(crate) async fn close(&self) {
        let _ = self.free.acquire_many(READERS).await;
        self.free.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        // The last connection to a database copies its log.
        let closed =
            blocking(move || idle.into_iter().try_for_each(|link| Ok(link.close().map_err(|(_, error)| error)?)));
        if let Err(error) = closed.await {
            tracing::warn!(%error, "a connection for reading was not closed cleanly");
        }
    }
}

fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let link = Connection::open_with_flags(path, flags)?;
    link.busy_timeout(BUSY)?;
    link.set_prepared_statement_cache_capacity(PREPARED);
    // Freed pages are overwritten: a destroyed key is gone from the file.
    link.execute_batch(&format!(
        "PRAGMA page_size = {PAGE}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
         PRAGMA wal_autocheckpoint = 0; PRAGMA secure_delete = FAST"
    ))?;
    Ok(link)
}

fn transaction(link: &Connection, begin: &str, statements: &[Text]) -> Result<()> {
    link.prepare_cached(begin)?.execute([])?;
    for statement in statements {
        run(link, statement)?;
    }
    link.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn run(link: &Connection, (sql, args): &Text) -> Result<u64> {
    Ok(link.prepare_cached(&numbered(sql))?.execute(params_from_iter(args))? as u64)
}

fn rows(link: &Connection, (sql, args): &Text) -> Result<Vec<Cells>> {
    let mut statement = link.prepare_cached(&numbered(sql))?;
    let columns = statement.column_count();
    let rows = statement.query_map(params_from_iter(args), |row| (0..columns).map(|at| row.get(at)).collect())?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// `$1` is a name to SQLite, `?1` a number.
fn numbered(sql: &str) -> String {
    sql.replace('$', "?")
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Int(value) | Self::Maybe(Some(value)) => ValueRef::Integer(*value),
            Self::Maybe(None) => ValueRef::Null,
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

fn lost() -> Error {
    Error::Store("the connection was given up".into())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::Store(error.to_string())))
}
