//! `POST /v1/completions`: several prompts, echo and scores.

use std::sync::atomic::Ordering;

use expect_test::{Expect, expect};
use protocol::{Error, Event, FinishReason, Usage};
use serde_json::Value;

use crate::{
    check,
    fake::{Fake, Step, asked, done, ends, says, scored, started},
    post, send, text,
};

const PATH: &str = "/v1/completions";

async fn complete(fake: &Fake, rest: &str, expected: Expect) {
    check(fake, post(PATH, &format!(r#"{{"model":"hf:owner/raw",{rest}}}"#)), expected).await;
}

#[tokio::test]
async fn whole_and_streamed() {
    let fake = Fake::saying(vec![started(), says(0, "one"), says(0, " two"), ends(0), done()]);
    complete(&fake, r#""prompt":"zero""#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"one two","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
    complete(&fake, r#""prompt":"zero","stream":true,"stream_options":{"include_usage":true}"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"one","index":0,"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":" two","index":0,"logprobs":null,"finish_reason":null}],"usage":null}

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":null}

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}

        data: [DONE]


    "#]]).await;
}

#[tokio::test]
async fn prompts_times_choices() {
    let rest = r#""prompt":["a b","c"],"n":2"#;
    complete(&Fake::parrot(), rest, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"a b","index":0,"logprobs":null,"finish_reason":"stop"},{"text":"a b","index":1,"logprobs":null,"finish_reason":"stop"},{"text":"c","index":2,"logprobs":null,"finish_reason":"stop"},{"text":"c","index":3,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2}}}
    "#]]).await;
}

#[tokio::test]
async fn token_prompts() {
    complete(&Fake::parrot(), r#""prompt":[[1,2],[3]]"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"[1, 2]","index":0,"logprobs":null,"finish_reason":"stop"},{"text":"[3]","index":1,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":2}}}
    "#]]).await;
    complete(&Fake::parrot(), r#""prompt":[1,2]"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"[1, 2]","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
}

/// Scores a prompt as lm-eval asks for it: `echo`, `logprobs`, one token that nobody looks at.
fn scoring(text: bool) -> Fake {
    let prompt = vec![
        scored(b"<bos>", None, &[]),
        scored(b" The", Some(-1.5), &[(b" A", -0.5)]),
        scored(b" caf\xc3", Some(-2.0), &[(b" caf\xc3", -2.0)]),
        scored(b"\xa9", Some(-0.1), &[(b"\xa9", -0.1)]),
    ];
    let generated = scored(b"!", Some(-0.25), &[(b"!", -0.25)]);
    let echo = text.then(|| says(0, "The café"));
    let answer = Event::Text { choice: 0, text: "!".to_owned(), logprobs: vec![generated] };
    let answer = text.then_some(answer);
    let finished = Event::Finished { choice: 0, reason: FinishReason::Length };
    let events = [Some(started()), Some(Event::PromptLogprobs(prompt)), echo, answer, Some(finished), Some(done())];
    Fake::saying(events.into_iter().flatten().collect())
}

#[tokio::test]
async fn echo_scores_the_prompt() {
    let rest = r#""prompt":"The café","echo":true,"logprobs":1,"max_tokens":1"#;
    complete(&scoring(true), rest, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"The café!","index":0,"logprobs":{"tokens":["<bos>"," The","bytes:\\x20\\x63\\x61\\x66\\xc3","bytes:\\xa9","!"],"token_logprobs":[null,-1.5,-2.0,-0.1,-0.25],"top_logprobs":[null,{" A":-0.5," The":-1.5},{"bytes:\\x20\\x63\\x61\\x66\\xc3":-2.0},{"bytes:\\xa9":-0.1},{"!":-0.25}],"text_offset":[0,0,3,7,8]},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
    complete(&scoring(true), &format!("{rest},\"stream\":true"), expect![[r#"
        200 OK
        content-type: text/event-stream

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"The café","index":0,"logprobs":{"tokens":["<bos>"," The","bytes:\\x20\\x63\\x61\\x66\\xc3","bytes:\\xa9"],"token_logprobs":[null,-1.5,-2.0,-0.1],"top_logprobs":[null,{" A":-0.5," The":-1.5},{"bytes:\\x20\\x63\\x61\\x66\\xc3":-2.0},{"bytes:\\xa9":-0.1}],"text_offset":[0,0,3,7]},"finish_reason":null}],"usage":null}

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"!","index":0,"logprobs":{"tokens":["!"],"token_logprobs":[-0.25],"top_logprobs":[{"!":-0.25}],"text_offset":[8]},"finish_reason":null}],"usage":null}

        data: {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"","index":0,"logprobs":{"tokens":[],"token_logprobs":[],"top_logprobs":[],"text_offset":[]},"finish_reason":"length"}],"usage":null}

        data: [DONE]


    "#]]).await;
    complete(&scoring(false), r#""prompt":[1,2],"echo":true,"logprobs":1,"max_tokens":0"#, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"cmpl-t1","object":"text_completion","created":0,"model":"hf:owner/raw","system_fingerprint":"tessera-0.1.0","choices":[{"text":"","index":0,"logprobs":{"tokens":["<bos>"," The","bytes:\\x20\\x63\\x61\\x66\\xc3","bytes:\\xa9"],"token_logprobs":[null,-1.5,-2.0,-0.1],"top_logprobs":[null,{" A":-0.5," The":-1.5},{"bytes:\\x20\\x63\\x61\\x66\\xc3":-2.0},{"bytes:\\xa9":-0.1}],"text_offset":[0,0,0,0]},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}
    "#]]).await;
}

#[tokio::test]
async fn the_prompt_at_fault_is_named() {
    let fake = Fake::new(|request| match asked(request).as_str() {
        "long" => Err(Error::invalid("prompt", "Too long.")),
        _ => Ok([started(), ends(0), done()].map(Step::Send).to_vec()),
    });
    complete(
        &fake,
        r#""prompt":["ok","long","ok"]"#,
        expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"Too long.","type":"invalid_request_error","param":"prompt[1]","code":null}}
    "#]],
    )
    .await;
    complete(
        &fake,
        r#""prompt":"long""#,
        expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"Too long.","type":"invalid_request_error","param":"prompt","code":null}}
    "#]],
    )
    .await;
}

/// Streams of many prompts arrive whole, whatever order they come in, a few at a time.
#[tokio::test(start_paused = true)]
async fn many_prompts_are_not_mixed_up() {
    let mut fake = Fake::parrot();
    fake.config.prompts_at_once = 8;
    let prompts: Vec<String> = (0..100).map(|i| format!("prompt {i} has its own words {}", i * i)).collect();
    let body = serde_json::json!({"model": "talker", "prompt": prompts, "n": 2, "stream": true,
        "stream_options": {"include_usage": true}});
    let stream = text(send(&fake.router(), post(PATH, &body.to_string())).await).await;

    let mut answers = vec![String::new(); 200];
    let mut usage = Value::Null;
    for data in stream.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).filter(|data| *data != "[DONE]") {
        let chunk: Value = serde_json::from_str(data).unwrap();
        for choice in chunk["choices"].as_array().unwrap() {
            answers[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
        usage = chunk["usage"].clone();
    }
    for (p, prompt) in prompts.iter().enumerate() {
        assert_eq!([&answers[2 * p], &answers[2 * p + 1]], [prompt, prompt]);
    }
    let Event::Done(Usage { prompt_tokens, .. }) = done() else { panic!() };
    assert_eq!(usage["prompt_tokens"], prompt_tokens * 100);
    assert_eq!(fake.most_live.load(Ordering::SeqCst), 8);
    assert_eq!(fake.live.load(Ordering::SeqCst), 0);
}
