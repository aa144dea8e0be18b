//! The learning loop to its end: what a server elsewhere is asked becomes a model that takes it over.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Done, SMOLLM2, Served, Tessera, ask, get, model, serve};

const COLOURS: [&str; 6] = ["red", "green", "blue", "white", "black", "yellow"];
const THINGS: [&str; 10] = ["kite", "boat", "house", "car", "hat", "door", "cup", "bag", "flag", "lamp"];
const DOINGS: [&str; 11] = [
    "was sold",
    "fell down",
    "hangs",
    "stood still",
    "got lost",
    "broke",
    "was found",
    "shines",
    "was left",
    "waited",
    "moved",
];
const PLACES: [&str; 13] = [
    "by the river",
    "in Bristol",
    "at noon",
    "near us",
    "last year",
    "in the rain",
    "on Monday",
    "at the gate",
    "in town",
    "before dawn",
    "over there",
    "in May",
    "on the hill",
];

/// A text in which a colour is named, each another one, and the colour.
fn text(n: usize) -> (String, &'static str) {
    let colour = COLOURS[(n * 7 + n / 6) % COLOURS.len()];
    let [thing, doing, place] = [THINGS[n % 10], DOINGS[n % 11], PLACES[n % 13]];
    (format!("Which colour? The {colour} {thing} {doing} {place}."), colour)
}

/// A large model elsewhere, which finds every colour.
fn large() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || answer(&mut BufReader::new(socket)));
        }
    });
    url
}

/// Answers one request, in the frames of a stream.
fn answer(socket: &mut BufReader<TcpStream>) -> Option<()> {
    let mut length = 0;
    for line in socket.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    let asked = body["messages"].as_array()?.last()?["content"].as_str()?;
    let colour = COLOURS.into_iter().find(|colour| asked.contains(&format!(" {colour} ")))?;
    let chunk = |delta: Value, end: Value| json!({ "id": "c", "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": [{ "index": 0, "delta": delta, "finish_reason": end }] });
    let usage = json!({ "id": "c", "object": "chat.completion.chunk", "created": 0, "model": "x", "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22 } });
    let chunks =
        [chunk(json!({ "role": "assistant", "content": colour }), Value::Null), chunk(json!({}), json!("stop")), usage];
    let frames: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    write!(socket.get_mut(), "{head}{frames}data: [DONE]\n\n").ok()
}

/// Callers, each of whom asks once.
struct Callers<'a>(&'a Served, AtomicUsize);

impl Callers<'_> {
    /// Whether the answer is right.
    fn ask(&self) -> bool {
        let n = self.1.fetch_add(1, Ordering::Relaxed);
        let (text, colour) = text(n);
        let message = json!({ "role": "user", "content": text });
        let body = json!({
            "model": "assistant", "messages": [message], "max_tokens": 8, "temperature": 0,
            "user": format!("caller {n}"), "metadata": { "train": "yes" },
        });
        let answer = ask(self.0, "POST /v1/chat/completions", &body.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).trim() == colour
    }

    fn right_of(&self, n: usize) -> usize {
        (0..n).filter(|_| self.ask()).count()
    }
}

/// Runs a lap while callers go on.
fn lap(tessera: &Tessera, args: &[&str], callers: &Callers<'_>) -> Value {
    let mut child = tessera.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = child.stderr.take().unwrap();
    let said = thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).map(|_| text)
    });
    while child.try_wait().unwrap().is_none() {
        callers.right_of(10);
        thread::sleep(Duration::from_millis(100));
    }
    let mut output = child.wait_with_output().unwrap();
    output.stderr = said.join().unwrap().unwrap().into_bytes();
    Done::of(args, &output).ok().json()
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn slow_a_loop_ends_with_a_student_that_took_over() {
    let tessera = Tessera::new();
    let settings = tessera.cache.join("tessera.toml");
    let (path, url, base) = (settings.display().to_string(), large(), model(SMOLLM2));
    let text = format!(
        "[models]\nchat = [\"{base}\"]\n\n[[upstreams]]\nname = \"big\"\nurl = \"{url}\"\nmodels = {{ large = \"x\" }}\n\n\
         [prices.large]\ninput = \"0.15\"\noutput = \"0.60\"\n\n\
         [[rollouts]]\nmodel = \"assistant\"\nversions = {{ large = 100 }}\nsteps = [50, 100]\nhold = \"1s\"\nhold_requests = 50\n\
         tolerated_failures = 0.1\ntolerated_wait = \"5s\"\n\n\
         [[loops]]\nname = \"colours\"\nrollout = \"assistant\"\nteacher = \"large\"\nbase = \"{base}\"\nepochs = 1.0\n\
         student_layers = 4\nstudent_width = 192\nstudent_ffn = 256\nstudent_kv_heads = 1\nstudent_epochs = 40.0\nleast = 100\nrisk = 0.1\nkept = 0.9\n"
    );
    fs::write(&settings, text).unwrap();
    let server = serve(&tessera, &["serve", "-c", &path, "-l", "127.0.0.1:0"]);
    let callers = Callers(&server, AtomicUsize::new(0));
    assert_eq!(callers.right_of(160), 160, "the large model alone");

    let lap = lap(&tessera, &["loop", "run", "colours", "-c", &path, "--url", &server.1, "--json"], &callers);
    assert_eq!(lap["end"]["outcome"], "promoted", "{lap}");
    let steps = &lap["steps"];
    assert!(
        steps["data"]["train"].as_u64() > Some(100) && steps["distil"]["measured"]["speedup"].as_f64() > Some(2.0),
        "{lap}"
    );
    assert!(steps["evaluate"]["measured"]["student"]["accuracy"]["value"].as_f64() > Some(0.8), "{lap}");

    let since = &lap["report"]["since"];
    assert!(since["by_student"].as_u64() > Some(30), "{lap}");
    let worked = &since["work"]["student"];
    assert!(
        worked["told"] == worked["answers"] && worked["seconds"].as_f64() > Some(0.0),
        "a student tells what it took: {lap}"
    );
    assert!(lap["report"]["saved"].as_u64() > Some(0) && lap["report"]["saved_processor_seconds"].is_null(), "{lap}");

    let text = fs::read_to_string(&settings).unwrap();
    assert!(
        text.contains("students = [\"colours-1-student\"]") && text.contains("versions = { colours-1 = 100 }"),
        "{text}"
    );
    assert!(get(&server, "/v1/models").contains("\"colours-1-student\""));
    assert!(callers.right_of(50) > 40, "behind the loop");
    let shown = tessera.run(&["loop", "show", "colours", "-c", &path]).ok().out;
    assert!(shown.contains("promoted"), "{shown}");
}
