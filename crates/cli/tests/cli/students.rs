//! Students as their users meet them: distilled, asked, served, leaving early.

use std::{fs, path::Path};

use serde_json::Value;

use super::{SMOLLM2, Tessera, answered, get, model, rooms, serve, stopped, until};

/// From a file of chats, some without an answer, to a student that is loaded and answers; a run that was interrupted ends with the same weights.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_student_is_made_and_asked() {
    let tessera = Tessera::new();
    let (mut text, pairs) = rooms();
    text.push_str("{\"messages\": [{\"role\": \"user\", \"content\": \"Say yes.\"}]}\n");
    let (data, held_out, model) = (tessera.cache.join("rooms.jsonl"), tessera.cache.join("held.jsonl"), model(SMOLLM2));
    fs::write(&data, text).unwrap();
    fs::write(&held_out, rooms().0).unwrap();
    let (data, held_out) = (data.to_str().unwrap(), held_out.to_str().unwrap());
    let distil = |name: &'static str| {
        ["distill", "--data", data, "--held-out", held_out, "--model", &model, "--name", name, "--json"]
            .into_iter()
            .chain(["--layers", "4", "--kv-heads", "1", "--ffn", "256", "--width", "192", "--tokens", "0"])
            .chain(["--epochs", "120", "--batch", "4", "--rate", "3e-3", "--max-tokens", "20", "--share", "0.1"])
            .chain(["--own", "0.5", "--rounds", "5"])
            .collect::<Vec<_>>()
    };
    let whole = tessera.run(&distil("whole")).json();
    assert_eq!((whole["documents"].as_u64(), whole["answered_by_teacher"].as_u64()), (Some(13), Some(1)), "{whole}");
    let [teacher, student] =
        ["teacher", "student"].map(|side| whole["measured"][side]["exact"]["value"].as_f64().unwrap());
    assert!(teacher < 0.1 && student > 0.9, "it has learned what its teacher does not know: {whole}");
    assert!(whole["bytes"].as_u64() < Some(8_000_000), "{whole}");
    stopped(&tessera, &distil("cut"), "cut/round-0/metrics.jsonl");
    stopped(&tessera, &distil("cut"), "cut/round-1/metrics.jsonl");
    // As if it had been killed while the student wrote: what is missing is written again as it was, or the checkpoint would be of another run.
    let own = tessera.cache.join("data/tessera/runs/cut/own-1.jsonl");
    let written = fs::read_to_string(&own).unwrap();
    assert_eq!(written.lines().count(), 7, "half of the documents: {written}");
    fs::write(&own, &written[..written.len() / 2]).unwrap();
    let resumed = tessera.run(&distil("cut")).ok();
    assert!(resumed.err.contains("Going on behind step"), "{}", resumed.err);
    let folder = |name: &str| tessera.cache.join(format!("data/tessera/students/{name}"));
    let file = |name: &str| fs::read(folder(name).join("model.safetensors")).unwrap();
    assert!(file("whole") == file("cut"), "the same bits");
    let student = folder("whole").display().to_string();
    let (question, answer) = &pairs[4];
    let asked = tessera.run(&["generate", "--model", &student, "--temperature", "0", "--max-tokens", "20", question]);
    assert_eq!(asked.ok().out.trim(), answer);
    // Nothing of this was in the documents.
    tessera.run(&["generate", "--model", &student, "--temperature", "0", "--max-tokens", "5", "žluť 漢字"]).ok();
    served_while_it_runs(&tessera, "whole", (question.as_str(), answer.as_str()));
    let wrong =
        ["distill", "--data", data, "--model", &model, "--held-out", held_out, "--name", "wrong", "--kv-heads", "4"];
    let wrong = tessera.run(&wrong);
    assert!(wrong.code == Some(1) && wrong.err.contains("the teacher has 3"), "{}", wrong.err);
}

/// A student comes, is renewed, and goes with the settings of a server that runs.
fn served_while_it_runs(tessera: &Tessera, student: &str, (question, answer): (&str, &str)) {
    let settings = tessera.cache.join("students.toml");
    let write = |students: &str, limit: u32| {
        let text = format!("[models]\nstudents = [{students}]\n[limits]\nrequests_per_minute = {limit}\n");
        fs::write(&settings, text).unwrap();
    };
    write("", 1000);
    let base = model(SMOLLM2);
    let server = serve(tessera, &["serve", "-c", settings.to_str().unwrap(), "-l", "127.0.0.1:0", "--model", &base]);
    let named = format!("\"{student}\"");
    write(&named, 1000);
    until(&server, "/v1/models", &named);
    assert_eq!(answered(&server, student, question), answer);
    // Made anew under its name, here with another context: the next change of the settings finds it.
    let folder = tessera.cache.join("data/tessera/students").join(student);
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut shorter: Value = serde_json::from_str(&config).unwrap();
    shorter["max_position_embeddings"] = 77.into();
    fs::write(folder.join("config.json"), shorter.to_string()).unwrap();
    write(&named, 1001);
    until(&server, "/v1/models", "\"context_length\":77");
    assert_eq!(answered(&server, student, question), answer);
    // Broken, it stays as it was and is in nobody's way; a name that was never there is.
    fs::write(folder.join("config.json"), "{").unwrap();
    write(&named, 1002);
    until(&server, "/metrics", "tessera_config_reloads_total{result=\"applied\"} 3");
    assert_eq!(answered(&server, student, question), answer);
    write(&format!("{named}, \"nobody\""), 1002);
    until(&server, "/metrics", "tessera_config_last_reload_ok 0");
    assert_eq!(answered(&server, student, question), answer, "what was good stays");
    write("", 1002);
    until(&server, "/metrics", "tessera_config_last_reload_ok 1");
    assert!(!get(&server, "/v1/models").contains(&named));
}

/// A student with an exit, made and served: tokens leave early, the answers are right, and what is skipped is counted.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_student_leaves_early_where_it_is_sure() {
    let tessera = Tessera::new();
    let (text, pairs) = rooms();
    let (data, held_out, model) = (tessera.cache.join("rooms.jsonl"), tessera.cache.join("held.jsonl"), model(SMOLLM2));
    fs::write(&data, &text).unwrap();
    // A threshold takes more tokens than twelve answers have.
    fs::write(&held_out, text.repeat(12)).unwrap();
    let (data, held_out) = (data.to_str().unwrap(), held_out.to_str().unwrap());
    let distil = |name, exits| {
        ["distill", "--data", data, "--held-out", held_out, "--model", &model, "--name", name, "--json"]
            .into_iter()
            .chain(["--layers", "4", "--kv-heads", "1", "--ffn", "256", "--width", "192", "--tokens", "0"])
            .chain(["--epochs", "160", "--batch", "4", "--rate", "3e-3", "--max-tokens", "20", "--share", "0"])
            .chain(["--exits", exits])
            .collect::<Vec<_>>()
    };
    for (exits, want) in [("4", "stand behind 1 to 3"), ("0", "stand behind 1 to 3"), ("2,1", "must ascend")] {
        let refused = tessera.run(&distil("none", exits));
        assert!(refused.code == Some(1) && refused.err.contains(want), "{}", refused.err);
    }
    let made = tessera.run(&distil("early", "2")).json();
    let exit = &made["exits"][0];
    assert!(exit["after"] == 2 && exit["threshold"].is_number(), "{made}");
    let (left, wrong) = (exit["left"].as_u64().unwrap(), exit["wrong"].as_u64().unwrap());
    assert!(left > 528 && wrong * 100 < left, "{made}");
    let written = &made["written"];
    assert!(written["answers"] == 144 && written["tokens"].as_u64().unwrap() > 537, "{made}");
    assert!(written["changed"].as_u64().unwrap() < 5, "{made}");
    let measured = &made["measured"];
    assert!(measured["student"]["exact"]["value"].as_f64().unwrap() > 0.9, "{made}");
    let run = measured["layers_run"].as_f64().unwrap();
    assert!((0.5..0.95).contains(&run), "half of the layers of most tokens: {made}");

    let student = tessera.cache.join("data/tessera/students/early").display().to_string();
    let config = fs::read_to_string(Path::new(&student).join("config.json")).unwrap();
    assert!(config.contains("\"exits\""), "{config}");
    let server = serve(&tessera, &["serve", "-l", "127.0.0.1:0", "--model", &student]);
    let (question, answer) = &pairs[4];
    assert_eq!(answered(&server, "early", question), *answer);
    let metrics = get(&server, "/metrics");
    let skipped = metrics.lines().find(|line| line.starts_with("tessera_skipped_layers_total")).unwrap();
    assert!(skipped.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{skipped}");
}

/// All layers of a teacher with an adapter, hardly taught: the student knows what only the adapter can have told it.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_student_is_cut_from_its_teacher_with_the_adapter() {
    let tessera = Tessera::new();
    let (data, model) = (tessera.cache.join("rooms.jsonl").display().to_string(), model(SMOLLM2));
    fs::write(&data, rooms().0).unwrap();
    let common = ["--data", &data, "--held-out", &data];
    let learn = ["train", "lora", "--model", &model, "--name", "rooms", "--epochs", "16", "--batch", "4"];
    tessera.run(&[&learn[..], &common, &["--rate", "3e-3", "--budget", "0"]].concat()).ok();
    let teacher = format!("{model}:rooms");
    let distil = ["distill", "--model", &teacher, "--name", "cut", "--layers", "30", "--epochs", "1", "--rounds", "1"];
    let made =
        tessera.run(&[&distil[..], &common, &["--rate", "1e-6", "--max-tokens", "12", "--json"]].concat()).json();
    let right = |side: &str| made["measured"][side]["exact"]["value"].as_f64().unwrap_or_else(|| panic!("{made}"));
    assert!(right("teacher") > 0.8 && right("student") > 0.8, "{made}");
}
