//! Data sets as their users meet them: made, shown, compared, followed, learned from.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{SMOLLM2, Tessera, ask, model, rooms, serve};

impl Tessera {
    /// A file in this place.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.cache.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn data(&self, args: &[&str]) -> Value {
        self.run(&[&["data"][..], args, &["--json"]].concat()).json()
    }

    /// A file of a set, by its manifest.
    fn rows(&self, set: &Value, file: &str) -> Vec<Value> {
        let folder = format!("data/tessera/data/{}/{}", set["name"].as_str().unwrap(), &digest(set)[..12]);
        let text = fs::read_to_string(self.cache.join(folder).join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn digest(set: &Value) -> &str {
    set["digest"].as_str().unwrap()
}

/// Questions about capitals, with a line that is none, one twice, and one that names somebody.
const PAIRS: &str = r#"{"prompt": "Capital of France?", "completion": "Paris", "place": "Europe"}
{"prompt": "Capital of Japan?", "completion": "Tokyo", "place": "Asia"}
{"prompt": "Capital of Kenya?", "completion": "Nairobi", "place": "Africa"}
{"prompt": "Whom to write to?", "completion": "ada@example.org", "place": "Europe"}
{"prompt": "Capital of Japan?", "completion": "Tokyo", "place": "Asia"}
{"prompt": "Capital of Peru?"}
"#;
const TABLE: &str = "q,a,place\nCapital of Chile?,Santiago,America\nCapital of Cuba?,Havana,America\n";

/// Builds a set of capitals, split by their continents.
fn capitals(tessera: &Tessera, name: &str, from: &str) -> Value {
    let usual = ["build", name, "--group", "place", "--licence", "CC0-1.0", "--held-out", "0.3", "--from", from];
    tessera.data(&usual)
}

#[test]
fn a_set_is_made_and_shown() {
    let tessera = Tessera::new();
    let set = capitals(&tessera, "capitals", &tessera.file("pairs.jsonl", PAIRS));
    assert_eq!(set["dropped"], json!({"duplicate": 1, "validation": 1}), "{set}");
    assert_eq!((set["masked"]["email"].as_u64(), set["sources"][0]["licence"].as_str()), (Some(1), Some("CC0-1.0")));
    let sides = ["train.jsonl", "held.jsonl"].map(|file| tessera.rows(&set, file));
    assert_eq!(sides.iter().map(Vec::len).sum::<usize>(), 4);
    assert!(sides[0].iter().all(|row| !sides[1].iter().any(|other| other["group"] == row["group"])));
    assert!(!format!("{sides:?}").contains("ada@"));
    let dropped = tessera.rows(&set, "dropped.jsonl");
    let told = |row: &&Value| row["at"] == "line 6" && row["reason"].as_str().unwrap().contains("missing");
    assert_eq!(dropped.iter().filter(told).count(), 1, "{dropped:?}");
    assert!(tessera.run(&["data", "show"]).ok().out.contains(&digest(&set)[..12]));
    assert!(tessera.run(&["data", "show", "capitals"]).ok().out.contains("CC0-1.0"));
}

/// Neither the machine nor names decide about a digest, and the order of lines only as far as it makes another file.
#[test]
fn the_same_input_has_the_same_digest() {
    let (here, elsewhere) = (Tessera::new(), Tessera::new());
    let first = capitals(&here, "capitals", &here.file("pairs.jsonl", PAIRS));
    let same = capitals(&elsewhere, "c", &elsewhere.file("other.jsonl", PAIRS));
    assert_eq!(digest(&same), digest(&first));
    let lines: Vec<&str> = PAIRS.lines().rev().collect();
    let turned = capitals(&elsewhere, "c", &elsewhere.file("turned.jsonl", &lines.join("\n")));
    assert_eq!(turned["sha256"], first["sha256"], "the same rows in the same halves");
    assert_ne!(digest(&turned), digest(&first), "of another file");
    let table = elsewhere.file("other.csv", TABLE);
    let set = elsewhere.data(&["build", "t", "--from", &table, "--prompt-column", "q", "--completion-column", "a"]);
    assert_eq!((set["train"].as_u64(), set["held"].as_u64()), (Some(1), Some(1)), "one of two groups is held out");
}

#[test]
fn sets_are_compared_and_followed() {
    let tessera = Tessera::new();
    let first = capitals(&tessera, "capitals", &tessera.file("pairs.jsonl", PAIRS));
    let changed = PAIRS.replace("Nairobi", "Mombasa").replace("Capital of France", "Where is France");
    capitals(&tessera, "capitals", &tessera.file("more.jsonl", &changed));
    let old = format!("capitals@{}", &digest(&first)[..8]);
    let found = tessera.data(&["diff", &old, "capitals"]);
    assert_eq!(
        [&found["added"], &found["removed"], &found["changed"]].map(Value::as_u64),
        [Some(1), Some(1), Some(1)],
        "{found}"
    );
    assert!(tessera.run(&["data", "diff", &old, "capitals"]).ok().out.contains("Mombasa"));
    let child = capitals(&tessera, "children", &old);
    let [before, after] = [&first, &child].map(|set| tessera.rows(set, "held.jsonl"));
    assert_eq!(before, after, "what was held out is held out in the sets made of it");
    let lineage = tessera.data(&["lineage", "children"]);
    let parent = &lineage["sources"][0];
    assert_eq!(parent["ancestry"]["digest"], first["digest"], "{lineage}");
    assert!(parent["ancestry"]["sources"][0]["name"].as_str().unwrap().ends_with("pairs.jsonl"));
    assert_eq!(tessera.data(&["lineage", &old])["sets"].as_array().unwrap().len(), 1);
}

#[test]
fn mistakes_with_sets_name_the_next_step() {
    let tessera = Tessera::new();
    let pairs = tessera.file("pairs.jsonl", PAIRS);
    let check = |args: &[&str], part: &str| {
        let done = tessera.run(&[&["data"][..], args].concat());
        assert!(done.code != Some(0) && done.err.contains(part), "{args:?}: {}", done.err);
    };
    check(&["build", "a"], "nothing to read: name --from");
    check(&["build", "../a", "--from", &pairs], "a set's name has letters");
    check(&["build", "a", "--from", "absent.jsonl"], "there is no data set absent.jsonl");
    check(&["build", "a", "--from", &pairs, "--language", "english"], "such as eng or cmn");
    check(&["build", "a", "--from", &pairs, "--held-out", "1"], "--held-out is a share");
    check(&["build", "a", "--from", &pairs, "--near", "0.2"], "--near is 0.5 to 1");
    check(&["build", "a", "--from-ledger", "--personal", "keep"], "masked or dropped, never kept");
    check(&["show", "absent"], "there is no data set absent");
    check(&["show", "a/b"], "names no data set");
    let done = tessera.run(&["train", "lora", "--data", "absent", "--name", "a"]);
    assert!(done.code == Some(1), "{}", done.err);
}

#[test]
fn documents_become_pieces() {
    let tessera = Tessera::new();
    let words =
        "Every tenant may end the contract with a notice of three months, counted from the end of the running quarter.";
    tessera
        .file("docs/notice.md", &format!("# Notice\n\n{words}\n\n# Fees\n\n{}\n", words.replace("notice", "payment")));
    tessera.file("docs/more/page.html", &format!("<h1>Form</h1><p>{}</p>", words.replace("tenant", "landlord")));
    tessera.file("docs/ignored.bin", words);
    let folder = tessera.cache.join("docs").display().to_string();
    let set = tessera.data(&["build", "contract", "--from-documents", &folder, "--skip", "near", "--held-out", "0"]);
    assert_eq!((set["train"].as_u64(), set["sources"][0]["kind"].as_str()), (Some(3), Some("documents")), "{set}");
    let rows = tessera.rows(&set, "train.jsonl");
    assert!(
        rows.iter()
            .any(|row| row["group"] == "notice.md, Fees, line 7"
                && row["text"].as_str().unwrap().starts_with("Fees\n\n")),
        "{rows:?}"
    );
}

/// What a model was asked and answered becomes rows where consent was given, as feedback says it should have been answered.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn traffic_becomes_a_set_by_consent() {
    let tessera = Tessera::new();
    let path = model(SMOLLM2);
    let server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &path]);
    let say = |question: &str, metadata: Value| {
        let messages = json!([{"role": "user", "content": question}]);
        let body = json!({"model": SMOLLM2.trim_end_matches(".gguf"), "messages": messages, "max_tokens": 12, "temperature": 0, "metadata": metadata});
        let reply: Value = serde_json::from_str(&ask(&server, "POST /v1/chat/completions", &body.to_string())).unwrap();
        let answer = reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        (reply["id"].as_str().unwrap().to_owned(), answer)
    };
    let tell = |feedback: Value| ask(&server, "POST /v1/feedback", &feedback.to_string());
    let (_, answer) = say("My mail is ada@example.org. Say hello.", json!({"train": "yes"}));
    say("This is between us.", json!({}));
    say("And so is this.", json!({"train": "no"}));
    let (corrected, _) = say("Name a colour.", json!({"train": "yes"}));
    tell(json!({"request_id": corrected, "rating": "down", "correction": "Ultramarine."}));
    let (bad, _) = say("Name a fruit.", json!({"train": "yes"}));
    tell(json!({"request_id": bad, "rating": "down"}));
    let set = tessera.data(&["build", "traffic", "--from-ledger", "--held-out", "0"]);
    assert_eq!((set["train"].as_u64(), &set["dropped"]), (Some(2), &json!({"consent": 2, "validation": 1})), "{set}");
    let text = format!("{:?}", tessera.rows(&set, "train.jsonl"));
    assert!(text.contains("My mail is [email].") && !text.contains("ada@") && !text.contains("between us"), "{text}");
    assert!(
        tessera.rows(&set, "train.jsonl").iter().any(|row| row["messages"][1]["content"] == answer.as_str()),
        "{answer}"
    );
    assert!(text.contains("Ultramarine.") && !text.contains("fruit"), "{text}");
    let answered = |model: &str| tessera.run(&["data", "build", "by", "--from-ledger", "--answered-by", model]);
    answered(SMOLLM2.trim_end_matches(".gguf")).ok();
    assert!(answered("another").err.contains("no row is left"));
    let none = tessera.run(&["data", "build", "later", "--from-ledger", "--since", "2099-01-01"]);
    assert!(none.code == Some(1) && none.err.contains("no row is left"), "{}", none.err);
}

/// Questions that a model asks about a text and answers in its words; they are not asked twice.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_model_asks_about_documents() {
    let tessera = Tessera::new();
    let path = model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    let fees = "The fee for a late payment is five per cent of the rent. It is due ten days after the first reminder was sent to the tenant.";
    let keys = "Every tenant receives two keys. A lost key must be reported to the office within three days, and costs forty euros.";
    tessera.file("docs/fees.txt", fees);
    tessera.file("docs/keys.txt", keys);
    let folder = tessera.cache.join("docs").display().to_string();
    let args = ["build", "rent", "--from-documents", &folder, "--questions", "2", "--model", &path, "--held-out", "0"];
    let set = tessera.data(&args);
    let rows = tessera.rows(&set, "train.jsonl");
    assert!(!rows.is_empty(), "{set}");
    for row in &rows {
        let answer = row["messages"][1]["content"].as_str().unwrap().to_lowercase();
        assert!((fees.to_owned() + " " + keys).to_lowercase().contains(&answer), "{row}");
    }
    let kept = tessera.cache.join("data/tessera/data/rent/questions.jsonl");
    let asked = fs::read_to_string(&kept).unwrap();
    assert_eq!(digest(&tessera.data(&args)), digest(&set));
    assert_eq!(fs::read_to_string(&kept).unwrap(), asked, "nothing is asked twice");
}

/// A set is learned by its name, and the adapter or model says from which; the model answers.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn adapters_and_models_name_the_set_they_learned() {
    let tessera = Tessera::new();
    let (rooms, path) = (tessera.file("rooms.jsonl", &rooms().0), model(SMOLLM2));
    let set = tessera.data(&["build", "rooms", "--from", &rooms, "--held-out", "0.2", "--skip", "near"]);
    let learn = [
        "train", "lora", "--data", "rooms", "--model", &path, "--name", "rooms", "--epochs", "1", "--batch", "4",
        "--json",
    ];
    let learned = tessera.run(&learn).json();
    assert_eq!((&learned["documents"], &learned["held_out"]), (&set["train"], &set["held"]), "{learned}");
    let all = [
        "train",
        "full",
        "--data",
        "rooms",
        "--model",
        &path,
        "--name",
        "rooms",
        "--epochs",
        "1",
        "--rate",
        "1e-3",
        "--batch",
        "4",
        "--rows",
        "256",
        "--precision",
        "f16",
        "--json",
    ];
    let model = tessera.run(&all).json();
    assert_eq!((&model["documents"], &model["held_out"]), (&set["train"], &set["held"]), "{model}");
    let metrics = fs::read_to_string(tessera.cache.join("data/tessera/runs/rooms/metrics.jsonl")).unwrap();
    assert!(metrics.contains("\"loss_scale\":65536.0"), "{metrics}");
    assert!(model["held_out_loss"].as_f64() < model["held_out_loss_before"].as_f64(), "{model}");
    let folder = model["folder"].as_str().unwrap();
    let written = fs::read(Path::new(folder).join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(written[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8_lossy(&written[8..header]).into_owned();
    assert!(header.contains("\"F16\"") && !header.contains("BF16"), "{header}");
    tessera.run(&["generate", "--model", folder, "--max-tokens", "4", "Where is room 1?"]).ok();
    let lineage = tessera.data(&["lineage", "rooms"]);
    assert!(lineage["adapters"][0].as_str().unwrap().ends_with("adapters/rooms.safetensors"), "{lineage}");
    assert_eq!(lineage["models"], json!([folder]), "{lineage}");
}
