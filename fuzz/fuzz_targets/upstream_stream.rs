//! Any bytes as a stream of an upstream, of either API, cut at a place that the bytes name: events or an error come out.

#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{anthropic, openai, sse::Decoder};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let (before, after) = data.split_at(usize::from(cut).min(data.len()));
    let mut frames = Decoder::default();
    if frames.push(before).and_then(|()| frames.push(after)).is_err() {
        return;
    }
    frames.finish();
    let mut openai = openai::Reader::new(2, vec!["END".to_owned()]);
    let mut anthropic = anthropic::Reader::new(vec!["END".to_owned()]);
    while let Some(frame) = frames.next_frame() {
        let _ = openai.push(&frame.data);
        let _ = anthropic.push(&frame.data);
    }
    let _ = openai.finish();
});
