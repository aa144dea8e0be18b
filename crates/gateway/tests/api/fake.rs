//! A service that plays a script.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use axum::Router;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use gateway::{Config, Gateway, Services};
use protocol::{
    Draw, DrawRequest, Drawing, Embed, EmbedRequest, Embeddings, Error, Event, EventStream, FinishReason, Generate,
    GenerateRequest, Image, ModelCard, Prompt, TextOrTokens, TokenLogprob, Usage,
};

/// What a stream does next.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Event),
    Wait(Duration),
    Fail(Error),
    Hang,
}

type Script = Arc<dyn Fn(&GenerateRequest) -> Result<Vec<Step>, Error> + Send + Sync>;

/// The service, with what it saw.
#[derive(Clone)]
pub(crate) struct Fake {
    script: Script,
    /// Streams that were handed out and not yet dropped.
    pub(crate) live: Arc<AtomicUsize>,
    pub(crate) most_live: Arc<AtomicUsize>,
    pub(crate) config: Config,
    /// Why it cannot answer at all.
    pub(crate) broken: Option<Error>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(crate) fn new(script: impl Fn(&GenerateRequest) -> Result<Vec<Step>, Error> + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            live: Arc::default(),
            most_live: Arc::default(),
            config: Config::default(),
            broken: None,
        }
    }

    /// Every request gets these events.
    pub(crate) fn saying(events: Vec<Event>) -> Self {
        Self::new(move |_| Ok(events.iter().cloned().map(Step::Send).collect()))
    }

    /// Every request is refused on admission.
    pub(crate) fn refusing(error: Error) -> Self {
        Self::new(move |_| Err(error.clone()))
    }

    /// Answers with the prompt itself, choice by choice, word by word.
    pub(crate) fn parrot() -> Self {
        Self::new(|request| Ok(parrot(request)))
    }

    pub(crate) fn services(&self) -> Services {
        Services { generate: vec![Arc::new(self.clone())], embed: vec![Arc::new(Lengths)], ..Services::default() }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        self.gateway_of(self.services())
    }

    pub(crate) fn gateway_of(&self, services: Services) -> Gateway {
        Gateway { config: self.config.clone(), ..Gateway::new(services) }
    }

    pub(crate) fn router(&self) -> Router {
        gateway::router(self.gateway())
    }
}

pub(crate) fn started() -> Event {
    Event::Started { prompt_tokens: 3, cached_tokens: 1 }
}

pub(crate) fn says(choice: usize, text: &str) -> Event {
    Event::Text { choice, text: text.to_owned(), logprobs: Vec::new() }
}

pub(crate) fn ends(choice: usize) -> Event {
    Event::Finished { choice, reason: FinishReason::Stop }
}

pub(crate) fn done() -> Event {
    Event::Done(Usage { prompt_tokens: 3, cached_tokens: 1, completion_tokens: 2, ..Usage::default() })
}

pub(crate) fn scored(token: &[u8], logprob: Option<f32>, top: &[(&[u8], f32)]) -> TokenLogprob {
    let top = top.iter().map(|(bytes, score)| (7, bytes.to_vec(), *score)).collect();
    TokenLogprob { id: 5, bytes: token.to_vec(), logprob, top }
}

/// The text a request came with.
pub(crate) fn asked(request: &GenerateRequest) -> String {
    match &request.prompt {
        Prompt::Raw(TextOrTokens::Text(text)) => text.clone(),
        Prompt::Raw(TextOrTokens::Tokens(ids)) => format!("{ids:?}"),
        Prompt::Chat(chat) => chat.messages.last().and_then(|m| m.content.clone()).unwrap_or_default(),
    }
}

pub(crate) fn parrot(request: &GenerateRequest) -> Vec<Step> {
    let text = asked(request);
    let mut steps = vec![Step::Send(started())];
    for word in text.split_inclusive(' ') {
        steps.extend((0..request.n).map(|choice| Step::Send(says(choice, word))));
        steps.push(Step::Wait(Duration::from_millis(1)));
    }
    steps.extend((0..request.n).map(|choice| Step::Send(ends(choice))));
    steps.push(Step::Send(done()));
    steps
}

/// Counts a stream for as long as it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Generate for Fake {
    fn models(&self) -> Vec<ModelCard> {
        let card = |id: &str, chat| ModelCard {
            created: 1,
            owned_by: "test".to_owned(),
            context_length: 64,
            chat,
            ..ModelCard::new(id)
        };
        vec![card("talker", true), card("hf:owner/raw", false)]
    }

    fn ready(&self) -> Result<(), Error> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn count(&self, request: GenerateRequest) -> BoxFuture<'_, Result<usize, Error>> {
        async move { Ok(asked(&request).split_whitespace().count()) }.boxed()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        let script = (self.script)(&request);
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_live.fetch_max(live, Ordering::SeqCst);
        let alive = Alive(self.live.clone());
        let play = async move |(mut steps, alive): (std::vec::IntoIter<Step>, Alive)| {
            loop {
                match steps.next()? {
                    Step::Send(event) => return Some((Ok(event), (steps, alive))),
                    Step::Wait(time) => tokio::time::sleep(time).await,
                    Step::Fail(error) => return Some((Err(error), (steps, alive))),
                    Step::Hang => std::future::pending().await,
                }
            }
        };
        async move { Ok(stream::unfold((script?.into_iter(), alive), play).boxed()) }.boxed()
    }
}

/// An embedding service whose vectors tell the input's length.
#[derive(Debug)]
struct Lengths;

impl Embed for Lengths {
    fn models(&self) -> Vec<ModelCard> {
        let owned_by = "test".to_owned();
        vec![ModelCard { created: 1, owned_by, context_length: 32, embeddings: true, ..ModelCard::new("vectors") }]
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        let length = |input: &TextOrTokens| match input {
            TextOrTokens::Text(text) => text.len(),
            TextOrTokens::Tokens(ids) => ids.len(),
        };
        let dimensions = request.dimensions.unwrap_or(2);
        if dimensions > 4096 {
            return async { Err(Error::invalid("dimensions", "the vectors have 4096 numbers")) }.boxed();
        }
        let vectors = request.inputs.iter().map(|input| vec![length(input) as f32; dimensions]).collect();
        let prompt_tokens = request.inputs.iter().map(length).sum();
        async move { Ok(Embeddings { vectors, prompt_tokens, ..Embeddings::default() }) }.boxed()
    }
}

/// An image service that writes what it was asked for into its images.
#[derive(Debug)]
pub(crate) struct Painter;

impl Draw for Painter {
    fn models(&self) -> Vec<ModelCard> {
        vec![ModelCard { owned_by: "test".to_owned(), ..ModelCard::new("painter") }]
    }

    fn draw(&self, request: DrawRequest) -> BoxFuture<'_, Result<Drawing, Error>> {
        let DrawRequest { prompt, n, size, seed, tenant, .. } = request;
        let image = |i| {
            let bytes = format!("{prompt} {i} {size:?} {seed:?} {tenant}").into_bytes();
            Image { bytes, media_type: "image/png".to_owned() }
        };
        // A prompt of "short" gets an image too few.
        let images = (usize::from(prompt == "short")..n).map(image).collect();
        async move { Ok(Drawing { images }) }.boxed()
    }
}
