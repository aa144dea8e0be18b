//! Every mistake is named by the path of its field.

use protocol::{
    Error,
    openai::{chat, completion, embedding, responses},
};

/// `param | message` of the error this body gives.
fn refused(parse: impl Fn(&[u8]) -> Result<(), Error>, body: &str) -> String {
    let error = parse(body.as_bytes()).expect_err(body);
    format!("{} | {}", error.param.as_deref().unwrap_or("-"), error.message)
}

fn check_chat(extra: &str, expected: &str) {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],{extra}}}"#);
    assert_eq!(refused(|body| chat::parse(body).map(drop), &body), expected);
}

fn check_messages(messages: &str, expected: &str) {
    let body = format!(r#"{{"model":"m","messages":{messages}}}"#);
    assert_eq!(refused(|body| chat::parse(body).map(drop), &body), expected);
}

fn check_completion(extra: &str, expected: &str) {
    let body = format!(r#"{{"model":"m",{extra}}}"#);
    assert_eq!(refused(|body| completion::parse(body).map(drop), &body), expected);
}

#[test]
fn numbers_out_of_range() {
    check_chat(
        r#""continue_final_message":true,"add_generation_prompt":true"#,
        "add_generation_prompt | `add_generation_prompt` must be false here: leave it out.",
    );
    check_chat(
        r#""add_generation_prompt":false"#,
        "add_generation_prompt | `add_generation_prompt` must be true here: leave it out.",
    );
    check_chat(r#""temperature":2.5"#, "temperature | `temperature` is 2.5, but must be between 0 and 2.");
    check_chat(r#""temperature":1e3"#, "temperature | `temperature` is 1000, but must be between 0 and 2.");
    check_chat(r#""top_p":-0.1"#, "top_p | `top_p` is -0.1, but must be between 0 and 1.");
    check_chat(r#""min_p":2"#, "min_p | `min_p` is 2, but must be between 0 and 1.");
    check_chat(r#""top_k":-2"#, "top_k | `top_k` is -2, but must be 1 or more, or 0 or -1 to keep all tokens.");
    check_chat(r#""n":0"#, "n | `n` is 0, but must be between 1 and 128.");
    check_chat(r#""n":129"#, "n | `n` is 129, but must be between 1 and 128.");
    check_chat(r#""presence_penalty":3"#, "presence_penalty | `presence_penalty` is 3, but must be between -2 and 2.");
    check_chat(
        r#""frequency_penalty":-3"#,
        "frequency_penalty | `frequency_penalty` is -3, but must be between -2 and 2.",
    );
    check_chat(
        r#""repetition_penalty":0"#,
        "repetition_penalty | `repetition_penalty` is 0, but must be above 0 and at most 10.",
    );
    check_chat(
        r#""logprobs":true,"top_logprobs":21"#,
        "top_logprobs | `top_logprobs` is 21, but must be between 0 and 20.",
    );
    check_chat(r#""top_logprobs":1"#, "top_logprobs | `top_logprobs` needs `logprobs` to be true.");
    check_chat(r#""logit_bias":{"5":101}"#, "logit_bias.5 | `logit_bias.5` is 101, but must be between -100 and 100.");
    check_chat(
        r#""logit_bias":{"five":1}"#,
        "logit_bias.five | `logit_bias.five`: the key must be a token id, such as \"50256\".",
    );
    check_completion(r#""prompt":"x","logprobs":101"#, "logprobs | `logprobs` is 101, but must be between 0 and 100.");
}

#[test]
fn wrong_types() {
    check_chat(
        r#""temperature":"hot""#,
        "temperature | `temperature`: invalid type: string \"hot\", expected a number.",
    );
    check_chat(r#""n":1.5"#, "n | `n`: invalid type: floating point `1.5`, expected a whole number, 0 or more.");
    check_chat(r#""n":-1"#, "n | `n`: invalid value: integer `-1`, expected a whole number, 0 or more.");
    check_chat(r#""stream":"yes""#, "stream | `stream`: invalid type: string \"yes\", expected true or false.");
    check_chat(r#""stop":5"#, "stop | `stop`: invalid type: integer `5`, expected a string or an array of strings.");
    check_chat(r#""stop":["a",5]"#, "stop[1] | `stop[1]`: invalid type: integer `5`, expected a string.");
    check_chat(r#""logit_bias":[]"#, "logit_bias | `logit_bias`: invalid type: array, expected an object.");
    check_chat(
        r#""logit_bias":{"5":"x"}"#,
        "logit_bias.5 | `logit_bias.5`: invalid type: string \"x\", expected a number.",
    );
    check_chat(r#""tools":{}"#, "tools | `tools`: invalid type: object, expected an array.");
    check_messages("5", "messages | `messages`: invalid type: integer `5`, expected an array.");
    check_messages("[5]", "messages[0] | `messages[0]`: invalid type: integer `5`, expected an object.");
}

#[test]
fn limits_and_stops() {
    check_chat(r#""max_tokens":0"#, "max_tokens | `max_tokens` is 0, but must be between 1 and 18446744073709551615.");
    check_chat(
        r#""max_tokens":5,"max_completion_tokens":6"#,
        "max_tokens | `max_tokens` is 5 but `max_completion_tokens` is 6: they are one; send one.",
    );
    let many = vec!["\"x\""; 17].join(",");
    check_chat(&format!(r#""stop":[{many}]"#), "stop | `stop` has 17 strings; at most 16 are watched for.");
    check_chat(r#""stop":["a",""]"#, "stop[1] | `stop[1]` must have between 1 and 1024 bytes.");
    check_chat(
        r#""stream_options":{"include_usage":true}"#,
        "stream_options | `stream_options` needs `stream` to be true.",
    );
    check_chat(
        r#""stream":true,"stream_options":{"include_obfuscation":true}"#,
        "stream_options.include_obfuscation | `stream_options.include_obfuscation` is not supported: no padding is sent; leave it out.",
    );
    check_chat(
        r#""stream":true,"stream_options":{"every":1}"#,
        "stream_options.every | Unknown field `stream_options.every`: stream_options has no such field; remove it.",
    );
}

/// What is wrong with messages, and what is said.
const MESSAGES: &[(&str, &str)] = &[
    ("[]", "messages | `messages` is required: give at least one message."),
    (
        r#"[{"content":"x"}]"#,
        "messages[0].role | `messages[0].role` is \"\", but must be one of system, developer, user, assistant, tool.",
    ),
    (
        r#"[{"role":"function","name":"f","content":"x"}]"#,
        "messages[0].role | `messages[0].role` function was replaced by `tool`; send role tool with tool_call_id.",
    ),
    (
        r#"[{"role":"user"}]"#,
        "messages[0].content | `messages[0].content` is required: a string or an array of text parts.",
    ),
    (
        r#"[{"role":"user","content":"x"},{"role":"assistant"}]"#,
        "messages[1].content | `messages[1].content` is required: a string or an array of text parts.",
    ),
    (
        r#"[{"role":"user","content":7}]"#,
        "messages[0].content | `messages[0].content`: invalid type: integer `7`, expected a string or an array of text parts.",
    ),
    (
        r#"[{"role":"user","content":[]}]"#,
        "messages[0].content | `messages[0].content` is empty: give at least one text part.",
    ),
    (
        r#"[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]}]"#,
        "messages[0].content[1].type | `messages[0].content[1].type` \"image_url\" is not supported: this server reads text parts only.",
    ),
    (
        r#"[{"role":"user","content":[{"type":"text","text":5}]}]"#,
        "messages[0].content[0].text | `messages[0].content[0].text`: invalid type: integer `5`, expected a string.",
    ),
    (
        r#"[{"role":"user","content":[{"type":"text"}]}]"#,
        "messages[0].content[0].text | `messages[0].content[0].text` is required: a string.",
    ),
    (
        r#"[{"role":"user","content":[{"type":"text","text":"a","cache_control":{}}]}]"#,
        "messages[0].content[0].cache_control | Unknown field `messages[0].content[0].cache_control`: a text part has no such field; remove it.",
    ),
    (
        r#"[{"role":"user","content":"x","mood":"good"}]"#,
        "messages[0].mood | Unknown field `messages[0].mood`: a message has no such field; remove it.",
    ),
    (
        r#"[{"role":"user","content":"x","tool_call_id":"c"}]"#,
        "messages[0].tool_call_id | `messages[0].tool_call_id` belongs to messages of role tool, not user.",
    ),
    (
        r#"[{"role":"tool","content":"x"}]"#,
        "messages[0].tool_call_id | `messages[0].tool_call_id` is required: the id of the call this answers.",
    ),
    (
        r#"[{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"arguments":"{}"}}]}]"#,
        "messages[0].tool_calls[0].function.name | `messages[0].tool_calls[0].function.name` is required.",
    ),
    (
        r#"[{"role":"assistant","content":"x","function_call":{"name":"f","arguments":""}}]"#,
        "messages[0].function_call | `messages[0].function_call` is not supported: it was replaced by `tool_calls`; send tool_calls instead.",
    ),
];

#[test]
fn messages() {
    MESSAGES.iter().for_each(|(messages, expected)| check_messages(messages, expected));
}

#[test]
fn tools() {
    let f = r#"{"type":"function","function":{"name":"f"}}"#;
    check_chat(
        r#""tools":[{"type":"custom","custom":{"name":"c"}}]"#,
        "tools[0].type | `tools[0].type` is \"custom\", but must be function: there are no other tools here.",
    );
    check_chat(
        r#""tools":[{"type":"function","function":{"name":"a b"}}]"#,
        "tools[0].function.name | `tools[0].function.name` must be 1 to 64 letters, digits, `_` or `-`.",
    );
    check_chat(
        r#""tools":[{"type":"function","function":{"name":"f","parameters":[]}}]"#,
        "tools[0].function.parameters | `tools[0].function.parameters` must be a JSON schema, that is an object.",
    );
    check_chat(
        &format!(r#""tools":[{f},{f}]"#),
        "tools[1].function.name | `tools[1].function.name`: there are two functions called \"f\".",
    );
    check_chat(
        r#""tool_choice":"required""#,
        "tool_choice | `tool_choice` is required, but there are no `tools` to call.",
    );
    check_chat(
        r#""tool_choice":"any""#,
        "tool_choice | `tool_choice` is \"any\", but must be none, auto, required or an object.",
    );
    check_chat(
        &format!(r#""tools":[{f}],"tool_choice":{{"type":"function","function":{{"name":"g"}}}}"#),
        "tool_choice.function.name | `tool_choice.function.name`: \"g\" is not one of the `tools` of this request.",
    );
    check_chat(
        &format!(
            r#""tools":[{f}],"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"mode":"any","tools":[{f}]}}}}"#
        ),
        "tool_choice.allowed_tools.mode | `tool_choice.allowed_tools.mode` is \"any\", but must be none, auto, required or an object.",
    );
}

#[test]
fn formats() {
    check_chat(
        r#""response_format":{"type":"xml"}"#,
        "response_format.type | `response_format.type` is \"xml\", but must be text, json_object, json_schema, regex, lark or grammar.",
    );
    check_chat(
        r#""response_format":{"type":"json_schema"}"#,
        "response_format.json_schema | `response_format.json_schema` is required by this type of `response_format`.",
    );
    check_chat(
        r#""response_format":{"type":"json_schema","json_schema":{"schema":{}}}"#,
        "response_format.json_schema.name | `response_format.json_schema.name` is required: any word, such as \"answer\".",
    );
    check_chat(
        r#""response_format":{"type":"json_schema","json_schema":{"name":"a","schema":[]}}"#,
        "response_format.json_schema.schema | `response_format.json_schema.schema` must be a JSON schema, that is an object.",
    );
    check_chat(
        r#""response_format":{"type":"text","regex":"a"}"#,
        "response_format.regex | Unknown field `response_format.regex`: a `response_format` of type text has no such field; remove it.",
    );
    check_chat(
        r#""response_format":{"type":"grammar","grammar":{"syntax":"bnf","definition":"x"}}"#,
        "response_format.grammar.syntax | `response_format.grammar.syntax` is \"bnf\", but must be lark or regex.",
    );
}

/// What is wrong with a response request beside its model and input, and what is said.
const RESPONSES: &[(&str, &str)] = &[
    (r#""input":[]"#, "input | `input` is empty: give at least one item."),
    (r#""input":5"#, "input | `input`: invalid type: integer `5`, expected a string or an array of items."),
    (r#""input":[5]"#, "input[0] | `input[0]`: invalid type: integer `5`, expected an object."),
    (
        r#""input":[{"role":"tool","content":"x"}]"#,
        "input[0].role | `input[0].role` is \"tool\", but must be one of system, developer, user, assistant.",
    ),
    (
        r#""input":[{"role":"user","content":[{"type":"input_image","image_url":"u"}]}]"#,
        "input[0].content[0].type | `input[0].content[0].type` \"input_image\" is not supported here: this turn may hold input_text.",
    ),
    (
        r#""input":[{"role":"user","content":[{"type":"input_text","text":5}]}]"#,
        "input[0].content[0].text | `input[0].content[0].text`: invalid type: integer `5`, expected a string.",
    ),
    (
        r#""input":[{"type":"item_reference","id":"msg_1"}]"#,
        "input[0].type | `input[0].type` \"item_reference\" is not supported: nothing is stored here that could be referred to; send the item itself.",
    ),
    (
        r#""input":[{"type":"web_search_call","id":"ws_1"}]"#,
        "input[0].type | `input[0].type` \"web_search_call\" is not supported: items here are message, function_call and function_call_output.",
    ),
    (
        r#""input":[{"type":"function_call","call_id":"c","arguments":"{}"}]"#,
        "input[0].name | `input[0].name` is required.",
    ),
    (
        r#""input":[{"type":"function_call_output","call_id":"c"}]"#,
        "input[0].output | `input[0].output` is required: a string or an array of text parts.",
    ),
    (
        r#""input":"x","store":true"#,
        "store | `store` true is not supported: responses are not kept here; leave it out or send false.",
    ),
    (
        r#""input":"x","previous_response_id":"resp_1""#,
        "previous_response_id | `previous_response_id` is not supported: responses are not kept here; send the items of the conversation as input.",
    ),
    (
        r#""input":"x","conversation":"conv_1""#,
        "conversation | `conversation` is not supported: conversations are not kept here; send their items as input.",
    ),
    (
        r#""input":"x","background":true"#,
        "background | `background` true is not supported: an answer is made while its caller waits; leave it out or send false.",
    ),
    (
        r#""input":"x","truncation":"auto""#,
        "truncation | `truncation` auto is not supported: nothing of a conversation is dropped here; leave it out.",
    ),
    (
        r#""input":"x","tools":[{"type":"web_search"}]"#,
        "tools[0].type | `tools[0].type` \"web_search\" is not supported: no tools are hosted here; tools are functions.",
    ),
    (
        r#""input":"x","tools":[{"type":"function","name":"f"}],"tool_choice":{"type":"function","name":"g"}"#,
        "tool_choice.name | `tool_choice.name`: \"g\" is not one of the `tools` of this request.",
    ),
    (
        r#""input":"x","text":{"format":{"type":"json_schema","name":"n"}}"#,
        "text.format.schema | `text.format.schema` is required by json_schema: a JSON schema, an object.",
    ),
    (
        r#""input":"x","text":{"format":{"type":"text","schema":{}}}"#,
        "text.format.schema | `text.format.schema` belongs to the type json_schema; remove it.",
    ),
    (
        r#""input":"x","include":["file_search_call.results"]"#,
        "include[0] | `include[0]` \"file_search_call.results\" is not supported: only message.output_text.logprobs can be included.",
    ),
    (
        r#""input":"x","top_logprobs":3"#,
        "top_logprobs | `top_logprobs` needs `include` to hold \"message.output_text.logprobs\".",
    ),
    (
        r#""input":"x","reasoning":{"effort":"huge"}"#,
        "reasoning.effort | `reasoning.effort` is \"huge\", but must be one of none, minimal, low, medium, high, xhigh.",
    ),
    (r#""input":"x","stream_options":{}"#, "stream_options | `stream_options` needs `stream` to be true."),
    (
        r#""input":"x","max_output_tokens":0"#,
        "max_output_tokens | `max_output_tokens` is 0, but must be between 1 and 18446744073709551615.",
    ),
    (r#""instructions":"x""#, "input | `input` is required: a string, or an array of items such as messages."),
];

#[test]
fn response_requests() {
    for (fields, expected) in RESPONSES {
        let body = format!(r#"{{"model":"m",{fields}}}"#);
        assert_eq!(refused(|body| responses::parse(body).map(drop), &body), *expected);
    }
}

#[test]
fn other_fields() {
    check_chat(
        r#""modalities":["text","audio"]"#,
        "modalities[1] | `modalities[1]` is not supported: this server answers in text; send [\"text\"].",
    );
    check_chat(
        r#""reasoning_effort":"huge""#,
        "reasoning_effort | `reasoning_effort` is \"huge\", but must be one of none, minimal, low, medium, high, xhigh.",
    );
    check_chat(
        r#""audio":{"voice":"alloy"}"#,
        "audio | `audio` is not supported: this server answers in text; leave it out.",
    );
    check_chat(
        r#""top_q":1"#,
        "top_q | Unknown field `top_q`: a chat completion request has no such field; remove it.",
    );
    check_completion(
        r#""prompt":"x","suffix":"y""#,
        "suffix | `suffix` is not supported: text cannot be inserted before a suffix here; put both sides into the prompt.",
    );
    check_completion(
        r#""prompt":"x","best_of":3"#,
        "best_of | `best_of` is 3 but `n` is 1: nothing is drawn and thrown away here; leave it out.",
    );
    check_completion(
        r#""prompt":"x","score_from":3"#,
        "score_from | `score_from` is 3, but only `echo` with `logprobs` scores a prompt.",
    );
}

#[test]
fn prompts() {
    check_completion(r#""n":1"#, "prompt | `prompt` is required: what to continue.");
    check_completion(r#""prompt":[]"#, "prompt | `prompt` is empty: give at least one text or token id.");
    check_completion(r#""prompt":[[1],[]]"#, "prompt[1] | `prompt[1]` has no token ids: give at least one.");
    check_completion(
        r#""prompt":["a",1]"#,
        "prompt | `prompt`: the array mixes strings, token ids and arrays; use one kind.",
    );
    check_completion(
        r#""prompt":[1,"a"]"#,
        "prompt | `prompt`: the array mixes strings, token ids and arrays; use one kind.",
    );
    check_completion(
        r#""prompt":[[1],["a"]]"#,
        "prompt[1][0] | `prompt[1][0]`: invalid type: string \"a\", expected a whole number, 0 or more.",
    );
    check_completion(r#""prompt":[4294967296]"#, "prompt[0] | `prompt[0]`: 4294967296 is too large for a token id.");
    check_completion(
        r#""prompt":{}"#,
        "prompt | `prompt`: invalid type: object, expected a string, an array of strings, an array of token ids, or an array of arrays of token ids.",
    );
    let many = format!(r#""prompt":[{}]"#, vec!["\"x\""; 2049].join(","));
    check_completion(&many, "prompt | `prompt` has 2049 entries; at most 2048 fit in one request.");
}

#[test]
fn broken_json() {
    let chat = |body: &[u8]| chat::parse(body).map(drop);
    let embed = |body: &[u8]| embedding::parse(body).map(drop);
    let said = "- | The request body is not valid JSON: ";
    assert_eq!(refused(chat, "{\n\"model\": }"), format!("{said}expected value at line 2 column 10."));
    assert_eq!(refused(embed, "{"), format!("{said}EOF while parsing an object at line 1 column 1."));
    assert_eq!(
        refused(chat, "{\"model\":\"a\",\"model\":\"b\"}"),
        "- | The request body does not fit: duplicate field `model`."
    );
    let deep = "[".repeat(10_000);
    assert!(refused(chat, &format!("{{\"metadata\":{deep}")).contains("recursion limit"));
    assert!(chat(b"\xff\xfe").is_err());
}
