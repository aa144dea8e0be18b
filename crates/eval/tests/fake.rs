//! The whole way over the trait, against a service whose figures can be worked by hand: its tokens are the words of a text, and
//! the probability of a word is 1/2 if it is the word before it, else 1/4.

#![expect(clippy::unwrap_used, reason = "a poisoned lock or a missing figure ends the test, as it should")]

use std::sync::Mutex;

use eval::{ChoiceOptions, Corpus, Question, Retrieval, RetrievalOptions, Scorer, Windows};
use futures_util::{FutureExt, future::BoxFuture, stream};
use protocol::{
    Embed, EmbedRequest, Embeddings, Error, Event, EventStream, FinishReason, Generate, GenerateRequest, ModelCard,
    Prompt, TextOrTokens, TokenLogprob, Usage,
};

/// A service with a growing vocabulary of words.
#[derive(Debug, Default)]
struct Words {
    known: Mutex<Vec<String>>,
    /// Best guess is always this token; two services with different guesses flip everywhere.
    guess: u32,
    /// The `score_from` of every request.
    asked: Mutex<Vec<usize>>,
}

impl Words {
    fn id(&self, word: &str) -> u32 {
        let mut known = self.known.lock().unwrap();
        let found = known.iter().position(|w| w == word);
        found.unwrap_or_else(|| {
            known.push(word.to_owned());
            known.len() - 1
        }) as u32
    }

    /// A word with the space before it.
    fn tokens(&self, text: &str) -> Vec<u32> {
        let starts = text.char_indices().filter(|&(i, c)| c == ' ' && i > 0).map(|(i, _)| i);
        let cuts: Vec<usize> = [0].into_iter().chain(starts).chain([text.len()]).collect();
        cuts.windows(2).filter(|c| c[0] < c[1]).map(|c| self.id(&text[c[0]..c[1]])).collect()
    }

    fn scores(&self, ids: &[u32], from: usize) -> Vec<TokenLogprob> {
        let known = self.known.lock().unwrap();
        let scored = |i: usize, id: u32| TokenLogprob {
            id,
            bytes: known[id as usize].clone().into_bytes(),
            logprob: (i > 0 && i >= from).then(|| if ids[i - 1] == id { 0.5f32 } else { 0.25 }.ln()),
            top: vec![(self.guess, Vec::new(), 0.5f32.ln())],
        };
        ids.iter().enumerate().map(|(i, &id)| scored(i, id)).collect()
    }
}

impl Generate for Words {
    fn models(&self) -> Vec<ModelCard> {
        let id = "words".to_owned();
        vec![ModelCard { context_length: 4096, chat: true, ..ModelCard::new(id) }]
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        async move {
            let ids = match &request.prompt {
                Prompt::Raw(TextOrTokens::Text(text)) => self.tokens(text),
                Prompt::Raw(TextOrTokens::Tokens(ids)) => ids.clone(),
                Prompt::Chat(chat) => self.tokens(chat.messages[0].content.as_deref().unwrap_or_default()),
            };
            self.asked.lock().unwrap().push(request.score_from);
            let mut events = vec![Event::Started { prompt_tokens: ids.len(), cached_tokens: 0 }];
            if request.echo {
                events.push(Event::PromptLogprobs(self.scores(&ids, request.score_from)));
            }
            let wanted = request.stop.max_tokens.unwrap_or(0);
            // It finds needles by knowing nothing: it repeats the first line.
            for _ in 0..wanted.min(1) {
                let first = self.known.lock().unwrap()[ids[0] as usize].clone();
                events.push(Event::Text { choice: 0, text: first, logprobs: Vec::new() });
            }
            events.push(Event::Finished { choice: 0, reason: FinishReason::Length });
            events.push(Event::Done(Usage { prompt_tokens: ids.len(), completion_tokens: wanted, ..Usage::default() }));
            Ok(Box::pin(stream::iter(events.into_iter().map(Ok))) as EventStream)
        }
        .boxed()
    }
}

/// The futures of a fake never wait, so one poll is a whole run.
fn run<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("the fake never waits")
}

const QUIET: eval::Progress<'static> = &|_, _| ();

#[test]
fn perplexity_of_known_words() {
    let service = Words::default();
    let scorer = Scorer::new(&service, "");
    // Every second word repeats: half the scored tokens at 1/2, half at 1/4, so 2^1.5 and 1.5 bits for 3 bytes.
    let text = " aa aa bb bb".repeat(500);
    let corpus = run(Corpus::read(&scorer, &text)).unwrap();
    assert_eq!(corpus.tokens.len(), 2000, "put together from several pieces");
    let found = run(eval::perplexity(&scorer, &corpus, Windows { length: 21, context: 1, stride: 20 }, QUIET)).unwrap();
    assert!((found.perplexity.value - 2f64.powf(1.5)).abs() < 1e-6, "{found:?}");
    assert!((found.bits_per_byte.value - 0.5).abs() < 1e-6);
    assert_eq!((found.perplexity.n, found.tokens, found.model.as_str()), (99, 1980, "words"));
    assert!(found.report().to_string().contains("bits per byte"));
}

#[test]
fn divergence_of_a_service_from_itself_and_from_another() {
    let (a, b) = (Words::default(), Words { guess: 1, ..Words::default() });
    let (one, two) = (Scorer::new(&a, ""), Scorer::new(&b, ""));
    let text = "x y".to_owned() + &" x y".repeat(20);
    let corpus = run(Corpus::read(&one, &text)).unwrap();
    assert_eq!(run(Corpus::read(&two, &text)).unwrap(), corpus);
    let shape = Windows { length: 8, context: 2, stride: 4 };
    let same = run(eval::divergence(&one, &one, &corpus, shape, 1, QUIET)).unwrap();
    assert_eq!((same.kl.value, same.flips.value, same.nll_difference.value), (0.0, 0.0, 0.0));
    let other = run(eval::divergence(&one, &two, &corpus, shape, 1, QUIET)).unwrap();
    assert_eq!((other.flips.value, other.flips.n, other.covered), (1.0, 54, 0.0), "{other:?}");
}

#[test]
fn the_context_of_choices_is_scored_once() {
    let service = Words::default();
    let question = |answer| Question {
        context: "go left ".into(),
        choices: vec!["right".into(), "left".into(), "up up up".into()],
        answer,
    };
    let options = ChoiceOptions { limit: None, concurrency: 1 };
    let result =
        run(eval::multiple_choice(&Scorer::new(&service, ""), "t", &[question(0), question(2)], options, QUIET))
            .unwrap();
    // The trailing space of the context belongs to the choice: "go left" + " " + " right" is a token " " and a word.
    assert_eq!(*service.asked.lock().unwrap(), [0, 2, 2, 0, 2, 2]);
    let (quarter, half) = (0.25f32.ln() as f64, 0.5f32.ln() as f64);
    let want = [2.0 * quarter, 2.0 * quarter, 2.0 * quarter + 2.0 * half];
    assert!(result.log_likelihoods[0].iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{result:?}");
    // By likelihood the first choice wins; per character the third (-4.16 / 8 against -2.77 / 5) does.
    assert_eq!((result.acc.value, result.acc_norm.value), (0.5, 0.5));
    assert_eq!((result.acc.n, result.chance), (2, 1.0 / 3.0));
}

#[test]
fn a_needle_at_the_start_is_found_by_who_repeats_the_start() {
    let service = Words::default();
    let scorer = Scorer::new(&service, "");
    let options = RetrievalOptions {
        kind: Retrieval::Uuid,
        lengths: vec![400],
        depths: vec![0.0, 1.0],
        trials: 3,
        chat: true,
        seed: 1,
    };
    let found = run(eval::retrieval(&scorer, &options, QUIET)).unwrap();
    // The first word is the key, not the value: nothing is found at either depth.
    assert_eq!(found.cells.iter().map(|c| c.found.value).collect::<Vec<_>>(), [0.0, 0.0]);
    assert!(found.cells.iter().all(|c| c.prompt_tokens > 250 && c.prompt_tokens <= 400), "{found:?}");
    let long = RetrievalOptions { lengths: vec![5000], ..options };
    assert!(run(eval::retrieval(&scorer, &long, QUIET)).unwrap_err().to_string().contains("192 to 4096"));
}

#[test]
fn entrants_answer_jobs() {
    let service = Words::default();
    let ready = eval::bench::Ready { name: "words".into(), settings: String::new(), load_seconds: 0.0 };
    service.tokens("a b c");
    let mut output = Vec::new();
    run(eval::bench::entrant(&service, &ready, &b"{\"prompts\":[[0,1],[2]],\"new_tokens\":4}\n"[..], &mut output))
        .unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&output).unwrap().lines().collect();
    assert_eq!(serde_json::from_str::<eval::bench::Ready>(lines[0]).unwrap(), ready);
    assert_eq!(serde_json::from_str::<eval::bench::Outcome>(lines[1]).unwrap().tokens, 8);
    assert!(
        run(eval::bench::entrant(&service, &ready, &b"hello\n"[..], Vec::new()))
            .unwrap_err()
            .to_string()
            .contains("not a job")
    );
}

#[test]
fn load_counts_every_stream() {
    let service = Words::default();
    service.tokens("a b c");
    let load =
        eval::bench::Load { prompt_tokens: 3, output_tokens: 2, concurrency: 4, requests: 10, ids: 0..3, seed: 0 };
    let served = run(eval::bench::serve(&service, &[String::new()], &load)).unwrap();
    assert_eq!((served.first_token_ms.n, served.inter_token_ms.n), (10, 10));
    assert!(served.tokens_per_second > 0.0);
}

#[test]
fn the_first_token_is_timed_fresh_and_again() {
    let service = Words::default();
    service.tokens("a b c");
    let found = run(eval::bench::first_token(&service, "", 8, 4, 0..3)).unwrap();
    assert_eq!((found.prompt_tokens, found.fresh_ms.n, found.cached_ms.n), (8, 4, 4));
    assert_eq!(service.asked.lock().unwrap().len(), 10, "five rounds, the first of which does not count");
    assert!(found.to_string().contains("prefix cached, ms"));
}

/// A text's vector counts its letters, so texts find those with the same letters.
#[derive(Debug)]
struct Letters;

impl Embed for Letters {
    fn models(&self) -> Vec<ModelCard> {
        let id = "letters".to_owned();
        vec![ModelCard { context_length: 64, embeddings: true, ..ModelCard::new(id) }]
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        let vector = |input: &TextOrTokens| match input {
            TextOrTokens::Text(text) => ('a'..='e').map(|c| text.matches(c).count() as f32).collect(),
            TextOrTokens::Tokens(_) => Vec::new(),
        };
        let vectors = request.inputs.iter().map(vector).collect();
        async move { Ok(Embeddings { vectors, ..Embeddings::default() }) }.boxed()
    }
}

#[test]
fn questions_find_their_passages() {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let pairs = [pair("a", "aa"), pair("b", "bb"), pair("c", "d"), pair("d", "dd")];
    let found = run(eval::search(&Letters, "", &pairs, QUIET)).unwrap();
    // The third query has nothing in common with any document: all four tie, and ties count against it.
    assert_eq!((found.first.value, found.first_ten.value, found.first.n), (0.75, 1.0, 4));
    assert!((found.reciprocal_rank.value - (3.0 + 0.25) / 4.0).abs() < 1e-12);
    assert_eq!((found.model.as_str(), found.documents), ("letters", 4));
    assert!(run(eval::search(&Letters, "", &[], QUIET)).is_err());
}
