//! Events become the same reply whether they are sent in pieces or collected first.

use proptest::{collection::vec, prelude::*};
use protocol::{
    Event, FinishReason, Hop, Reason, TokenLogprob, Usage, anthropic,
    openai::{
        Call, Chunk, Collected, Envelope, Streamed, chat, completion,
        responses::{self, OutputItem, Payload, ResponseBody, ResponseEvent},
    },
};

fn call(body: &str) -> Call {
    match body.contains("messages") {
        true => chat::parse(body.as_bytes()).unwrap(),
        false => completion::parse(body.as_bytes()).unwrap(),
    }
}

fn token() -> impl Strategy<Value = TokenLogprob> {
    let top = vec((any::<u32>(), vec(any::<u8>(), 0..3), -9.0f32..0.0), 0..3);
    let parts = (any::<u32>(), vec(any::<u8>(), 0..4), prop::option::of(-9.0f32..0.0), top);
    parts.prop_map(|(id, bytes, logprob, top)| TokenLogprob { id, bytes, logprob, top })
}

/// Texts and calls of two choices; calls come in order, as services send them.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let text = (0..2usize, ".{0,6}", vec(token(), 0..3));
    let text = text.prop_map(|(choice, text, logprobs)| Event::Text { choice, text, logprobs });
    let call = (0..2usize, "[a-z]{1,4}", ".{0,6}", any::<bool>());
    let call = call.prop_map(|(choice, name, arguments, new)| {
        let first = new.then_some(name);
        Event::ToolCall { choice, index: 0, id: first.clone(), name: first, arguments }
    });
    vec(prop_oneof![text, call], 0..20).prop_map(numbered)
}

/// Gives calls their index and the first delta of each its id, then ends both choices.
fn numbered(mut events: Vec<Event>) -> Vec<Event> {
    let mut begun = [0usize; 2];
    for event in &mut events {
        if let Event::ToolCall { choice, index, id, name, .. } = event {
            let count = &mut begun[*choice];
            if id.is_some() || *count == 0 {
                *count += 1;
                (*id, *name) = (Some(format!("call_{count}")), Some("f".to_owned()));
            }
            *index = *count - 1;
        }
    }
    let finished = (0..2).map(|choice| Event::Finished { choice, reason: FinishReason::Length });
    let usage = Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens: 2, processor_micros: Some(1500) };
    events.into_iter().chain(finished).chain([Event::Done(usage)]).collect()
}

fn pieces<S: Streamed>(mut stream: S, events: &[Event]) -> Vec<S::Chunk> {
    let mut chunks: Vec<_> = events.iter().flat_map(|event| stream.push(0, event.clone())).collect();
    chunks.extend(stream.finish());
    chunks
}

fn collected<C: Collected>(mut collector: C, events: &[Event]) -> C::Body {
    events.iter().for_each(|event| collector.push(0, event.clone()));
    collector.finish()
}

/// What a client puts together from the chunks of one choice.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    role: String,
    text: String,
    calls: Vec<(String, String, String)>,
    scores: String,
    finish: Option<String>,
}

fn assemble(chunks: &[chat::ChatChunk], choice: usize) -> Answer {
    let mut answer = Answer::default();
    for piece in chunks.iter().flat_map(|chunk| &chunk.choices).filter(|piece| piece.index == choice) {
        assert_eq!(answer.finish, None, "nothing follows the end");
        answer.role += piece.delta.role.as_deref().unwrap_or_default();
        answer.text += piece.delta.content.as_deref().unwrap_or_default();
        for delta in &piece.delta.tool_calls {
            if let (Some(id), Some(name)) = (&delta.id, &delta.function.name) {
                assert_eq!(answer.calls.len(), delta.index);
                answer.calls.push((id.clone(), name.clone(), String::new()));
            }
            answer.calls[delta.index].2 += &delta.function.arguments;
        }
        let scores = piece.logprobs.iter().flat_map(|logprobs| &logprobs.content);
        scores.for_each(|score| answer.scores += &format!("{score:?}"));
        answer.finish.clone_from(&piece.finish_reason);
    }
    answer
}

fn whole(body: &chat::ChatCompletion, choice: usize) -> Answer {
    let choice = &body.choices[choice];
    let call =
        |call: &chat::ToolCallBody| (call.id.clone(), call.function.name.clone(), call.function.arguments.clone());
    let scores = choice.logprobs.iter().flat_map(|logprobs| &logprobs.content);
    Answer {
        role: choice.message.role.clone(),
        text: choice.message.content.clone().unwrap_or_default(),
        calls: choice.message.tool_calls.iter().map(call).collect(),
        scores: scores.map(|score| format!("{score:?}")).collect(),
        finish: choice.finish_reason.clone(),
    }
}

/// Puts a response together from what its events say as they open, grow and close, and checks that they fit each other.
fn followed(events: &[ResponseEvent]) -> Vec<OutputItem> {
    let (mut items, mut open): (Vec<OutputItem>, Option<usize>) = (Vec::new(), None);
    for event in events {
        match &event.payload {
            Payload::Item { output_index, item } if event.kind == "response.output_item.added" => {
                assert_eq!((open, *output_index), (None, items.len()));
                items.push(item.clone());
                open = Some(*output_index);
            }
            Payload::Item { output_index, item } => {
                assert_eq!(open.take(), Some(*output_index));
                let status = |item: &OutputItem| match item {
                    OutputItem::Message { status, .. } | OutputItem::FunctionCall { status, .. } => status.clone(),
                };
                assert_ne!(status(item), "in_progress");
                grown(&mut items[*output_index], item);
            }
            Payload::Part { part, output_index, .. } if event.kind == "response.content_part.added" => {
                let OutputItem::Message { content, .. } = &mut items[*output_index] else { panic!("{event:?}") };
                content.push(part.clone());
            }
            Payload::TextDelta { output_index, delta, logprobs, .. } => {
                let OutputItem::Message { content, .. } = &mut items[*output_index] else { panic!("{event:?}") };
                content[0].text += delta;
                content[0].logprobs.extend(logprobs.iter().cloned());
            }
            Payload::ArgumentsDelta { output_index, delta, .. } => {
                let OutputItem::FunctionCall { arguments, .. } = &mut items[*output_index] else { panic!("{event:?}") };
                *arguments += delta;
            }
            _ => {}
        }
    }
    assert_eq!(open, None);
    items
}

/// What an item grew to by its deltas is what its last event says, but for the status.
fn grown(mine: &mut OutputItem, told: &OutputItem) {
    match (&mut *mine, told) {
        (OutputItem::Message { content, .. }, OutputItem::Message { content: whole, .. }) => assert_eq!(content, whole),
        (OutputItem::FunctionCall { arguments, .. }, OutputItem::FunctionCall { arguments: whole, .. }) => {
            assert_eq!(arguments, whole);
        }
        other => panic!("{other:?}"),
    }
    mine.clone_from(told);
}

fn last_response(events: &[ResponseEvent]) -> ResponseBody {
    match &events.last().unwrap().payload {
        Payload::Response { response } => (**response).clone(),
        other => panic!("{other:?}"),
    }
}

/// A whole stream of one choice: text in front of calls, as models write it.
fn one_choice(mut events: Vec<Event>) -> Vec<Event> {
    let mine = |event: &Event| match event {
        Event::Text { choice, .. } | Event::ToolCall { choice, .. } | Event::Finished { choice, .. } => *choice == 0,
        _ => true,
    };
    events.retain(mine);
    events.sort_by_key(|event| match event {
        Event::Text { .. } => 0,
        Event::ToolCall { .. } => 1,
        _ => 2,
    });
    events
}

/// An answer names the model that its prompt chose; one that a route chose is called as it was asked for.
#[test]
fn answers_name_what_their_prompt_chose() {
    let check = |reason: Reason, want: &str| {
        let hop = Hop { reason, model: "m:credit".to_owned(), ..Hop::default() };
        let text = Event::Text { choice: 0, text: "x".to_owned(), logprobs: Vec::new() };
        let end = Event::Finished { choice: 0, reason: FinishReason::Stop };
        let events = [Event::Routed(Box::new(hop)), text, end, Event::Done(Usage::default())];
        let envelope = || Envelope { model: "m:auto".to_owned(), ..Envelope::default() };
        let asked = call(r#"{"model":"m:auto","messages":[{"role":"user","content":"x"}]}"#);
        let chunks = pieces(chat::Stream::new(envelope(), &asked), &events);
        assert!(chunks.iter().all(|chunk| chunk.model == want), "{chunks:?}");
        assert_eq!(collected(chat::Collector::new(envelope(), &asked), &events).model, want);
        let raw = call(r#"{"model":"m:auto","prompt":"x"}"#);
        let chunks = pieces(completion::Stream::new(envelope(), &raw), &events);
        assert!(chunks.iter().all(|chunk| chunk.model == want), "{chunks:?}");
        assert_eq!(collected(completion::Collector::new(envelope(), &raw), &events).model, want);
        let settings = || responses::parse(br#"{"model":"m:auto","input":"x"}"#).unwrap().settings;
        assert_eq!(last_response(&pieces(responses::Stream::new(envelope(), settings()), &events)).model, want);
        assert_eq!(collected(responses::Collector::new(envelope(), settings()), &events).model, want);
        let turns = br#"{"model":"m:auto","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
        let asked = anthropic::parse(turns).unwrap();
        assert_eq!(collected(anthropic::Collector::new(envelope(), &asked), &events).model, want);
        let told = format!("{:?}", pieces(anthropic::Stream::new(envelope(), &asked), &events));
        assert!(told.contains(&format!("model: {want:?}")), "{told}");
    };
    check(Reason::Domain, "m:credit");
    check(Reason::Fallback, "m:auto");
}

proptest! {
    #[test]
    fn response_events_make_the_response(events in events()) {
        let events = one_choice(events);
        let call = responses::parse(br#"{"model":"m","input":"x","metadata":{"a":"b"},"temperature":0.3}"#).unwrap();
        let envelope = Envelope { id: "resp_1".to_owned(), ..Envelope::default() };
        let told = pieces(responses::Stream::new(envelope.clone(), call.settings.clone()), &events);
        let body = collected(responses::Collector::new(envelope, call.settings), &events);
        prop_assert!(told.iter().enumerate().all(|(i, event)| event.sequence_number == i));
        prop_assert!(told.iter().all(|event| event.name() == Some(event.kind)));
        prop_assert_eq!(&followed(&told), &body.output);
        prop_assert_eq!(last_response(&told), body.clone());
        let back: ResponseBody = serde_json::from_str(&serde_json::to_string(&body).unwrap()).unwrap();
        prop_assert_eq!(back.status, "incomplete");
        prop_assert_eq!(back.settings.temperature, 0.3);
    }

    #[test]
    fn chat_pieces_make_the_whole(events in events(), scored in any::<bool>()) {
        let call = call(&format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"n":2,"logprobs":{scored},"stream":true,
                "stream_options":{{"include_usage":true}}}}"#
        ));
        let chunks = pieces(chat::Stream::new(Envelope::default(), &call), &events);
        let body = collected(chat::Collector::new(Envelope::default(), &call), &events);
        for choice in 0..2 {
            prop_assert_eq!(assemble(&chunks, choice), whole(&body, choice));
        }
        prop_assert_eq!(chunks.last().unwrap().usage, Some(body.usage));
        prop_assert!(chunks.iter().all(|chunk| serde_json::to_string(chunk).is_ok()));
    }

    #[test]
    fn completion_pieces_make_the_whole(events in events(), scored in any::<bool>(), prompt in vec(token(), 0..4)) {
        let logprobs = if scored { r#","logprobs":2"# } else { "" };
        let call = call(&format!(r#"{{"model":"m","prompt":"x","n":2,"echo":true{logprobs}}}"#));
        let events: Vec<_> = [Event::PromptLogprobs(prompt)].into_iter().chain(events).collect();
        let chunks = pieces(completion::Stream::new(Envelope::default(), &call), &events);
        let body = collected(completion::Collector::new(Envelope::default(), &call), &events);
        for (index, choice) in body.choices.iter().enumerate() {
            let mine = chunks.iter().flat_map(|chunk| &chunk.choices).filter(|piece| piece.index == index);
            let (mut text, mut tokens, mut offsets) = (String::new(), Vec::new(), Vec::new());
            for piece in mine {
                text += &piece.text;
                tokens.extend(piece.logprobs.iter().flat_map(|l| l.tokens.clone()));
                offsets.extend(piece.logprobs.iter().flat_map(|l| l.text_offset.clone()));
            }
            prop_assert_eq!(&text, &choice.text);
            let scores = choice.logprobs.clone().unwrap_or_default();
            prop_assert_eq!((tokens, &offsets), (scores.tokens, &scores.text_offset));
            prop_assert!(offsets.is_sorted());
        }
        prop_assert_eq!(body.choices.len(), 2);
    }
}
