//! `POST /v1/embeddings`.

use expect_test::{Expect, expect};

use crate::{check, fake::Fake, post};

async fn embed(rest: &str, expected: Expect) {
    let body = format!(r#"{{"model":"vectors",{rest}}}"#);
    check(&Fake::parrot(), post("/v1/embeddings", &body), expected).await;
}

#[tokio::test]
async fn every_form_of_input() {
    embed(r#""input":"four""#, expect![[r#"
        200 OK
        content-type: application/json

        {"object":"list","data":[{"object":"embedding","index":0,"embedding":[4.0,4.0]}],"model":"vectors","usage":{"prompt_tokens":4,"total_tokens":4}}
    "#]]).await;
    embed(r#""input":["a","bc"],"dimensions":1"#, expect![[r#"
        200 OK
        content-type: application/json

        {"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]},{"object":"embedding","index":1,"embedding":[2.0]}],"model":"vectors","usage":{"prompt_tokens":3,"total_tokens":3}}
    "#]]).await;
    embed(r#""input":[7,8,9]"#, expect![[r#"
        200 OK
        content-type: application/json

        {"object":"list","data":[{"object":"embedding","index":0,"embedding":[3.0,3.0]}],"model":"vectors","usage":{"prompt_tokens":3,"total_tokens":3}}
    "#]]).await;
    embed(r#""input":[[7],[8,9]],"encoding_format":"base64","user":"me""#, expect![[r#"
        200 OK
        content-type: application/json

        {"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPwAAgD8="},{"object":"embedding","index":1,"embedding":"AAAAQAAAAEA="}],"model":"vectors","usage":{"prompt_tokens":3,"total_tokens":3}}
    "#]]).await;
}

#[tokio::test]
async fn refusals() {
    embed(r#""input":["a",""]"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`input[1]` is an empty string: there is nothing to embed.","type":"invalid_request_error","param":"input[1]","code":null}}
    "#]]).await;
    embed(r#""input":[]"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`input` is empty: give at least one text or token id.","type":"invalid_request_error","param":"input","code":null}}
    "#]]).await;
    embed(r#""input":["a",1]"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`input`: the array mixes strings, token ids and arrays; use one kind.","type":"invalid_request_error","param":"input","code":null}}
    "#]]).await;
    embed(r#""input":"a","dimensions":0"#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`dimensions` must be 1 or more.","type":"invalid_request_error","param":"dimensions","code":null}}
    "#]]).await;
    embed(r#""input":"a","encoding_format":"int8""#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"`encoding_format` is \"int8\", but must be float or base64.","type":"invalid_request_error","param":"encoding_format","code":null}}
    "#]]).await;
    embed(r#""input":"a","pooling":"cls""#, expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"Unknown field `pooling`: an embedding request has no such field; remove it.","type":"invalid_request_error","param":"pooling","code":"unknown_parameter"}}
    "#]]).await;
    let body = r#"{"model":"talker","input":"a"}"#;
    check(&Fake::parrot(), post("/v1/embeddings", body), expect![[r#"
        400 Bad Request
        content-type: application/json

        {"error":{"message":"The model `talker` offers no embeddings; it answers /v1/completions. Models that do: `vectors`.","type":"invalid_request_error","param":"model","code":null}}
    "#]]).await;
}
