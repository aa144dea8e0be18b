//! A PostgreSQL server of our own, on a socket in a temporary directory.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::bench::Directory;

/// Set by `cargo xtask test`, which installs PostgreSQL: then its absence is a failure.
const REQUIRED: &str = "TESSERA_TEST_POSTGRES";

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    programs: PathBuf,
    directory: Directory,
    shell: Child,
}

impl Server {
    /// Starts one; `None`, loudly, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os(REQUIRED).is_none(), "PostgreSQL is not installed: apt-get install postgresql");
            eprintln!("\nPOSTGRESQL IS NOT INSTALLED: NOTHING WAS TESTED ON IT. `cargo xtask test` installs it.\n");
            return None;
        };
        let directory = Directory::new();
        let data = directory.path().join("data");
        if let Some((user, group)) = owner() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let mut initdb = as_owner(Command::new(programs.join("initdb")));
        initdb.args(["--auth=trust", "--username=tessera", "--no-sync", "--encoding=UTF8", "--pgdata"]).arg(&data);
        let made = initdb.stdout(Stdio::null()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let shell = serve(&programs, &data, directory.path());
        let server = Self { programs, directory, shell };
        server.wait();
        Some(server)
    }

    /// A new database; its URL.
    pub(crate) fn database(&self, name: &str) -> String {
        let name = &name[..name.len().min(60)];
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(name)
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://tessera@localhost/{name}?host={}", self.directory.path().display())
    }

    pub(crate) fn sql(&self, database: &str, sql: &str) {
        let mut psql = Command::new(self.programs.join("psql"));
        let done = psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.url(database)]).output().unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn wait(&self) {
        for _ in 0..300 {
            let mut ready = Command::new(self.programs.join("pg_isready"));
            ready.args(["-q", "-h"]).arg(self.directory.path());
            if ready.status().unwrap().success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(self.directory.path().join("log")).unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The shell waits for the end of its input; then it stops the server.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The server, under a shell that stops it when we end, however we end.
fn serve(programs: &Path, data: &Path, socket: &Path) -> Child {
    let script = r#""$1/postgres" -D "$2" -k "$3" -h "" -c fsync=off -c max_connections=200 >"$3/log" 2>&1 &
                    server=$!; cat >/dev/null; kill -QUIT $server; wait $server"#;
    let mut shell = as_owner(Command::new("sh"));
    shell.args(["-c", script, "sh"]).args([programs, data, socket]).stdin(Stdio::piped());
    shell.spawn().unwrap()
}

/// PostgreSQL refuses to run as root: then it runs as the user its package made.
fn owner() -> Option<(u32, u32)> {
    let id = |args: &[&str]| {
        let output = Command::new("id").args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().ok()
    };
    (id(&["-u"]) == Some(0)).then(|| (id(&["-u", "postgres"]).unwrap(), id(&["-g", "postgres"]).unwrap()))
}

fn as_owner(mut command: Command) -> Command {
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group).current_dir("/");
    }
    command
}

/// Where the server's programs are: Debian keeps them out of the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<_> = debian.chain(std::env::split_paths(&path)).collect();
    all.retain(|directory| directory.join("initdb").is_file());
    all.into_iter().next()
}
