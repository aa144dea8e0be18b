//! Rendered conversations against `transformers`.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value};
use text::{ChatTemplate, Error, Tokenizer, ToolFormat, Vocabulary};

use crate::{data, json};

/// A tokenizer of nothing but control tokens: those that the chats' users type, and the given bos and eos.
fn tokenizer(bos: Option<&str>, eos: Option<&str>) -> Tokenizer {
    let mut tokens: Vec<String> =
        ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<s>", "</s>", "[INST]"].map(String::from).into();
    let mut id = |token: Option<&str>| {
        tokens.push(token?.to_owned());
        Some(tokens.len() as u32 - 1)
    };
    // What transformers is given as an empty text, a tokenizer does not have.
    let (bos, eos) = (id(bos.filter(|text| !text.is_empty())), id(eos.filter(|text| !text.is_empty())));
    let types = vec![3; tokens.len()];
    let vocabulary = Vocabulary { kind: "gpt2".into(), tokens, types, bos, eos, ..Default::default() };
    Tokenizer::from_vocabulary(&vocabulary).unwrap()
}

fn list(chat: &Value, key: &str) -> Vec<Value> {
    chat.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn render(chat: &Value) -> Result<String, Error> {
    let text = |key: &str| chat.get(key).and_then(Value::as_str);
    let source = data(&format!("templates/{}", text("template").unwrap()));
    let template = ChatTemplate::new(&source, &tokenizer(text("bos"), text("eos"))).unwrap();
    let prompt = chat.get("prompt").and_then(Value::as_bool).unwrap_or(false);
    let args: Map<String, Value> = chat.get("args").and_then(Value::as_object).cloned().unwrap_or_default();
    let rendered = template.render(&list(chat, "messages"), &list(chat, "tools"), prompt, &args)?;
    Ok(rendered.text())
}

#[test]
fn chats_render_as_transformers_renders_them() {
    let (chats, golden) = (json("chats.json"), json("rendered.json"));
    let (chats, golden) = (chats.as_array().unwrap(), golden.as_array().unwrap());
    assert_eq!(chats.len(), golden.len());
    for (i, (chat, golden)) in chats.iter().zip(golden).enumerate() {
        let name = format!("chat {i} ({})", chat["template"]);
        match (render(chat), golden.get("text")) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected.as_str().unwrap(), "{name}"),
            (Ok(text), None) => panic!("{name}: should fail with {}, gave {text}", golden["error"]),
            (Err(error), Some(_)) => panic!("{name}: {error}"),
            // Jinja's own messages differ; those that a template raises do not.
            (Err(Error::Template(message)), None) if golden["raised"] == true => assert_eq!(message, golden["error"]),
            (Err(_), None) => {}
        }
    }
}

#[test]
fn the_date_comes_from_the_clock() {
    let source = "{% set now = strftime_now('%d %B %Y, %H:%M') %}Today: {{ now }}{{ strftime_now('%A') }}";
    let clock = || UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let template = ChatTemplate::with_clock(source, &tokenizer(None, None), clock).unwrap();
    assert_eq!(
        template.render(&[], &[], false, &Map::new()).unwrap().as_str(),
        "Today: 14 November 2023, 22:13Tuesday"
    );
}

#[test]
fn templates_tell_whether_and_how_they_lay_out_tools() {
    let check = |name: &str, supports, format| {
        let source = data(&format!("templates/{name}.jinja"));
        let template = ChatTemplate::new(&source, &tokenizer(Some("<s>"), Some("</s>"))).unwrap();
        assert_eq!((template.supports_tools(), ToolFormat::of(&template)), (supports, format), "{name}");
    };
    check("smollm2", false, None);
    check("qwen2.5", true, Some(ToolFormat::Tagged));
    check("thinking", true, Some(ToolFormat::Tagged));
    check("headers", true, Some(ToolFormat::Bare));
    check("instructions", true, None);
}
