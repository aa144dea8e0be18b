//! Answers with and without calls, cut anywhere; grammars by which answers they let through.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{Error, Grammars, Tokenizer, Vocabulary};

fn tools() -> Vec<Tool> {
    let schema = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
        "additionalProperties": false
    });
    let weather = Tool { name: "weather".into(), description: Some("of a city".into()), parameters: Some(schema) };
    let now = Tool { name: "now".into(), description: None, parameters: None };
    vec![weather, now]
}

/// Text as it is, calls as `[index name]`, arguments as `(index text)`; neighbouring ones joined.
fn show(events: &[ToolEvent]) -> String {
    let show = |event: &ToolEvent| match event {
        ToolEvent::Text(text) => text.clone(),
        ToolEvent::Call { index, name } => format!("[{index} {name}]"),
        ToolEvent::Arguments { index, text } => format!("({index} {text})"),
    };
    let joined = |text: String, index| text.replace(&format!(")({index} "), "");
    (0..3).fold(events.iter().map(show).collect(), joined)
}

fn parse(parser: &ToolParser, pieces: &[&str]) -> String {
    let mut parser = parser.clone();
    let mut events: Vec<ToolEvent> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    show(&events)
}

const TAGGED: &[(&str, &str)] = &[
    ("", ""),
    ("Just text.\n", "Just text.\n"),
    ("a <tool b < c", "a <tool b < c"),
    ("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", "[0 now](0 {})"),
    (
        "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln }\\\"\"}}\n</tool_call>\n",
        "Let me see.[0 weather](0 {\"city\":\"Köln }\\\"\"})",
    ),
    (
        "<tool_call>{\"name\":\"now\"}</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": \"{\\\"a\\\": [1]}\"}\n</tool_call>\n\nDone.",
        "[0 now](0 {})[1 now](1 {\"a\":[1]})Done.",
    ),
    // Forgiven: no closing tag.
    ("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}", "[0 now](0 {})"),
    (
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}",
        "[0 now](0 {})[1 now](1 {})",
    ),
    // Not calls.
    ("<tool_call>\n{\"name\": \"now\", \"argu", "<tool_call>\n{\"name\": \"now\", \"argu"),
    ("<tool_call>\n{name: now}\n</tool_call>", "<tool_call>\n{name: now}\n</tool_call>"),
    (
        "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
    ),
    (
        "<tool_call>\n{\"name\": \"now\", \"arguments\": 7}\n</tool_call>",
        "<tool_call>\n{\"name\": \"now\", \"arguments\": 7}\n</tool_call>",
    ),
    ("the tag <tool_call> means", "the tag <tool_call> means"),
    (
        "<tool_call>now()</tool_call> <tool_call>\n{\"name\": \"now\"}\n</tool_call>",
        "<tool_call>now()</tool_call>[0 now](0 {})",
    ),
];

const BARE: &[(&str, &str)] = &[
    ("", ""),
    ("{\"name\": \"now\", \"parameters\": {}}", "[0 now](0 {})"),
    ("<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"city\": \"x\"}}", "[0 weather](0 {\"city\":\"x\"})"),
    (
        "\n{\"name\": \"now\", \"arguments\": {}}; {\"name\": \"now\", \"parameters\": {\"a\": 1}}\n",
        "[0 now](0 {})[1 now](1 {\"a\":1})",
    ),
    ("{\"city\": \"x\"} is an object", "{\"city\": \"x\"} is an object"),
    ("Text {\"name\": \"now\", \"parameters\": {}}", "Text {\"name\": \"now\", \"parameters\": {}}"),
    ("{\"name\": \"now\", ", "{\"name\": \"now\", "),
    ("<|python", "<|python"),
];

/// What a grammar lets through, whole and cut: arguments in the model's own layout, an unfinished call as far as it came.
const TAGGED_UNDER_GRAMMAR: &[(&str, &str)] = &[
    ("so <tool b", "so <tool b"),
    (
        "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Köln }\\\"\", \"days\": 2}}\n</tool_call>",
        "Let me see.[0 weather](0 {\"city\": \"Köln }\\\"\", \"days\": 2})",
    ),
    (
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "[0 now](0 {})[1 now](1 {})",
    ),
    ("<tool_call>\n{\"name\": \"weath", "<tool_call>\n{\"name\": \"weath"),
    ("<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"K", "[0 weather](0 {\"city\": \"K)"),
    ("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool", "[0 now](0 {})"),
];

const BARE_UNDER_GRAMMAR: &[(&str, &str)] = &[
    ("{\"name\": \"weather\", \"parameters\": {\"city\": \"x\"}}", "[0 weather](0 {\"city\": \"x\"})"),
    ("{\"name\": \"weather\", \"parameters\": {\"ci", "[0 weather](0 {\"ci)"),
];

#[test]
fn calls_are_taken_out_of_answers() {
    let [tagged, bare] = [ToolFormat::Tagged, ToolFormat::Bare].map(|format| ToolParser::new(format, &tools()));
    for (parser, rows) in [
        (&tagged, TAGGED),
        (&bare, BARE),
        (&tagged.clone().under_grammar(), TAGGED_UNDER_GRAMMAR),
        (&bare.clone().under_grammar(), BARE_UNDER_GRAMMAR),
    ] {
        for (answer, expected) in rows {
            assert_eq!(parse(parser, &[answer]), *expected, "{answer:?} at once");
            let letters: Vec<String> = answer.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            assert_eq!(parse(parser, &letters), *expected, "{answer:?} by letters");
        }
    }
}

#[test]
fn text_is_handed_on_as_soon_as_it_is_certain() {
    let mut parser = ToolParser::new(ToolFormat::Tagged, &tools());
    let mut push = |text: &str| show(&parser.push(text));
    assert_eq!(push("Hel"), "Hel");
    assert_eq!(push("lo <"), "lo");
    assert_eq!(push("b> <tool"), " <b>");
    assert_eq!(push("_call>{\"name\": \"now\"}"), "");
    assert_eq!(push("</tool_call>"), "[0 now](0 {})");
    assert_eq!(push(" bye"), "bye");
}

#[test]
fn under_a_grammar_arguments_are_handed_on_as_they_come() {
    let mut parser = ToolParser::new(ToolFormat::Tagged, &tools()).under_grammar();
    for (piece, expected, called) in [
        ("Hm.\n<tool_call>\n{\"name\": \"wea", "Hm.", false),
        ("ther\", \"arguments\": ", "", false),
        ("{\"city\"", "[0 weather](0 {\"city\")", false),
        (": \"a}", "(0 : \"a})", false),
        ("\"}", "(0 \"})", true),
        ("}\n</tool_ca", "", true),
        ("ll>", "", true),
        ("\n<tool_call>\n{\"name\": \"now\", \"arguments\": {", "[1 now](1 {)", false),
    ] {
        assert_eq!(show(&parser.push(piece)), expected, "{piece}");
        assert_eq!(parser.called(), called, "{piece}");
    }
}

proptest! {
    #[test]
    fn cutting_an_answer_elsewhere_changes_nothing(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "<tool_call>", "</tool_call>", "\n", " ", "{\"name\": \"now\"", ", \"arguments\": {}", "}", "{", "\"", "text", "é", "<",
            "{\"name\": \"now\", \"parameters\": {}}", ";", "<|python_tag|>",
        ]), 0..12),
        cuts in proptest::collection::vec(0usize..100, 0..6),
        bare in any::<bool>(),
        grammar in any::<bool>(),
    ) {
        let format = if bare { ToolFormat::Bare } else { ToolFormat::Tagged };
        let answer = parts.concat();
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| answer.is_char_boundary(*cut)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([answer.len()]) {
            pieces.push(&answer[from..cut]);
            from = cut;
        }
        let parser = ToolParser::new(format, &tools());
        let parser = if grammar { parser.under_grammar() } else { parser };
        prop_assert_eq!(parse(&parser, &pieces), parse(&parser, &[&answer]));
    }
}

/// Bytes and one end.
fn tokenizer() -> Arc<Tokenizer> {
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='\u{143}').map(String::from);
    let tokens: Vec<String> = ["<|im_end|>".to_owned()].into_iter().chain(bytes).collect();
    let types = (0..tokens.len()).map(|id| if id == 0 { 3 } else { 1 }).collect();
    let vocabulary =
        Vocabulary { kind: "gpt2".into(), pre: "gpt-2".into(), tokens, types, eos: Some(0), ..Default::default() };
    Arc::new(Tokenizer::from_vocabulary(&vocabulary).unwrap())
}

fn allows(constraint: &Constraint, answer: &str) -> bool {
    let tokenizer = tokenizer();
    let mut matcher = Grammars::new(Arc::clone(&tokenizer)).compile(constraint).unwrap();
    let all: Result<(), Error> = tokenizer.encode(answer).into_iter().try_for_each(|id| matcher.commit(id));
    all.is_ok() && matcher.is_accepting()
}

fn call(name: &str, arguments: &str) -> String {
    format!("<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {arguments}}}\n</tool_call>")
}

fn check(constraint: &Constraint, answers: &[(&str, bool)]) {
    for (answer, expected) in answers {
        assert_eq!(allows(constraint, answer), *expected, "{answer}\n{constraint:?}");
    }
}

#[test]
fn grammars_let_through_what_the_choice_asks_for() {
    let (weather, now) = (call("weather", "{\"city\": \"x\"}"), call("now", "{}"));
    let both = format!("{weather}\n{now}");
    let grammar = |choice, parallel| tool_grammar(ToolFormat::Tagged, &tools(), &choice, parallel).unwrap();
    let broken = call("weather", "{\"city\": 1}");
    let lacking = call("weather", "{}");
    let extra = call("now", "{\"a\": 1}");
    let bad: Vec<(&str, bool)> = [&broken, &lacking, &extra].map(|text| (text.as_str(), false)).to_vec();
    let required = grammar(ToolChoice::Required, true);
    check(&required, &[(&weather, true), (&now, true), (&both, true), ("text", false), ("", false)]);
    check(&required, &bad);
    check(&grammar(ToolChoice::Required, false), &[(&weather, true), (&both, false)]);
    check(&grammar(ToolChoice::Named("now".into()), true), &[(&now, true), (&weather, false)]);
    let auto = grammar(ToolChoice::Auto, true);
    let (after_text, talk) = (format!("Let me <look>.\n{both}"), format!("so {broken}"));
    check(&auto, &[("any text\n\n{ <tool_", true), ("", true), (&weather, true), (&after_text, true), (&talk, false)]);
    check(&auto, &bad);
    let bare = tool_grammar(ToolFormat::Bare, &tools(), &ToolChoice::Required, true).unwrap();
    check(&bare, &[("{\"name\": \"now\", \"parameters\": {}}", true), (&now, false)]);
    assert_eq!(tool_grammar(ToolFormat::Bare, &tools(), &ToolChoice::Auto, true), None);
    assert_eq!(tool_grammar(ToolFormat::Tagged, &[], &ToolChoice::Auto, true), None);
}

#[test]
fn a_grammar_of_calls_or_json() {
    let (weather, now) = (call("weather", "{\"city\": \"x\"}"), call("now", "{}"));
    let both = format!("{weather}\n{now}");
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
    let or_json = tool_or_json_grammar(&tools(), &schema, true);
    check(&or_json, &[("{\"a\": \"<tool_call>\"}", true), (&weather, true), (&both, true), ("{\"b\": 1}", false)]);
    check(&or_json, &[("text", false), ("", false), (&format!("So {now}"), false)]);
    check(&or_json, &[(&call("weather", "{}"), false)]);
    check(
        &tool_or_json_grammar(&tools(), &schema, false),
        &[(&weather, true), (&both, false), ("{\"a\": \"\"}", true)],
    );
}

#[test]
fn conversations_fold_into_text() {
    let call = json!({"id": "1", "type": "function", "function": {"name": "now", "arguments": "{\"zone\": \"CET\"}"}});
    let messages = [
        json!({"role": "system", "content": "Be brief."}),
        json!({"role": "user", "content": "When?"}),
        json!({"role": "assistant", "content": null, "tool_calls": [call, call]}),
        json!({"role": "tool", "tool_call_id": "1", "content": "12:00"}),
        json!({"role": "tool", "tool_call_id": "1", "content": "12:01"}),
    ];
    let folded = fold_tools(&messages, &tools());
    let prompt = tool_prompt(&tools());
    assert_eq!(folded[0]["content"], format!("Be brief.\n\n{prompt}"));
    assert!(
        prompt.contains(
            "\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"of a city\", "
        )
    );
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"CET\"}}\n</tool_call>";
    assert_eq!(folded[2]["content"], format!("{call}\n{call}"));
    assert_eq!(
        folded[3],
        json!({"role": "user", "content": "<tool_response>\n12:00\n</tool_response>\n<tool_response>\n12:01\n</tool_response>"})
    );
    assert_eq!(folded.len(), 4);
    assert_eq!(fold_tools(&messages[1..2], &tools())[0]["role"], "system");
    assert_eq!(fold_tools(&messages[..2], &[]), messages[..2]);
}
