//! Tokens of one answer become the events its caller sees.
//!
//! Text is held back while it could be the beginning of a stop string, and while a character is incomplete (the decoder
//! does that). Scores travel with the text of their token: they are sent as soon as it begins to be. Where the model may call
//! tools, the text goes through a parser that tells calls from content.

use std::{collections::VecDeque, sync::Arc};

use protocol::{Event, TokenLogprob};
use text::{Decoder, Tokenizer};

use crate::calls::{Calls, Piece};

/// The text side of one answer.
#[derive(Debug)]
pub(crate) struct Answer {
    choice: usize,
    decoder: Decoder,
    stops: Arc<[String]>,
    calls: Option<Calls>,
    /// Decoded but not sent.
    held: String,
    /// Bytes of text sent so far.
    sent: usize,
    /// Scores not sent yet, each with the place where its token's text begins.
    scores: VecDeque<(usize, TokenLogprob)>,
}

impl Answer {
    pub(crate) fn new(choice: usize, stops: Arc<[String]>, calls: Option<Calls>) -> Self {
        let decoder = Decoder::new(false);
        Self { choice, decoder, stops, calls, held: String::new(), sent: 0, scores: VecDeque::new() }
    }

    /// Adds a token. If a stop string ended the answer with it: which one.
    pub(crate) fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        score: Option<TokenLogprob>,
        out: &mut Vec<Event>,
    ) -> Option<usize> {
        if let Some(score) = score {
            self.scores.push_back((self.sent + self.held.len(), score));
        }
        let piece = self.decoder.push(tokenizer, id);
        self.held.push_str(&piece);
        if let Some((at, stop)) = self.find_stop() {
            self.held.truncate(at);
            self.send(at, false, out);
            self.scores.clear();
            return Some(stop);
        }
        let sure = self.held.len() - self.possible_stop();
        self.send(sure, false, out);
        None
    }

    /// Sends what is held back: the answer has ended. True if it called tools.
    pub(crate) fn finish(&mut self, out: &mut Vec<Event>) -> bool {
        let rest = self.decoder.finish();
        self.held.push_str(&rest);
        match self.find_stop() {
            Some((at, _)) => self.send(at, false, out),
            None => self.send(self.held.len(), true, out),
        }
        let Some(calls) = &mut self.calls else { return false };
        let pieces = calls.finish();
        let called = calls.called();
        self.send_pieces(pieces, Vec::new(), out);
        called
    }

    /// Where the earliest stop string in the held text begins, and which one it is.
    fn find_stop(&self) -> Option<(usize, usize)> {
        if self.held.is_empty() {
            return None;
        }
        let found = |(i, stop): (usize, &String)| self.held.find(stop.as_str()).map(|at| (at, i));
        self.stops.iter().enumerate().filter_map(found).min()
    }

    /// Bytes at the end of the held text that may turn out to be the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let most = held.len().min(stop.len().saturating_sub(1));
            (1..=most).rev().find(|&n| held.ends_with(&stop.as_bytes()[..n])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// Sends the first `len` bytes of the held text with the scores of the tokens that begin in it. `last` sends the
    /// scores of trailing tokens without text as well.
    fn send(&mut self, len: usize, last: bool, out: &mut Vec<Event>) {
        let rest = self.held.split_off(len);
        let text = std::mem::replace(&mut self.held, rest);
        self.sent += len;
        let mut scores = Vec::new();
        while let Some((_, score)) = self.scores.pop_front_if(|(start, _)| *start < self.sent || last) {
            scores.push(score);
        }
        match &mut self.calls {
            Some(calls) => {
                let pieces = calls.push(&text);
                self.send_pieces(pieces, scores, out);
            }
            None => self.send_text(text, scores, out),
        }
    }

    fn send_text(&self, text: String, logprobs: Vec<TokenLogprob>, out: &mut Vec<Event>) {
        if !text.is_empty() || !logprobs.is_empty() {
            out.push(Event::Text { choice: self.choice, text, logprobs });
        }
    }

    /// Scores go with the first text; where there is only a call, they are dropped: content is what is scored.
    fn send_pieces(&self, pieces: Vec<Piece>, mut scores: Vec<TokenLogprob>, out: &mut Vec<Event>) {
        let choice = self.choice;
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.send_text(text, std::mem::take(&mut scores), out),
                Piece::Call { index, id, name } => {
                    let (id, name) = (Some(id), Some(name));
                    out.push(Event::ToolCall { choice, index, id, name, arguments: String::new() });
                }
                Piece::Arguments { index, text: arguments } => {
                    out.push(Event::ToolCall { choice, index, id: None, name: None, arguments });
                }
            }
        }
    }
}
