//! The handle over the fake model: streams, cancellation, failures, formats, vectors.

use std::time::Duration;

use futures_util::StreamExt;
use kernels::Device;
use model::{Batch, Pooling};
use protocol::{ErrorKind, FinishReason, Format, Prompt, Sampling, TextOrTokens};

use super::*;
use crate::fake::{self, FakeExecutor, VirtualClock};

mod tools;

fn engine(config: EngineConfig) -> Engine {
    start(FakeExecutor::new(64, VirtualClock::default()), config)
}

fn start(executor: impl Executor + 'static, mut config: EngineConfig) -> Engine {
    config.name = "fake".into();
    Engine::start(executor, fake::tokenizer(), None, config).unwrap()
}

fn request(text: &str, max_tokens: usize) -> GenerateRequest {
    let mut request = GenerateRequest::new(Prompt::Raw(TextOrTokens::Text(text.into())), max_tokens);
    request.sampling = Sampling { seed: Some(1), ..Sampling::default() };
    request
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn answer(engine: &Engine, request: GenerateRequest) -> Result<(String, FinishReason), Error> {
    let mut events = engine.generate(request).await?;
    let (mut text, mut reason) = (String::new(), FinishReason::Length);
    while let Some(event) = events.next().await {
        match event? {
            Event::Text { text: more, .. } => text.push_str(&more),
            Event::Finished { reason: why, .. } => reason = why,
            _ => {}
        }
    }
    Ok((text, reason))
}

/// Waits until the engine says so; it works on a thread of its own.
async fn until(engine: &Engine, what: impl Fn(&Stats) -> bool) {
    for _ in 0..5000 {
        if what(&engine.stats()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came: {:?}", engine.stats());
}

#[test]
fn a_count_is_what_the_answer_reports() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let wanted = request("how long is this?", 1);
        let mut events = engine.generate(wanted.clone()).await.unwrap();
        let Some(Ok(Event::Started { prompt_tokens, .. })) = events.next().await else { panic!("no beginning") };
        assert_eq!(engine.count(wanted).await.unwrap(), prompt_tokens);
        let other = GenerateRequest { model: "other".into(), ..request("x", 1) };
        assert_eq!(engine.count(other).await.unwrap_err().kind, ErrorKind::NotFound);
    });
}

#[test]
fn many_streams_at_once_equal_each_alone() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let prompts: Vec<String> = (0..64).map(|i| format!("prompt number {i}")).collect();
        let mut alone = Vec::new();
        for prompt in &prompts {
            alone.push(answer(&engine, request(prompt, 20)).await.unwrap());
        }
        let together = prompts.iter().map(|prompt| answer(&engine, request(prompt, 20)));
        let together = futures_util::future::try_join_all(together).await.unwrap();
        assert_eq!(alone, together);
    });
}

#[test]
fn a_dropped_stream_frees_its_memory() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let mut endless = request("hello", 2000);
        endless.stop.ignore_eos = true;
        let mut events = engine.generate(endless).await.unwrap();
        events.next().await;
        drop(events);
        until(&engine, |stats| stats.running == 0 && stats.kv_used_bytes == 0).await;
    });
}

/// Panics in its second step.
struct Broken(FakeExecutor, usize);

impl Executor for Broken {
    fn vocab(&self) -> usize {
        self.0.vocab()
    }
    fn width(&self) -> usize {
        self.0.width()
    }
    fn context(&self) -> usize {
        self.0.context()
    }
    fn pages(&self) -> usize {
        self.0.pages()
    }
    fn page_bytes(&self) -> usize {
        self.0.page_bytes()
    }
    fn is_encoder(&self) -> bool {
        false
    }
    fn pooling(&self) -> Pooling {
        self.0.pooling()
    }
    fn device(&self) -> &Device {
        self.0.device()
    }
    fn forward(&mut self, batch: &Batch<'_>, hidden: &mut Vec<f32>) -> usize {
        self.1 += 1;
        assert!(self.1 < 2, "broken on purpose");
        self.0.forward(batch, hidden)
    }
    fn logits(&mut self, hidden: &[f32], out: &mut [f32]) {
        self.0.logits(hidden, out);
    }
    fn logits_of(&mut self, hidden: &[f32], tokens: &[u32], out: &mut [f32]) {
        self.0.logits_of(hidden, tokens, out);
    }
    fn copy_page(&mut self, from: u32, to: u32, tokens: usize) {
        self.0.copy_page(from, to, tokens);
    }
    fn encode(&mut self, tokens: &[u32], lens: &[usize], hidden: &mut Vec<f32>) {
        self.0.encode(tokens, lens, hidden);
    }
}

#[test]
fn a_panic_fails_everybody_and_hangs_nobody() {
    block_on(async {
        let engine = start(Broken(FakeExecutor::new(64, VirtualClock::default()), 0), EngineConfig::default());
        assert_eq!(engine.ready(), Ok(()));
        let mut endless = request("hello", 100);
        endless.stop.ignore_eos = true;
        let both = [answer(&engine, endless.clone()), answer(&engine, endless.clone())];
        for outcome in futures_util::future::join_all(both).await {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Internal);
        }
        let refused = answer(&engine, endless).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Internal);
        assert!(refused.message.contains("restart"), "{refused}");
        assert_eq!(
            [engine.ready(), Generate::ready(&engine), Embed::ready(&engine)],
            [(); 3].map(|()| Err(refused.clone()))
        );
    });
}

#[test]
fn formats_hold_whatever_the_model_prefers() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "size": {"enum": ["small", "large"]}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["name", "size", "n"],
        "additionalProperties": false
    });
    block_on(async {
        let engine = engine(EngineConfig::default());
        for seed in 0..20 {
            let mut wanted = request("describe it", 200);
            wanted.sampling =
                Sampling { temperature: if seed == 0 { 0.0 } else { 1.0 }, seed: Some(seed), ..Sampling::default() };
            wanted.format = Format::JsonSchema(schema.clone());
            let (text, reason) = answer(&engine, wanted.clone()).await.unwrap();
            assert_eq!(reason, FinishReason::Stop);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value["name"].is_string() && value["n"].as_u64().unwrap() <= 99, "{text}");
            assert!(["small", "large"].contains(&value["size"].as_str().unwrap()));
            // Scores are made for every token, forced ones too; the tokens stay the same.
            wanted.logprobs = Some(2);
            assert_eq!(answer(&engine, wanted.clone()).await.unwrap().0, text);
            wanted.stop.max_tokens = Some(10);
            assert_eq!(answer(&engine, wanted.clone()).await.unwrap().1, FinishReason::Length);
            wanted.format = Format::Regex("[ab]{3}-[0-9]{2}".into());
            let (text, reason) = answer(&engine, wanted).await.unwrap();
            assert_eq!((text.len(), text.as_bytes()[3], reason), (6, b'-', FinishReason::Stop));
        }
    });
}

#[test]
fn forced_tokens_need_no_steps() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let mut wanted = request("go", 100);
        wanted.format = Format::Regex("the only possible answer, letter by letter: [xy]".into());
        let (text, _) = answer(&engine, wanted).await.unwrap();
        assert!(text.starts_with("the only possible answer"));
        until(&engine, |stats| stats.running == 0).await;
        assert!(engine.stats().steps <= 3, "{} steps for {} tokens", engine.stats().steps, text.len());
    });
}

#[test]
fn vectors_come_from_decoders_and_encoders() {
    block_on(async {
        for encoder in [false, true] {
            let mut executor = FakeExecutor::new(64, VirtualClock::default());
            executor.encoder = encoder;
            let engine = start(executor, EngineConfig::default());
            let inputs: Vec<TextOrTokens> = (0..100).map(|i| TextOrTokens::Text(format!("text {}", i / 2))).collect();
            let wanted = EmbedRequest { model: String::new(), inputs, dimensions: Some(3) };
            let embeddings = engine.embed(wanted).await.unwrap();
            assert_eq!(embeddings.vectors.len(), 100);
            for pair in embeddings.vectors.chunks(2) {
                assert_eq!(pair[0], pair[1]);
                assert!((pair[0].iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
            }
            let refused = engine.generate(request("hello", 3)).await;
            assert_eq!(refused.is_err(), encoder);
        }
    });
}

#[test]
fn logits_are_handed_out_for_comparison() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let rows = engine.logits(vec![5, 6, 7]).await.unwrap();
        assert_eq!((rows.len(), rows[2][9]), (3, fake::logit(fake::state_of(&[5, 6, 7]), 9)));
    });
}

#[test]
fn what_cannot_be_served_says_why() {
    let check = |change: &dyn Fn(&mut GenerateRequest), kind: ErrorKind, param: &str, words: &str| {
        let engine = engine(EngineConfig::default());
        let mut wanted = request("hello", 3);
        change(&mut wanted);
        let error = block_on(answer(&engine, wanted)).unwrap_err();
        assert_eq!((error.kind, error.param.as_deref()), (kind, Some(param)), "{error}");
        assert!(error.message.contains(words), "{error}");
    };
    let invalid = ErrorKind::Invalid;
    check(&|r| r.model = "other".into(), ErrorKind::NotFound, "model", "\"fake\"");
    check(&|r| r.n = 0, invalid, "n", "between 1 and");
    check(&|r| r.sampling.temperature = -1.0, invalid, "temperature", "at least 0");
    check(&|r| r.sampling.top_p = 0.0, invalid, "top_p", "above 0");
    check(&|r| r.sampling.temperature = f32::NAN, invalid, "temperature", "NaN");
    check(&|r| r.sampling.logit_bias = [(9999, 1.0)].into(), invalid, "logit_bias", "9999");
    check(&|r| r.stop.strings = vec![String::new()], invalid, "stop", "empty");
    check(&|r| r.prompt = Prompt::Raw(TextOrTokens::Tokens(vec![257])), invalid, "prompt", "257");
    check(&|r| r.prompt = Prompt::Raw(TextOrTokens::Tokens(vec![])), invalid, "prompt", "empty");
    check(&|r| r.prompt = Prompt::Raw(TextOrTokens::Tokens(vec![1; 2048])), invalid, "prompt", "2048 tokens");
    check(&|r| r.prompt = Prompt::Chat(protocol::Chat::default()), invalid, "messages", "/v1/completions");
    check(&|r| r.format = Format::Regex("(".into()), invalid, "response_format", "");
    // A limit that shows as late as with the first token.
    let names: Vec<String> = (0..3000).map(|i| format!("r{i}")).collect();
    let rules: String = names.iter().map(|name| format!("\n{name}: C C C \"{name}\"")).collect();
    let grammar = format!("start: {}{rules}\nC: /./", names.join(" | "));
    check(&|r| r.format = Format::Lark(grammar.clone()), invalid, "response_format", "too much work");
}

/// A prompt chooses the adapter whose domain it is of; what was compared comes first in its stream.
#[test]
fn prompts_choose_among_adapters() {
    block_on(async {
        let engine = engine(EngineConfig::default());
        let auto = |text: &str| GenerateRequest { model: "fake:auto".into(), ..request(text, 3) };
        assert_eq!(engine.generate(auto("x")).await.map(|_| ()).unwrap_err().kind, ErrorKind::NotFound);
        assert!(Generate::card(&engine, "fake:auto").is_none(), "there is nothing to choose from");
        let prompts = ["aaaaaa", "zzzzzz"].map(|text| Prompt::Raw(TextOrTokens::Text(text.into())));
        let vectors = engine.locate(&prompts).await.unwrap();
        let domain = model::Domain { threshold: 0.5, ..model::Domain::between(&[&vectors[0]], &[&vectors[1]]) };
        engine.front.adapters.add("near", "sha256:1".into(), (model::Adapter::default(), Some(domain)));
        for (text, name, digest, nearness) in [("zzzzzz", "fake:near", "sha256:1", 1000), ("aaaaaa", "fake", "", 0)] {
            let asked = auto(text);
            assert_eq!(engine.count(asked.clone()).await.unwrap(), engine.count(request(text, 3)).await.unwrap());
            let mut events = engine.generate(asked).await.unwrap();
            let Some(Ok(Event::Routed(hop))) = events.next().await else { panic!("no word on where it went") };
            assert_eq!((&*hop.asked, &*hop.model, &*hop.adapter), ("fake:auto", name, digest));
            let among: Vec<_> = hop.among.iter().map(|one| (&*one.service, one.nearness)).collect();
            assert_eq!(among, [("fake:near", Some(nearness))]);
            assert!(matches!(events.next().await, Some(Ok(Event::Started { .. }))));
        }
        let names: Vec<String> = Generate::models(&engine).into_iter().map(|card| card.id).collect();
        assert_eq!(names, ["fake", "fake:near", "fake:auto"]);
        let usual = engine.clone().preferring("auto").unwrap();
        assert_eq!(Generate::models(&usual)[0].id, "fake:auto");
        let mut events = usual.generate(request("zzzzzz", 3)).await.unwrap();
        assert!(matches!(events.next().await, Some(Ok(Event::Routed(hop))) if hop.model == "fake:near"));
    });
}
