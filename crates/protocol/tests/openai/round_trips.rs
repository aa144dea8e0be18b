//! Plain requests survive the way over the wire; bytes of any kind are an answer or an error, never a panic.

use proptest::{collection::vec, option, prelude::*};
use protocol::{
    Chat, DrawRequest, EmbedRequest, Format, GenerateRequest, Message, Prompt, Sampling, Stop, TextOrTokens, Tool,
    ToolCall, ToolChoice,
    openai::{chat, completion, embedding, fields, image, responses},
};
use serde_json::{Map, Value, json};

fn sampling() -> impl Strategy<Value = Sampling> {
    let cuts = (0.0f32..=2.0, 0usize..100, 0.0f32..=1.0, 0.0f32..=1.0);
    let penalties = (-2.0f32..=2.0, -2.0f32..=2.0, 0.01f32..=10.0);
    let bias = prop::collection::btree_map(any::<u32>(), -100.0f32..=100.0, 0..3);
    (cuts, penalties, bias, option::of(any::<u64>())).prop_map(|(cuts, penalties, logit_bias, seed)| Sampling {
        temperature: cuts.0,
        top_k: cuts.1,
        top_p: cuts.2,
        min_p: cuts.3,
        presence_penalty: penalties.0,
        frequency_penalty: penalties.1,
        repetition_penalty: penalties.2,
        logit_bias,
        seed,
    })
}

fn stop() -> impl Strategy<Value = Stop> {
    let parts = (1usize..100_000, vec(".{1,8}", 0..4), any::<bool>());
    parts.prop_map(|(max, strings, ignore_eos)| Stop { max_tokens: Some(max), strings, ignore_eos })
}

fn format() -> impl Strategy<Value = Format> {
    prop_oneof![
        Just(Format::Text),
        Just(Format::JsonObject),
        schema().prop_map(Format::JsonSchema),
        ".{0,8}".prop_map(Format::Regex),
        ".{0,8}".prop_map(Format::Lark),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    vec("[a-z]{1,5}", 0..3).prop_map(|names| {
        let properties: Map<String, Value> = names.into_iter().map(|n| (n, json!({"type": "integer"}))).collect();
        json!({"type": "object", "properties": properties})
    })
}

/// Everything but the prompt; `top` is the most alternatives the wire has.
fn settings(top: usize) -> impl Strategy<Value = GenerateRequest> {
    let rest = ("[a-z]{1,8}", 1usize..=128, option::of(0..=top), "[a-z]{0,5}");
    (sampling(), stop(), format(), rest).prop_map(|(sampling, stop, format, (model, n, logprobs, tenant))| {
        let neutral = GenerateRequest::new(Prompt::Chat(Chat::default()), 0);
        GenerateRequest { model, sampling, stop, format, n, logprobs, tenant, ..neutral }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let call = ("[a-z]{1,5}", "[a-z]{1,5}", ".{0,8}");
    let call = call.prop_map(|(id, name, arguments)| ToolCall { id, name, arguments });
    let role = prop::sample::select(vec!["system", "developer", "user", "assistant", "tool"]);
    let parts = (role, ".{0,20}", option::of("[a-z]{1,5}"), vec(call, 0..3), any::<bool>());
    parts.prop_map(|(role, content, name, calls, silent)| {
        let tool_calls = if role == "assistant" { calls } else { Vec::new() };
        let content = (!silent || tool_calls.is_empty()).then_some(content);
        let tool_call_id = (role == "tool").then(|| "c".to_owned());
        Message { role: role.to_owned(), content, name, tool_calls, tool_call_id }
    })
}

fn tools() -> impl Strategy<Value = (Vec<Tool>, ToolChoice)> {
    let tool = (option::of(".{0,8}"), option::of(schema()), any::<bool>());
    (vec(tool, 0..3), 0usize..4).prop_map(|(tools, choice)| {
        let named = |(i, (description, parameters, strict))| Tool {
            name: format!("tool_{i}"),
            description,
            parameters,
            strict,
        };
        let tools: Vec<Tool> = tools.into_iter().enumerate().map(named).collect();
        let choice = match (choice, tools.first()) {
            (1, _) => ToolChoice::None,
            (2, Some(_)) => ToolChoice::Required,
            (3, Some(tool)) => ToolChoice::Named(tool.name.clone()),
            _ => ToolChoice::Auto,
        };
        (tools, choice)
    })
}

fn conversation() -> impl Strategy<Value = Chat> {
    let args = prop::collection::btree_map("[a-z_]{1,8}", any::<bool>().prop_map(Value::from), 0..3);
    let parts = (vec(message(), 1..5), tools(), any::<bool>(), args, any::<bool>());
    parts.prop_map(|(messages, (tools, tool_choice), parallel_tool_calls, template_args, continue_last)| Chat {
        messages,
        tools,
        tool_choice,
        parallel_tool_calls,
        template_args,
        continue_last,
    })
}

fn text_or_tokens() -> impl Strategy<Value = TextOrTokens> {
    prop_oneof![".{1,20}".prop_map(TextOrTokens::Text), vec(any::<u32>(), 1..8).prop_map(TextOrTokens::Tokens)]
}

/// The items that stand for these messages.
fn items(messages: &[Message]) -> Vec<Value> {
    let mut items = Vec::new();
    for message in messages {
        match &message.tool_call_id {
            Some(id) => {
                let output = json!({"type": "function_call_output", "call_id": id, "output": message.content});
                items.push(output);
            }
            None => items.push(json!({"role": message.role, "content": message.content})),
        }
        let calls = message.tool_calls.iter().map(
            |call| json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}),
        );
        items.extend(calls);
    }
    items
}

/// A response request for a conversation, written by hand.
fn response_request(plain: &GenerateRequest, chat: &Chat) -> Value {
    let tool = |tool: &Tool| {
        let Tool { name, description, parameters, strict } = tool;
        json!({"type": "function", "name": name, "description": description, "parameters": parameters, "strict": strict})
    };
    let choice = match &chat.tool_choice {
        ToolChoice::Auto => json!("auto"),
        ToolChoice::None => json!("none"),
        ToolChoice::Required => json!("required"),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    };
    let format = match &plain.format {
        Format::JsonObject => json!({"type": "json_object"}),
        Format::JsonSchema(schema) => json!({"type": "json_schema", "name": "n", "schema": schema}),
        _ => json!({"type": "text"}),
    };
    let include = plain.logprobs.map(|_| json!(["message.output_text.logprobs"]));
    json!({
        "model": plain.model, "input": items(&chat.messages), "tools": chat.tools.iter().map(tool).collect::<Vec<_>>(),
        "tool_choice": choice, "parallel_tool_calls": chat.parallel_tool_calls, "text": {"format": format},
        "temperature": plain.sampling.temperature, "top_p": plain.sampling.top_p,
        "seed": plain.sampling.seed.map(u64::cast_signed), "max_output_tokens": plain.stop.max_tokens,
        "include": include, "top_logprobs": plain.logprobs, "safety_identifier": plain.tenant,
    })
}

/// What a response request cannot say is neutral: turns have no names, and calls stand behind the text of their turn.
fn sayable(mut plain: GenerateRequest, mut chat: Chat) -> (GenerateRequest, Chat) {
    for message in &mut chat.messages {
        message.name = None;
        message.content.get_or_insert_default();
    }
    chat.template_args.clear();
    chat.continue_last = false;
    let Sampling { temperature, top_p, seed, .. } = plain.sampling;
    plain.sampling = Sampling { temperature, top_p, seed, ..Sampling::default() };
    plain.stop = Stop { max_tokens: plain.stop.max_tokens, ..Stop::default() };
    plain.n = 1;
    if matches!(plain.format, Format::Regex(_) | Format::Lark(_)) {
        plain.format = Format::Text;
    }
    (plain, chat)
}

/// JSON of any shape under the names that requests use, so that parsers get past the first field.
fn bodies() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["user", "text", "function", "json_schema", "auto"]).prop_map(Value::from),
    ];
    let names: Vec<&str> = fields::OBJECTS.iter().flat_map(|object| object.fields).map(|field| field.name).collect();
    let nested =
        ["type", "text", "function", "json_schema", "schema", "grammar", "regex", "id", "allowed_tools", "mode"];
    let names = prop::sample::select([names, nested.to_vec()].concat());
    leaf.prop_recursive(5, 64, 6, move |inner| {
        let object = vec((names.clone(), inner.clone()), 0..6);
        let object = object.prop_map(|entries| entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        prop_oneof![vec(inner, 0..5).prop_map(Value::Array), object.prop_map(Value::Object)]
    })
}

proptest! {
    #[test]
    fn chats(settings in settings(20), chat in conversation()) {
        let plain = GenerateRequest { prompt: Prompt::Chat(chat.clone()), ..settings };
        let wire = serde_json::to_vec(&chat::ChatRequest::show(&plain, &chat)).unwrap();
        prop_assert_eq!(chat::parse(&wire).unwrap().requests, vec![plain]);
    }

    #[test]
    fn responses(settings in settings(20), chat in conversation()) {
        let (settings, chat) = sayable(settings, chat);
        let wire = response_request(&settings, &chat).to_string();
        let plain = GenerateRequest { prompt: Prompt::Chat(chat), ..settings };
        prop_assert_eq!(responses::parse(wire.as_bytes()).unwrap().call.requests, vec![plain]);
    }

    #[test]
    fn completions(settings in settings(100), prompt in text_or_tokens(), echo in any::<bool>(), from in 0usize..9) {
        let score_from = if echo && settings.logprobs.is_some() { from } else { 0 };
        let plain = GenerateRequest { prompt: Prompt::Raw(prompt.clone()), echo, score_from, ..settings };
        let wire = serde_json::to_vec(&completion::CompletionRequest::show(&plain, &prompt)).unwrap();
        prop_assert_eq!(completion::parse(&wire).unwrap().requests, vec![plain]);
    }

    #[test]
    fn embeddings(texts in vec(".{1,9}", 1..4), ids in vec(vec(any::<u32>(), 1..4), 1..4), text in any::<bool>(),
                  dimensions in option::of(1usize..999)) {
        let texts = texts.into_iter().map(TextOrTokens::Text).collect();
        let ids = ids.into_iter().map(TextOrTokens::Tokens).collect();
        let plain = EmbedRequest { model: "m".to_owned(), inputs: if text { texts } else { ids }, dimensions };
        let wire = serde_json::to_vec(&embedding::EmbeddingRequest::show(&plain)).unwrap();
        prop_assert_eq!(embedding::parse(&wire).unwrap().request, plain);
    }

    #[test]
    fn images(prompt in "[a-z].{0,9}", n in 1usize..=10, size in option::of((1u32..8192, 1u32..8192)),
              seed in option::of(any::<u64>()), tenant in "[a-z]{0,5}") {
        let plain = DrawRequest { id: String::new(), model: "m".to_owned(), prompt, n, size, seed, tenant };
        let wire = serde_json::to_vec(&image::ImageRequest::show(&plain)).unwrap();
        prop_assert_eq!(image::parse(&wire).unwrap().request, plain);
    }

    #[test]
    fn no_body_panics(body in bodies(), bytes in vec(any::<u8>(), 0..200)) {
        let mut named = body.clone();
        if let Value::Object(map) = &mut named {
            map.insert("model".to_owned(), "m".into());
        }
        for bytes in [&bytes, body.to_string().as_bytes(), named.to_string().as_bytes()] {
            drop((chat::parse(bytes), completion::parse(bytes), embedding::parse(bytes)));
            drop((responses::parse(bytes), image::parse(bytes)));
        }
    }
}

/// Seeds cover the whole range of the wire's signed number.
#[test]
fn negative_seeds_are_seeds() {
    let body = br#"{"model":"m","prompt":"x","seed":-1}"#;
    assert_eq!(completion::parse(body).unwrap().requests[0].sampling.seed, Some(u64::MAX));
}
