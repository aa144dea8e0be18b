//! A service that plays scripts, one for every request, and what was asked of it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use protocol::{
    Capabilities, Chat, Error, ErrorKind, Event, EventStream, FinishReason, Generate, GenerateRequest, Hop, Load,
    Message, ModelCard, Prompt, Reason, Usage,
};

/// What a request meets.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Event),
    Wait(Duration),
    Fail(Error),
    Hang,
}

/// A script: refused on admission, or a stream.
pub(crate) type Script = Result<Vec<Step>, Error>;

/// The service. Requests beyond its scripts get the last one again.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) cards: Vec<ModelCard>,
    scripts: Arc<Mutex<VecDeque<Script>>>,
    pub(crate) asked: Arc<Mutex<Vec<GenerateRequest>>>,
    pub(crate) live: Arc<AtomicUsize>,
    pub(crate) load: Arc<Mutex<Option<Load>>>,
    pub(crate) broken: Arc<Mutex<Option<Error>>>,
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fake")
    }
}

impl Fake {
    pub(crate) fn new(scripts: impl IntoIterator<Item = Script>) -> Self {
        let card = ModelCard { chat: true, capabilities: Capabilities::ENGINE, ..ModelCard::new("m") };
        Self {
            cards: vec![card],
            scripts: Arc::new(Mutex::new(scripts.into_iter().collect())),
            asked: Arc::default(),
            live: Arc::default(),
            load: Arc::default(),
            broken: Arc::default(),
        }
    }

    pub(crate) fn able(mut self, capabilities: Capabilities) -> Self {
        self.cards[0].capabilities = capabilities;
        self
    }

    pub(crate) fn arc(&self) -> Arc<dyn Generate> {
        Arc::new(self.clone())
    }

    pub(crate) fn times(&self) -> usize {
        self.asked.lock().len()
    }

    fn script(&self) -> Script {
        let mut scripts = self.scripts.lock();
        if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() }.unwrap_or_else(|| Ok(says("ok")))
    }
}

pub(crate) fn text(text: &str) -> Event {
    Event::Text { choice: 0, text: text.to_owned(), logprobs: Vec::new() }
}

pub(crate) fn started() -> Event {
    Event::Started { prompt_tokens: 3, cached_tokens: 0 }
}

pub(crate) fn ends() -> Event {
    Event::Finished { choice: 0, reason: FinishReason::Stop }
}

pub(crate) fn done() -> Event {
    Event::Done(Usage { prompt_tokens: 3, cached_tokens: 0, completion_tokens: 2, ..Usage::default() })
}

/// A whole answer.
pub(crate) fn says(words: &str) -> Vec<Step> {
    [started(), text(words), ends(), done()].into_iter().map(Step::Send).collect()
}

pub(crate) fn error(kind: ErrorKind) -> Error {
    Error::new(kind, format!("{kind:?}"))
}

/// A stream that breaks before its first piece.
pub(crate) fn breaks(kind: ErrorKind) -> Script {
    Ok(vec![Step::Send(started()), Step::Fail(error(kind))])
}

/// A stream that does not begin for so long.
pub(crate) fn slow(seconds: u64) -> Script {
    Ok([Step::Wait(Duration::from_secs(seconds))].into_iter().chain(says("slow")).collect())
}

pub(crate) fn request() -> GenerateRequest {
    let message = Message { role: "user".to_owned(), content: Some("Hi".to_owned()), ..Message::default() };
    let chat = Chat { messages: vec![message], ..Chat::default() };
    GenerateRequest { model: "m".to_owned(), ..GenerateRequest::new(Prompt::Chat(chat), 9) }
}

/// The text of an answer, or how it failed.
pub(crate) async fn answer(service: &dyn Generate, request: GenerateRequest) -> Result<String, Error> {
    let mut all = String::new();
    for event in events(service, request).await? {
        if let Event::Text { text, .. } = event {
            all += &text;
        }
    }
    Ok(all)
}

pub(crate) async fn events(service: &dyn Generate, request: GenerateRequest) -> Result<Vec<Event>, Error> {
    let (mut stream, mut events) = (service.generate(request).await?, Vec::new());
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    Ok(events)
}

/// The way an answer says it came: for every choice its reason, who was taken, and who failed before with which word.
pub(crate) fn way(events: &[Event]) -> Vec<(Reason, String, Vec<String>)> {
    let hops = events.iter().filter_map(|event| if let Event::Routed(hop) = event { Some(hop) } else { None });
    let told = |hop: &Hop| {
        let failed = hop.failed.iter().map(|miss| format!("{} {}", miss.who, miss.error)).collect();
        (hop.reason, format!("{} to {} of {}", hop.asked, hop.model, hop.service), failed)
    };
    hops.map(|hop| told(hop)).collect()
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
        self.cards.clone()
    }

    fn ready(&self) -> Result<(), Error> {
        self.broken.lock().clone().map_or(Ok(()), Err)
    }

    fn load(&self) -> Option<Load> {
        *self.load.lock()
    }

    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<EventStream, Error>> {
        self.asked.lock().push(request);
        let script = self.script();
        self.live.fetch_add(1, Ordering::SeqCst);
        let alive = Alive(self.live.clone());
        let play = async |(mut steps, alive): (std::vec::IntoIter<Step>, Alive)| {
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
