//! Values between a gateway and its workers: four bytes of length, the most significant first, and as many bytes of CBOR.

use bytes::{Buf, Bytes, BytesMut};
use protocol::{Error, ErrorKind};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The most bytes of a frame. The largest value is a batch of vectors: 2048 of 4096 numbers are 40 MB.
const LARGEST: usize = 64 << 20;

/// What a worker sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame<T> {
    /// The request was admitted; items follow.
    Admitted,
    /// An event, or the whole answer.
    Item(T),
    /// It failed; nothing follows.
    Failed(Error),
}

/// A frame as bytes.
pub fn encode<T: Serialize>(frame: &Frame<T>) -> Result<Bytes, Error> {
    let value = plain(frame)?;
    let length = u32::try_from(value.len()).ok().filter(|length| *length as usize <= LARGEST);
    let length = length.ok_or_else(|| Error::internal(format!("An answer of {} bytes is too large.", value.len())))?;
    let mut bytes = BytesMut::with_capacity(4 + value.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&value);
    Ok(bytes.freeze())
}

/// A value as bytes, without its length: the body of a request.
pub(super) fn plain<T: Serialize>(value: &T) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(Error::internal)?;
    Ok(bytes.into())
}

/// The value of a request's body.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    ciborium::from_reader(bytes)
        .map_err(|e| Error::new(ErrorKind::Invalid, format!("The request of the gateway is not understood: {e}.")))
}

/// Bytes in, frames out.
#[derive(Debug, Default)]
pub(super) struct Decoder(BytesMut);

impl Decoder {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next_frame<T: DeserializeOwned>(&mut self) -> Result<Option<Frame<T>>, Error> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > LARGEST {
            return Err(strange(&format!("a frame of {length} bytes")));
        }
        if self.0.len() < 4 + length {
            return Ok(None);
        }
        self.0.advance(4);
        let value = self.0.split_to(length);
        ciborium::from_reader(&*value).map(Some).map_err(|e| strange(&format!("a frame that is not understood: {e}")))
    }
}

fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Upstream, format!("The worker sent {what}."))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use protocol::{Event, TokenLogprob};

    use super::*;

    fn event() -> impl Strategy<Value = Event> {
        let logprob =
            prop_oneof![any::<f32>(), Just(f32::NEG_INFINITY), Just(-0.0)].prop_filter("a number", |x| !x.is_nan());
        let score = (any::<u32>(), vec(any::<u8>(), 0..4), prop::option::of(logprob));
        let score = score.prop_map(|(id, bytes, logprob)| TokenLogprob { id, bytes, logprob, top: Vec::new() });
        (0..3usize, ".{0,8}", vec(score, 0..3)).prop_map(|(choice, text, logprobs)| Event::Text {
            choice,
            text,
            logprobs,
        })
    }

    proptest! {
        /// Every bit survives, wherever the bytes are cut.
        #[test]
        fn frames(events in vec(event(), 0..5), piece in 1usize..40) {
            let frames: Vec<_> = [Frame::Admitted].into_iter().chain(events.into_iter().map(Frame::Item))
                .chain([Frame::Failed(Error::invalid("p", "m").with_code("c"))]).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(|frame| encode(frame).unwrap()).collect();
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame::<Event>().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 0..60)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame::<Event>() {}
            drop(decode::<protocol::GenerateRequest>(&bytes));
        }
    }
}
