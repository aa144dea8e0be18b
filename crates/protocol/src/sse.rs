//! Server-sent events, as a client of a streaming API reads them.
//!
//! The format is WHATWG's (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): lines end in CR, LF or both, an empty
//! line ends an event, several `data` lines are one text with line breaks between, lines that begin with a colon are comments.
//! Bytes may come in pieces cut anywhere. One thing is our own: an event that the end of the stream cuts off counts, because
//! servers forget the last empty line.

use std::collections::VecDeque;

use crate::{Error, ErrorKind};

/// The most bytes an event may have: nobody's memory belongs to the server at the other end.
const LARGEST: usize = 8 << 20;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// Its name; empty if it has none.
    pub event: String,
    /// Its data.
    pub data: String,
}

/// Bytes in, events out.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    /// The last byte was a CR: an LF behind it ends nothing.
    after_cr: bool,
    /// A byte order mark may still come.
    begun: bool,
    frame: Frame,
    some_data: bool,
    ready: VecDeque<Frame>,
}

impl Decoder {
    /// Takes more bytes. Fails on an event of more than 8 MiB.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for &byte in bytes {
            match byte {
                b'\n' if std::mem::take(&mut self.after_cr) => {}
                b'\r' | b'\n' => {
                    self.after_cr = byte == b'\r';
                    self.end_line();
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
        if self.line.len() + self.frame.data.len() > LARGEST {
            let message = format!("The upstream sent an event of more than {LARGEST} bytes.");
            return Err(Error::new(ErrorKind::Upstream, message));
        }
        Ok(())
    }

    /// The next whole event.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.ready.pop_front()
    }

    /// The stream is over: what has come of the last event counts.
    pub fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        let text = if std::mem::replace(&mut self.begun, true) { &*text } else { text.trim_start_matches('\u{feff}') };
        if text.is_empty() {
            return self.end_event();
        }
        let (field, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.some_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.frame.event),
            // `id` and `retry` are for connections that are opened again; comments have an empty field.
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let frame = std::mem::take(&mut self.frame);
        if std::mem::take(&mut self.some_data) {
            self.ready.push_back(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn frames(pieces: &[&[u8]]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        pieces.iter().for_each(|piece| decoder.push(piece).unwrap());
        decoder.finish();
        std::iter::from_fn(|| decoder.next_frame()).collect()
    }

    #[test]
    fn events() {
        let check = |bytes: &str, expected: &[(&str, &str)]| {
            let found = frames(&[bytes.as_bytes()]);
            let found: Vec<_> = found.iter().map(|f| (f.event.as_str(), f.data.as_str())).collect();
            assert_eq!(found, expected, "{bytes:?}");
        };
        check("data: a\n\n", &[("", "a")]);
        check("data: a\r\n\r\ndata:b\r\rdata:  c\n\n", &[("", "a"), ("", "b"), ("", " c")]);
        check(": hi\n\nevent: x\ndata: {\ndata\ndata: }\nid: 3\n\n", &[("x", "{\n\n}")]);
        check("event: x\n\ndata: a\n\n", &[("", "a")]);
        check("\u{feff}data: a\n\n\u{feff}data: b\n\n", &[("", "a")]);
        check("data: cut", &[("", "cut")]);
        check("retry: 10\nnonsense\n\n", &[]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut decoder = Decoder::default();
        let piece = [b'x'; 1 << 20];
        let refused = (0..9).map(|_| decoder.push(&piece)).find_map(Result::err).unwrap();
        assert_eq!(refused.kind, ErrorKind::Upstream);
    }

    proptest! {
        /// Cut anywhere, the events are the same.
        #[test]
        fn cuts_do_not_matter(text in "(data|event|:)(:| |\r|\n|\r\n|你|a){0,40}", cuts in vec(any::<prop::sample::Index>(), 0..5)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
            prop_assert_eq!(frames(&pieces), frames(&[bytes]));
        }
    }
}
