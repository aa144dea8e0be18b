//! The engine over real models. `cargo xtask test` provides them.

use std::{path::PathBuf, sync::Arc};

use engine::{Engine, EngineConfig};
use futures_util::{StreamExt, future::try_join_all};
use protocol::{
    Chat, Embed, EmbedRequest, Error, Event, FinishReason, Format, Generate, GenerateRequest, Message, Prompt,
    Sampling, TextOrTokens, Tool, ToolCall, ToolChoice, Usage,
};
use serde_json::{Value, json};

const SMOL: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const GEMMA: &str = "gemma-3-270m-Q4_K_M.gguf";
const QWEN: &str = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf";
const MINILM: &str = "minilm";

#[expect(clippy::expect_used, reason = "a missing model must fail the test and say how to get it")]
fn model(name: &str) -> PathBuf {
    let models = std::env::var_os("TESSERA_TEST_MODELS");
    let models = models.expect("TESSERA_TEST_MODELS is not set: run these tests by `cargo xtask test`, which sets it");
    PathBuf::from(models).join(name)
}

#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn load(name: &str, config: EngineConfig) -> Engine {
    Engine::load(&model(name), config, &|_, _| {}).unwrap()
}

#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap().block_on(future)
}

/// Everything an answer told.
#[derive(Debug, Clone, PartialEq, Default)]
struct Told {
    text: String,
    calls: Vec<ToolCall>,
    tokens: Vec<u32>,
    reason: Option<FinishReason>,
    usage: Usage,
}

async fn ask(engine: &Engine, request: GenerateRequest) -> Result<Told, Error> {
    let mut told = Told::default();
    let mut events = engine.generate(request).await?;
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { text, logprobs, .. } => {
                told.text.push_str(&text);
                told.tokens.extend(logprobs.iter().map(|score| score.id));
            }
            Event::ToolCall { index, id, name, arguments, .. } => {
                if told.calls.len() <= index {
                    told.calls.push(ToolCall::default());
                }
                let call = &mut told.calls[index];
                call.id.push_str(&id.unwrap_or_default());
                call.name.push_str(&name.unwrap_or_default());
                call.arguments.push_str(&arguments);
            }
            Event::Finished { reason, .. } => told.reason = Some(reason),
            Event::Done(usage) => told.usage = usage,
            _ => {}
        }
    }
    Ok(told)
}

fn greedy(prompt: Prompt, max_tokens: usize) -> GenerateRequest {
    let mut request = GenerateRequest::new(prompt, max_tokens);
    request.sampling.temperature = 0.0;
    request
}

fn raw(text: &str) -> Prompt {
    Prompt::Raw(TextOrTokens::Text(text.into()))
}

fn user(text: &str) -> Message {
    Message { role: "user".into(), content: Some(text.into()), ..Message::default() }
}

fn chat(text: &str) -> Prompt {
    Prompt::Chat(Chat { messages: vec![user(text)], ..Chat::default() })
}

/// Prompts of different lengths, some with a common beginning.
fn prompts(count: usize, tokens: usize) -> Vec<GenerateRequest> {
    let story =
        "Once upon a time there was a village between two rivers, and in it lived a clockmaker who could not sleep. ";
    (0..count)
        .map(|i| {
            let beginning = story.repeat(1 + i % 4);
            let mut request = greedy(raw(&format!("{beginning}On day {i} she")), tokens);
            request.stop.ignore_eos = true;
            request.logprobs = Some(0);
            request
        })
        .collect()
}

async fn in_groups(engine: &Engine, requests: &[GenerateRequest], group: usize) -> Result<Vec<Told>, Error> {
    let mut all = Vec::new();
    for requests in requests.chunks(group) {
        all.extend(try_join_all(requests.iter().map(|request| ask(engine, request.clone()))).await?);
    }
    Ok(all)
}

/// Tokens do not depend on what else runs, on threads, or on what the cache holds.
#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn check_identity(name: &str, count: usize, length: usize, groups: &[usize]) {
    let requests = prompts(count, length);
    let config = |threads, prefix_cache| EngineConfig { threads, prefix_cache, ..EngineConfig::default() };
    let tokens = |told: Vec<Told>| told.into_iter().map(|told| told.tokens).collect::<Vec<_>>();
    let alone = block_on(in_groups(&load(name, config(1, false)), &requests, 1)).unwrap();
    let alone = tokens(alone);
    assert!(alone.iter().all(|tokens| tokens.len() == length));
    for threads in [1, 2] {
        for prefix_cache in [false, true] {
            let engine = load(name, config(threads, prefix_cache));
            for group in groups {
                let told = block_on(in_groups(&engine, &requests, *group)).unwrap();
                assert_eq!(tokens(told), alone, "{name}: {threads} threads, cache {prefix_cache}, groups of {group}");
            }
        }
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn greedy_tokens_are_the_same_whatever_runs_beside() {
    check_identity(SMOL, 16, 24, &[3, 16]);
    check_identity(GEMMA, 4, 12, &[4]);
}

#[test]
#[ignore = "slow: ten thousand tokens per setting"]
fn slow_greedy_tokens_are_the_same_over_ten_thousand_tokens() {
    check_identity(SMOL, 160, 64, &[1, 2, 5, 16]);
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_cached_prompt_is_not_computed_again() {
    let engine = load(SMOL, EngineConfig::default());
    let request = prompts(4, 24).remove(3);
    let first = block_on(ask(&engine, request.clone())).unwrap();
    let second = block_on(ask(&engine, request)).unwrap();
    assert_eq!((first.usage.cached_tokens, &first.tokens), (0, &second.tokens));
    assert_eq!(second.usage.cached_tokens, second.usage.prompt_tokens - 1);
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_seed_gives_the_same_answers_alone_and_in_a_crowd() {
    let engine = Arc::new(load(SMOL, EngineConfig::default()));
    let request = |seed| {
        let mut request = GenerateRequest::new(chat("Tell me about the sea."), 40);
        request.sampling = Sampling { seed: Some(seed), top_p: 0.95, ..Sampling::default() };
        request.n = 2;
        request
    };
    let alone: Vec<Told> = (0..8).map(|seed| block_on(ask(&engine, request(seed))).unwrap()).collect();
    let crowd = block_on(try_join_all((0..8).map(|seed| ask(&engine, request(seed))))).unwrap();
    for (alone, crowd) in alone.iter().zip(&crowd) {
        assert_eq!(alone.usage.completion_tokens, crowd.usage.completion_tokens);
    }
    assert_ne!(alone[0].text, alone[1].text);
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn structured_output_is_valid_under_its_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "population": {"type": "integer", "minimum": 0, "maximum": 100_000_000},
            "climate": {"enum": ["hot", "mild", "cold"]},
            "rivers": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3}
        },
        "required": ["city", "population", "climate", "rivers"],
        "additionalProperties": false
    });
    let engine = load(SMOL, EngineConfig::default());
    let request = |seed| {
        let mut request = GenerateRequest::new(chat("Describe a European capital as JSON."), 300);
        request.sampling.seed = Some(seed);
        request.format = Format::JsonSchema(schema.clone());
        request
    };
    let answers = block_on(try_join_all((0..12).map(|seed| ask(&engine, request(seed))))).unwrap();
    for told in answers {
        assert_eq!(told.reason, Some(FinishReason::Stop), "{}", told.text);
        let value: Value = serde_json::from_str(&told.text).unwrap();
        let fields = value.as_object().unwrap();
        assert!(fields.len() == 4 && fields["city"].is_string() && fields["population"].as_u64().is_some());
        assert!(["hot", "mild", "cold"].contains(&fields["climate"].as_str().unwrap()));
        let rivers = fields["rivers"].as_array().unwrap();
        assert!(rivers.len() <= 3 && rivers.iter().all(Value::is_string));
    }
}

fn weather() -> Tool {
    Tool {
        name: "get_weather".into(),
        description: Some("The weather at a place".into()),
        parameters: Some(json!({
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": false
        })),
        strict: false,
    }
}

fn clock() -> Tool {
    Tool { name: "get_time".into(), description: Some("The time now".into()), parameters: None, strict: false }
}

fn with_tools(question: &str, tool_choice: ToolChoice) -> Prompt {
    let tools = vec![weather(), clock()];
    Prompt::Chat(Chat { messages: vec![user(question)], tools, tool_choice, ..Chat::default() })
}

#[expect(clippy::unwrap_used, reason = "a test's helper")]
fn check_call(told: &Told, name: &str) {
    assert_eq!(told.reason, Some(FinishReason::ToolCalls), "{told:?}");
    assert_eq!((told.calls.len(), told.text.as_str()), (1, ""), "{told:?}");
    let call = &told.calls[0];
    assert!(call.id.starts_with("call_") && call.name == name, "{told:?}");
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
    if name == "get_weather" {
        assert!(
            arguments["city"].is_string() && ["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap())
        );
    } else {
        assert_eq!(arguments, json!({}));
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn demanded_tool_calls_are_always_valid() {
    for name in [SMOL, QWEN] {
        let engine = load(name, EngineConfig::default());
        for seed in 0..3 {
            let mut request = GenerateRequest::new(
                with_tools("What is it like in Paris?", ToolChoice::Named("get_weather".into())),
                200,
            );
            request.sampling.seed = Some(seed);
            check_call(&block_on(ask(&engine, request.clone())).unwrap(), "get_weather");
            request.prompt = with_tools("How late is it?", ToolChoice::Named("get_time".into()));
            check_call(&block_on(ask(&engine, request.clone())).unwrap(), "get_time");
            request.prompt = with_tools("How late is it?", ToolChoice::Required);
            let told = block_on(ask(&engine, request)).unwrap();
            assert!(!told.calls.is_empty() && told.reason == Some(FinishReason::ToolCalls), "{told:?}");
        }
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn a_model_reads_the_result_of_its_call() {
    let engine = load(QWEN, EngineConfig::default());
    let question = "What is the weather in Berlin right now, in celsius?";
    let demanded = greedy(with_tools(question, ToolChoice::Required), 200);
    let told = block_on(ask(&engine, demanded)).unwrap();
    check_call(&told, "get_weather");
    let calls = Message { role: "assistant".into(), tool_calls: told.calls.clone(), ..Message::default() };
    let tool_call_id = Some(told.calls[0].id.clone());
    let result =
        Message { role: "tool".into(), content: Some("18 degrees, rain".into()), tool_call_id, ..Message::default() };
    let messages = vec![user(question), calls, result];
    let follow_up = Chat { messages, ..Chat::default() };
    let told = block_on(ask(&engine, greedy(Prompt::Chat(follow_up), 60))).unwrap();
    assert!(told.text.contains("18"), "{told:?}");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn an_answer_goes_on_behind_its_beginning() {
    for name in [SMOL, QWEN] {
        let engine = load(name, EngineConfig::default());
        let ask = |prompt| block_on(ask(&engine, greedy(prompt, 40))).unwrap().text;
        let question = "Name five colours.";
        let whole = ask(chat(question));
        let (begun, rest) = whole.split_at(whole.find(' ').expect("several words"));
        let assistant = Message { role: "assistant".into(), content: Some(begun.into()), ..Message::default() };
        let messages = vec![user(question), assistant];
        let went_on = ask(Prompt::Chat(Chat { messages, continue_last: true, ..Chat::default() }));
        assert!(!rest.is_empty() && went_on.starts_with(rest), "{name}: {begun:?} then {went_on:?}, not {rest:?}");
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn calls_of_the_model_s_own_choice_are_valid_too() {
    // Models this small seldom call by themselves, but they repeat what they are told.
    let question = "Repeat exactly:\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\", \"unit\": \"celsius\"}}\n</tool_call>";
    let mut called = 0;
    for name in [SMOL, QWEN] {
        let engine = load(name, EngineConfig::default());
        for seed in 0..4 {
            let mut request = GenerateRequest::new(with_tools(question, ToolChoice::Auto), 120);
            request.sampling = Sampling { seed: Some(seed), temperature: 0.5, ..Sampling::default() };
            let told = block_on(ask(&engine, request)).unwrap();
            // A call that the limit cut is told by the reason.
            let whole = told.reason == Some(FinishReason::ToolCalls);
            for call in told.calls.iter().filter(|call| whole && call.name == "get_weather") {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                assert!(arguments["city"].is_string() && arguments["unit"].is_string(), "{told:?}");
                called += 1;
            }
        }
    }
    assert!(called > 0, "at least one answer is a call");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn sentence_vectors_know_what_is_alike() {
    let texts = ["A man is playing a guitar.", "Someone plays an instrument.", "The stock market fell sharply today."];
    for (name, least) in [(MINILM, 0.2), (SMOL, 0.0)] {
        let engine = load(name, EngineConfig::default());
        let inputs = texts.iter().map(|text| TextOrTokens::Text((*text).into())).collect();
        let request = EmbedRequest { model: String::new(), inputs, dimensions: None };
        let vectors = block_on(engine.embed(request)).unwrap().vectors;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!(vectors.iter().all(|vector| (dot(vector, vector) - 1.0).abs() < 1e-4));
        let (alike, unlike) = (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
        assert!(alike > unlike + least, "{name}: {alike} against {unlike}");
    }
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn long_inputs_name_the_limit() {
    let engine = load(MINILM, EngineConfig::default());
    let inputs = vec![TextOrTokens::Text("word ".repeat(2000))];
    let error = block_on(engine.embed(EmbedRequest { model: String::new(), inputs, dimensions: None })).unwrap_err();
    assert_eq!(error.code.as_deref(), Some("context_length_exceeded"));
    assert!(error.message.contains("512"), "{error}");
}

#[test]
#[ignore = "needs models: run by cargo xtask test"]
fn echo_scores_a_prompt_as_generation_would() {
    let engine = load(SMOL, EngineConfig::default());
    let mut request = greedy(raw("The capital of France is"), 8);
    request.logprobs = Some(1);
    let told = block_on(ask(&engine, request.clone())).unwrap();
    request.prompt = raw(&format!("The capital of France is{}", told.text));
    request.stop.max_tokens = Some(0);
    request.echo = true;
    let events: Vec<Event> =
        block_on(async { engine.generate(request).await.unwrap().map(Result::unwrap).collect().await });
    let scores = events.iter().find_map(|event| match event {
        Event::PromptLogprobs(scores) => Some(scores),
        _ => None,
    });
    let scores = scores.unwrap();
    assert!(scores[0].logprob.is_none() && scores[1..].iter().all(|score| score.logprob.unwrap() <= 0.0));
    let tail: Vec<u32> = scores[scores.len() - told.tokens.len()..].iter().map(|score| score.id).collect();
    assert_eq!(tail, told.tokens);
}
