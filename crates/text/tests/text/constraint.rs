//! Constraints on real vocabularies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use text::{Constraint, Grammars, Next, Tokenizer, Tool, ToolChoice, ToolFormat, tool_grammar};

use crate::gguf;
use crate::tokenizer::{GEMMA3, QWEN, SMOLLM2, timed};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "email": {"type": "string", "format": "email"},
            "kind": {"enum": ["person", "robot"]},
            "scores": {"type": "array", "items": {"type": "number"}, "minItems": 1}
        },
        "required": ["name", "age", "email", "kind", "scores"],
        "additionalProperties": false
    })
}

const ANSWER: &str =
    r#"{"name": "Zoë 王", "age": 33, "email": "zoe@example.org", "kind": "person", "scores": [1, 2.5, -3e4]}"#;

/// Follows the grammar through a text, taking the longest token it allows; returns how many tokens were forced.
fn follow(tokenizer: &Tokenizer, grammars: &Grammars, constraint: &Constraint, answer: &str) -> usize {
    let mut matcher = grammars.compile(constraint).unwrap();
    let mut ids: Vec<u32> = Vec::new();
    let mut forced = 0;
    loop {
        let rest = &answer.as_bytes()[ids.iter().map(|id| tokenizer.bytes(*id).len()).sum::<usize>()..];
        let next = match matcher.next().unwrap() {
            Next::End => break,
            Next::Forced(next) => {
                forced += next.len();
                next
            }
            Next::Mask(mask) => {
                assert_eq!(mask.len(), tokenizer.len().div_ceil(32));
                let allowed = |id: &u32| mask[*id as usize / 32] >> (id % 32) & 1 == 1;
                if rest.is_empty() {
                    assert!(tokenizer.ends().iter().all(allowed) && matcher.is_accepting());
                    break;
                }
                let fits = |id: &u32| !tokenizer.bytes(*id).is_empty() && rest.starts_with(tokenizer.bytes(*id));
                let next = (0..tokenizer.len() as u32).filter(allowed).filter(fits);
                let next = next.max_by_key(|id| tokenizer.bytes(*id).len());
                let next = next.unwrap_or_else(|| panic!("nothing allowed before {:?}", String::from_utf8_lossy(rest)));
                vec![next]
            }
        };
        next.iter().for_each(|id| matcher.commit(*id).unwrap());
        ids.extend(next);
    }
    assert_eq!(tokenizer.decode(&ids), answer);
    forced
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn answers_follow_their_grammar_on_every_vocabulary() {
    for name in [SMOLLM2, GEMMA3, QWEN, "tinycoder.gguf"] {
        let tokenizer = Arc::new(gguf::tokenizer(name));
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let forced = follow(&tokenizer, &grammars, &Constraint::JsonSchema(schema()), ANSWER);
        assert!(forced >= 12, "{name}: only {forced} tokens were forced");
        follow(&tokenizer, &grammars, &Constraint::JsonObject, "{\"a\": [1, {}, \"x\"]}");
        follow(&tokenizer, &grammars, &Constraint::Regex("[a-z]+ [0-9]{3}".into()), "answer 042");
    }
}

/// Prints what constraints cost: `cargo test -p text --release --test text -- --ignored --nocapture cost`.
#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn cost_of_constraints() {
    let tool = Tool { name: "weather".into(), description: None, parameters: Some(schema()) };
    let auto = tool_grammar(ToolFormat::Tagged, &[tool], &ToolChoice::Auto, true).unwrap();
    for name in [SMOLLM2, GEMMA3] {
        let tokenizer = Arc::new(gguf::tokenizer(name));
        let grammars = Grammars::new(Arc::clone(&tokenizer));
        let before = resident();
        let (_, build) = timed(|| grammars.compile(&Constraint::Regex("a".into())).unwrap());
        let grown = resident() - before;
        println!("{name}: trie {:.0} ms, {grown} MB", build * 1e3);
        let prose =
            "The weather in Paris is fine, and so it goes on for a while.\n\nThat is all there is to say. ".repeat(9);
        let object = format!("{{\"text\": {}}}", Value::from(prose.as_str()));
        for (kind, constraint, answer) in [
            ("schema", Constraint::JsonSchema(schema()), ANSWER),
            ("object", Constraint::JsonObject, &object),
            ("tools, auto", auto.clone(), &prose),
        ] {
            let ids = tokenizer.encode(answer);
            // The quickest of several walks: others use the machine too.
            let walks = (0..5).map(|_| walk(&grammars, &constraint, &ids));
            let best = walks.min_by_key(|(_, total)| *total).unwrap();
            println!("  {kind}: compiled in {:?}, {:?} a token", best.0, best.1 / ids.len() as u32);
        }
    }
}

/// How long compiling took, and all masks along a text.
#[expect(clippy::disallowed_methods, reason = "a measurement of real time")]
fn walk(grammars: &Grammars, constraint: &Constraint, ids: &[u32]) -> (Duration, Duration) {
    let start = Instant::now();
    let mut matcher = grammars.compile(constraint).unwrap();
    let compiled = start.elapsed();
    for id in ids {
        matcher.next().unwrap();
        matcher.commit(*id).unwrap();
    }
    (compiled, start.elapsed() - compiled)
}

/// Megabytes this process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096 / 1_000_000
}
