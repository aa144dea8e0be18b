//! Random walks under masks end in text that the constraint allows.

use proptest::prelude::*;

use super::*;
use crate::Vocabulary;

/// Single bytes, some longer tokens (all merges of words that JSON brings), two ends and a control token.
fn tokenizer() -> Tokenizer {
    let bytes = ('!'..='~').chain('¡'..='¬').chain('®'..='\u{143}').map(String::from);
    let merges = ["t r", "tr u", "tru e", "\" :", "\": Ġ", ", Ġ", "n a", "na m", "nam e", "1 0", "Ġ Ġ", "{ \"", "å ¥"];
    let merged = merges.iter().map(|rule| rule.replace(' ', ""));
    let specials = ["<|end|>", "<|im_end|>", "<|im_start|>"].map(String::from);
    let tokens: Vec<String> = specials.into_iter().chain(bytes).chain(merged).collect();
    let types = (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect();
    let merges = merges.map(String::from).to_vec();
    let vocabulary = Vocabulary {
        kind: "gpt2".into(),
        pre: "gpt-2".into(),
        tokens,
        types,
        merges,
        eos: Some(1),
        ..Default::default()
    };
    Tokenizer::from_vocabulary(&vocabulary).unwrap()
}

fn grammars() -> &'static Grammars {
    static GRAMMARS: OnceLock<Grammars> = OnceLock::new();
    GRAMMARS.get_or_init(|| Grammars::new(Arc::new(tokenizer())))
}

fn allowed(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|id| mask[*id as usize / 32] >> (id % 32) & 1 == 1).collect()
}

/// Walks until the end with the given choices, then by the end token or the first allowed token that gets there.
fn walk(constraint: &Constraint, choices: &[u16]) -> Option<String> {
    let tokenizer = &grammars().tokenizer;
    let mut matcher = grammars().compile(constraint).unwrap();
    let mut ids = Vec::new();
    for choice in choices {
        let step = match matcher.next().unwrap() {
            Next::End => return Some(tokenizer.decode(&ids)),
            Next::Forced(forced) => forced,
            Next::Mask(mask) => {
                let allowed = allowed(&mask);
                let ends = allowed.iter().filter(|id| tokenizer.ends().contains(id)).count();
                assert!(allowed.iter().all(|id| *id != 2 && (*id as usize) < tokenizer.len()));
                assert_eq!(matcher.is_accepting(), ends == tokenizer.ends().len());
                assert!(ends == 0 || ends == tokenizer.ends().len());
                vec![allowed[usize::from(*choice) % allowed.len()]]
            }
        };
        for id in step {
            matcher.commit(id).unwrap();
            if tokenizer.ends().contains(&id) {
                assert_eq!(matcher.next().unwrap(), Next::End);
                return Some(tokenizer.decode(&ids));
            }
            ids.push(id);
        }
    }
    matcher.is_accepting().then(|| tokenizer.decode(&ids))
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 5},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b", null]}, "maxItems": 3},
            "ok": {"type": "boolean"}
        },
        "required": ["name", "age", "ok"],
        "additionalProperties": false
    })
}

fn is_person(value: &Value) -> bool {
    let fields = value.as_object().unwrap();
    let known = fields.keys().all(|key| ["name", "age", "tags", "ok"].contains(&key.as_str()));
    let tags = fields.get("tags").is_none_or(|tags| {
        let tags = tags.as_array().unwrap();
        tags.len() <= 3 && tags.iter().all(|tag| *tag == json!("a") || *tag == json!("b") || tag.is_null())
    });
    let name = fields["name"].as_str().unwrap().chars().count() <= 5;
    known && tags && name && fields["age"].as_u64().unwrap() <= 150 && fields["ok"].is_boolean()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn walks_under_a_schema_end_valid(choices in proptest::collection::vec(any::<u16>(), 120)) {
        if let Some(text) = walk(&Constraint::JsonSchema(person()), &choices) {
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert!(is_person(&value), "{}", text);
        }
    }

    #[test]
    fn walks_under_json_object_end_in_an_object(choices in proptest::collection::vec(any::<u16>(), 60)) {
        if let Some(text) = walk(&Constraint::JsonObject, &choices) {
            match serde_json::from_str::<Value>(&text) {
                Ok(value) => prop_assert!(value.is_object(), "{}", text),
                // JSON knows no limits to numbers, the parser does.
                Err(error) => prop_assert!(error.to_string().contains("out of range"), "{}", text),
            }
        }
    }

    #[test]
    fn walks_under_a_regex_match_it(choices in proptest::collection::vec(any::<u16>(), 30)) {
        let expression = "(true|[0-9]{2,4}|é+x)( y)?";
        if let Some(text) = walk(&Constraint::Regex(expression.into()), &choices) {
            prop_assert!(regex::Regex::new(&format!("^(?:{expression})$")).unwrap().is_match(&text), "{}", text);
        }
    }
}

#[test]
fn what_is_certain_is_forced_as_the_tokenizer_would_cut_it() {
    let tokenizer = &grammars().tokenizer;
    let mut matcher = grammars().compile(&Constraint::JsonSchema(person())).unwrap();
    let Next::Forced(forced) = matcher.next().unwrap() else { panic!("not forced") };
    assert_eq!(tokenizer.decode(&forced), "{\"name\": ");
    assert_eq!(forced, tokenizer.encode("{\"name\": "));
    assert_eq!(matcher.next().unwrap(), Next::Forced(forced.clone()));
    forced.iter().for_each(|id| matcher.commit(*id).unwrap());
    assert!(matches!(matcher.next().unwrap(), Next::Forced(_) | Next::Mask(_)));
    assert!(!matcher.is_accepting());
}

#[test]
fn what_is_complete_ends() {
    let mut matcher = grammars().compile(&Constraint::Regex("true".into())).unwrap();
    let Next::Forced(forced) = matcher.next().unwrap() else { panic!("not forced") };
    forced.iter().for_each(|id| matcher.commit(*id).unwrap());
    assert_eq!(matcher.next().unwrap(), Next::End);
    assert!(matcher.is_accepting());
}

#[test]
fn broken_grammars_are_clear_errors() {
    let refuse = |constraint: Constraint| match grammars().compile(&constraint) {
        Err(Error::Grammar(message)) => message,
        other => panic!("{constraint:?}: {other:?}"),
    };
    assert!(refuse(Constraint::Regex("(".into())).contains("broken"));
    assert!(refuse(Constraint::Lark("start: nothing".into())).contains("nothing"));
    assert!(refuse(Constraint::JsonSchema(json!({"type": "martian"}))).contains("martian"));
    assert!(refuse(Constraint::JsonSchema(json!({"$ref": "#/nowhere"}))).lines().count() == 1);
    assert!(refuse(Constraint::JsonSchema(json!([1]))).contains("broken"));
}

#[test]
fn a_forbidden_token_is_an_error_and_stays_one() {
    let mut matcher = grammars().compile(&Constraint::Regex("true".into())).unwrap();
    assert!(matcher.commit(u32::MAX).is_err());
    assert!(matcher.next().is_err());
    assert!(!matcher.is_accepting());
    let mut matcher = grammars().compile(&Constraint::Regex("true".into())).unwrap();
    assert!(matcher.commit(2).is_err());
}

#[test]
fn matchers_move_between_threads() {
    fn check<T: Send>() {}
    check::<Matcher>();
    check::<Grammars>();
}

/// So many ways in which an answer may go on are more than is looked at; that shows with the first token.
#[test]
fn a_limit_is_told_from_a_mistake() {
    let check = |ways: usize, fits: bool| {
        let names: Vec<String> = (0..ways).map(|i| format!("r{i}")).collect();
        let rules: String = names.iter().map(|name| format!("\n{name}: C C C \"{name}\"")).collect();
        let grammar = format!("start: {}{rules}\nC: /./", names.join(" | "));
        let mut matcher = grammars().compile(&Constraint::Lark(grammar)).unwrap();
        let Next::Mask(mask) = matcher.next().unwrap() else { panic!("many ways") };
        let went = matcher.commit(allowed(&mask)[0]).and_then(|()| matcher.next());
        assert!(if fits { went.is_ok() } else { matches!(went, Err(Error::Limit(_))) }, "{ways}: {went:?}");
    };
    check(10, true);
    check(3000, false);
}
