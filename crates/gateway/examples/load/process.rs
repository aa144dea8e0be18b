//! The other processes, and what the system says about them.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a process may take until it answers.
const START: Duration = Duration::from_secs(60);

/// A process, by its number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu(self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Megabytes of memory in use.
    pub(crate) fn resident(self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) * 1024.0 / 1e6
    }
}

/// A child that dies with its handle.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
    /// What only it needs; removed with it.
    directory: Option<PathBuf>,
}

impl Running {
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// This program again, as the stub; its first line says where it is to be found.
    pub(crate) fn stub() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.arg("stub").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap(), key: String::new(), directory: None }
    }

    /// The gateway with everything on: keys, rates, a budget, prices, the guard's default policy, every request in the ledger.
    pub(crate) fn gateway(program: &Path, stub: SocketAddr, limits: &str) -> Self {
        let directory = directory();
        let settings = directory.join("tessera.toml");
        fs::write(&settings, self::settings(&directory, stub, limits)).unwrap();
        let tessera = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).env("TESSERA_CONFIG", &settings).env_remove("RUST_LOG");
            command
        };
        let made = tessera(&["keys", "create", "--tenant", "load"]);
        let made = output(made);
        let mut child = tessera(&["serve", "--only", "gateway"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.find_map(|line| Some(line.ok()?.split_once("http://")?.1.to_owned())).unwrap();
        let address = said.split('/').next().unwrap().parse().unwrap();
        // What it complains about belongs to whoever watches.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("gateway: {line}")));
        Self { child, address, key: made.trim().to_owned(), directory: Some(directory) }
    }

    /// LiteLLM's proxy in front of the same stub, run by a Python that has it.
    pub(crate) fn litellm(python: &Path, stub: SocketAddr) -> Self {
        let (directory, port) = (directory(), free_port());
        let settings = directory.join("litellm.yaml");
        fs::write(&settings, litellm(stub)).unwrap();
        let mut command = Command::new(python);
        command.args(["-c", "from litellm import run_server; run_server()", "--host", "127.0.0.1"]);
        command.args(["--port", &port.to_string(), "--config"]).arg(&settings).current_dir(&directory);
        let quiet = fs::File::create(directory.join("log")).unwrap();
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
        let child = command.stdout(quiet.try_clone().unwrap()).stderr(quiet).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let running = Self { child, address, key: "sk-load".to_owned(), directory: Some(directory) };
        running.wait();
        running
    }

    fn wait(&self) {
        let started = Instant::now();
        while std::net::TcpStream::connect(self.address).is_err() {
            assert!(started.elapsed() < START, "nobody listens on {}", self.address);
            std::thread::sleep(Duration::from_millis(100));
        }
        // It listens before it can answer.
        std::thread::sleep(Duration::from_secs(5));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.directory.iter().for_each(|directory| drop(fs::remove_dir_all(directory)));
    }
}

fn directory() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("tessera-load-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn output(mut command: Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn settings(directory: &Path, stub: SocketAddr, limits: &str) -> String {
    let directory = directory.display();
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\
         [ledger]\nurl = \"sqlite:{directory}/data/ledger.db\"\nkey_file = \"{directory}/keys/ledger.key\"\n\
         [limits]\nrequests_per_minute = 1000000000\ntokens_per_minute = 100000000000\n{limits}\n\
         [tenants.load]\nbudget = \"1000000.00\"\ntoken_budget = 1000000000000\n\
         [[upstreams]]\nname = \"stub\"\nurl = \"http://{stub}/v1\"\n\
         models = {{ stub = \"stub\", paced = \"paced\", slow = \"slow\" }}\n"
    );
    for model in ["stub", "paced", "slow"] {
        let _ = write!(text, "[prices.{model}]\ninput = \"0.15\"\noutput = \"0.60\"\n");
    }
    text
}

fn litellm(stub: SocketAddr) -> String {
    let mut text = String::from("model_list:\n");
    for model in ["stub", "paced"] {
        let _ = write!(
            text,
            "  - model_name: {model}\n    litellm_params:\n      model: openai/{model}\n      \
             api_base: http://{stub}/v1\n      api_key: none\n"
        );
    }
    text + "general_settings:\n  master_key: sk-load\n"
}
