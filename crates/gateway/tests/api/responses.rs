//! `POST /v1/responses`, whole and as events.

use expect_test::{Expect, expect};
use protocol::{Error, ErrorKind, Event, FinishReason};

use crate::{
    chat::two_calls,
    check,
    fake::{Fake, Step, done, ends, says, scored, started},
    post,
};

const PATH: &str = "/v1/responses";

async fn response(fake: &Fake, extra: &str, expected: Expect) {
    check(fake, post(PATH, &format!(r#"{{"model":"talker","input":"Hi"{extra}}}"#)), expected).await;
}

fn two_words() -> Fake {
    Fake::saying(vec![started(), says(0, "Hello"), says(0, ""), says(0, " you"), ends(0), done()])
}

#[tokio::test]
async fn whole() {
    response(&two_words(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","id":"msg_t1_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello you","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}
    "#]]).await;
    let cut = Event::Finished { choice: 0, reason: FinishReason::Length };
    let fake = Fake::saying(vec![started(), says(0, "Hel"), cut, done()]);
    let more =
        r#","instructions":"Be brief.","temperature":0.2,"max_output_tokens":1,"metadata":{"run":"1"},"user":"ann""#;
    response(&fake, more, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"message","id":"msg_t1_0","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Hel","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":"Be brief.","max_output_tokens":1,"temperature":0.2,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{"run":"1"},"user":"ann"}
    "#]]).await;
    response(&Fake::saying(vec![started(), ends(0), done()]), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","id":"msg_t1_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}
    "#]]).await;
}

#[tokio::test]
async fn streamed() {
    response(&two_words(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.in_progress
        data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"message","id":"msg_t1_0","status":"in_progress","role":"assistant","content":[]}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":3,"item_id":"msg_t1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_t1_0","output_index":0,"content_index":0,"delta":"Hello","logprobs":[]}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_t1_0","output_index":0,"content_index":0,"delta":" you","logprobs":[]}

        event: response.output_text.done
        data: {"type":"response.output_text.done","sequence_number":6,"item_id":"msg_t1_0","output_index":0,"content_index":0,"text":"Hello you","logprobs":[]}

        event: response.content_part.done
        data: {"type":"response.content_part.done","sequence_number":7,"item_id":"msg_t1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"Hello you","annotations":[],"logprobs":[]}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":8,"output_index":0,"item":{"type":"message","id":"msg_t1_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello you","annotations":[],"logprobs":[]}]}}

        event: response.completed
        data: {"type":"response.completed","sequence_number":9,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","id":"msg_t1_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello you","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}


    "#]]).await;
}

#[tokio::test]
async fn tool_calls() {
    response(&two_calls(), "", expect![[r#"
        200 OK
        content-type: application/json

        {"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"function_call","id":"fc_t1_0","status":"completed","call_id":"call_1","name":"add","arguments":"{\"a\":1}"},{"type":"function_call","id":"fc_t1_1","status":"completed","call_id":"call_2","name":"sub","arguments":"{}"}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}
    "#]]).await;
    response(&two_calls(), r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.in_progress
        data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"function_call","id":"fc_t1_0","status":"in_progress","call_id":"call_1","name":"add","arguments":""}}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":3,"item_id":"fc_t1_0","output_index":0,"delta":"{\"a\":"}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":4,"item_id":"fc_t1_0","output_index":0,"delta":"1}"}

        event: response.function_call_arguments.done
        data: {"type":"response.function_call_arguments.done","sequence_number":5,"item_id":"fc_t1_0","output_index":0,"name":"add","arguments":"{\"a\":1}"}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":6,"output_index":0,"item":{"type":"function_call","id":"fc_t1_0","status":"completed","call_id":"call_1","name":"add","arguments":"{\"a\":1}"}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":7,"output_index":1,"item":{"type":"function_call","id":"fc_t1_1","status":"in_progress","call_id":"call_2","name":"sub","arguments":""}}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":8,"item_id":"fc_t1_1","output_index":1,"delta":"{}"}

        event: response.function_call_arguments.done
        data: {"type":"response.function_call_arguments.done","sequence_number":9,"item_id":"fc_t1_1","output_index":1,"name":"sub","arguments":"{}"}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":10,"output_index":1,"item":{"type":"function_call","id":"fc_t1_1","status":"completed","call_id":"call_2","name":"sub","arguments":"{}"}}

        event: response.completed
        data: {"type":"response.completed","sequence_number":11,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"function_call","id":"fc_t1_0","status":"completed","call_id":"call_1","name":"add","arguments":"{\"a\":1}"},{"type":"function_call","id":"fc_t1_1","status":"completed","call_id":"call_2","name":"sub","arguments":"{}"}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}


    "#]]).await;
}

#[tokio::test]
async fn logprobs() {
    let token = scored("é".as_bytes(), Some(-0.1), &[(b"e", -0.05)]);
    let text = Event::Text { choice: 0, text: "é".to_owned(), logprobs: vec![token] };
    let fake = Fake::saying(vec![started(), text, ends(0), done()]);
    let more = r#","include":["message.output_text.logprobs"],"top_logprobs":1"#;
    response(&fake, more, expect![[r#"
        200 OK
        content-type: application/json

        {"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"completed","error":null,"incomplete_details":null,"output":[{"type":"message","id":"msg_t1_0","status":"completed","role":"assistant","content":[{"type":"output_text","text":"é","annotations":[],"logprobs":[{"token":"é","logprob":-0.1,"bytes":[195,169],"top_logprobs":[{"token":"e","logprob":-0.05,"bytes":[101]}]}]}]}],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":5},"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":1,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}
    "#]]).await;
}

#[tokio::test]
async fn failures() {
    let no = || Error::new(ErrorKind::Overloaded, "No.");
    response(
        &Fake::refusing(no()),
        r#","stream":true"#,
        expect![[r#"
        429 Too Many Requests
        content-type: application/json
        retry-after: 1

        {"error":{"message":"No.","type":"rate_limit_error","param":null,"code":null}}
    "#]],
    )
    .await;
    let fake = Fake::new(move |_| Ok(vec![Step::Send(started()), Step::Send(says(0, "a")), Step::Fail(no())]));
    response(&fake, r#","stream":true"#, expect![[r#"
        200 OK
        content-type: text/event-stream

        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.in_progress
        data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"in_progress","error":null,"incomplete_details":null,"output":[],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"message","id":"msg_t1_0","status":"in_progress","role":"assistant","content":[]}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":3,"item_id":"msg_t1_0","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_t1_0","output_index":0,"content_index":0,"delta":"a","logprobs":[]}

        event: response.failed
        data: {"type":"response.failed","sequence_number":5,"response":{"id":"resp_t1","object":"response","created_at":0,"model":"talker","status":"failed","error":{"code":"rate_limit_exceeded","message":"No."},"incomplete_details":null,"output":[{"type":"message","id":"msg_t1_0","status":"in_progress","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}],"usage":null,"instructions":null,"max_output_tokens":null,"temperature":1.0,"top_p":1.0,"top_logprobs":0,"text":{"format":{"type":"text"}},"tools":[],"tool_choice":"auto","parallel_tool_calls":true,"reasoning":null,"truncation":"disabled","store":false,"background":false,"previous_response_id":null,"metadata":{}}}


    "#]]).await;
    response(&Fake::parrot(), r#","store":true"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`store` true is not supported: responses are not kept here; leave it out or send false.","type":"invalid_request_error","param":"store","code":"unsupported_parameter"}}
    "#]]).await;
}
