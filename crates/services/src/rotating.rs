//! Vectors from one of several alike services, in turn: requests for vectors are short and much the same, so nothing is gained by
//! weighing them. One that fails is followed by the next, as long as there is one; nothing was delivered yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{FutureExt, future::BoxFuture};
use protocol::{Embed, EmbedRequest, Embeddings, Error, ErrorKind, Hop, Miss, ModelCard, Reason};

use crate::first::elsewhere;

/// Several alike services.
#[derive(Debug)]
pub struct Rotating {
    members: Vec<(String, Arc<dyn Embed>)>,
    turn: AtomicUsize,
}

impl Rotating {
    /// These services by their names, which offer the same models as far as they offer them.
    pub fn new(members: Vec<(String, Arc<dyn Embed>)>) -> Self {
        Self { members, turn: AtomicUsize::new(0) }
    }

    async fn ask(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let offers = |(_, member): &&(String, Arc<dyn Embed>)| {
            member.models().iter().any(|card| request.model.is_empty() || card.id == request.model)
        };
        let able: Vec<_> = self.members.iter().filter(offers).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = Error::new(ErrorKind::Upstream, format!("No worker offers the model `{}`.", request.model));
        let mut failed = Vec::new();
        for at in 0..able.len() {
            let (name, member) = able[turn.wrapping_add(at) % able.len()];
            let tried = match member.ready() {
                Ok(()) => member.embed(request.clone()).await,
                Err(trouble) => Err(trouble),
            };
            match tried {
                Err(error) if elsewhere(&error) => {
                    failed.push(Miss { who: name.clone(), error: error.word().to_owned() });
                    last = error;
                }
                other => return other.map(|made| routed(made, &request.model, name, failed)),
            }
        }
        Err(last)
    }
}

/// The vectors, with a word on whose they are.
fn routed(mut made: Embeddings, model: &str, name: &str, failed: Vec<Miss>) -> Embeddings {
    let reason = if failed.is_empty() { Reason::Turn } else { Reason::Fallback };
    let (asked, service) = (model.to_owned(), name.to_owned());
    made.hops.insert(0, Hop { model: asked.clone(), asked, reason, service, failed, ..Hop::default() });
    made
}

impl Embed for Rotating {
    /// Every model once, in the order of the members.
    fn models(&self) -> Vec<ModelCard> {
        let mut cards: Vec<ModelCard> = Vec::new();
        for card in self.members.iter().flat_map(|(_, member)| member.models()) {
            if !cards.iter().any(|known| known.id == card.id) {
                cards.push(card);
            }
        }
        cards
    }

    /// Ready while one of them is.
    fn ready(&self) -> Result<(), Error> {
        let mut states = self.members.iter().map(|(_, member)| member.ready());
        let first = states.next().unwrap_or(Ok(()));
        if first.is_ok() || states.any(|state| state.is_ok()) { Ok(()) } else { first }
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        self.ask(request).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service whose vectors say who made them, or that fails.
    #[derive(Debug)]
    struct Maker(Result<f32, ErrorKind>);

    impl Embed for Maker {
        fn models(&self) -> Vec<ModelCard> {
            vec![ModelCard::new("m")]
        }

        fn embed(&self, _: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
            let made = self.0.map(|x| Embeddings { vectors: vec![vec![x]], ..Embeddings::default() });
            async move { made.map_err(|kind| Error::new(kind, "x")) }.boxed()
        }
    }

    #[tokio::test]
    async fn in_turn_and_past_failures() {
        let check = async |members: &[Result<f32, ErrorKind>], expected: &[Result<f32, ErrorKind>]| {
            let member = |(at, made): (usize, &_)| (format!("w{at}"), Arc::new(Maker(*made)) as Arc<dyn Embed>);
            let members = members.iter().enumerate().map(member).collect();
            let rotating = Rotating::new(members);
            for expected in expected {
                let request = EmbedRequest { model: "m".to_owned(), inputs: Vec::new(), dimensions: None };
                let made = rotating.embed(request).await.map(|made| made.vectors[0][0]).map_err(|error| error.kind);
                assert_eq!(made, *expected);
            }
        };
        let down = Err(ErrorKind::Upstream);
        check(&[Ok(0.0), Ok(1.0)], &[Ok(0.0), Ok(1.0), Ok(0.0)]).await;
        check(&[down, Ok(1.0), Ok(2.0)], &[Ok(1.0), Ok(1.0), Ok(2.0)]).await;
        check(&[down, down], &[down]).await;
        check(&[Err(ErrorKind::Invalid), Ok(1.0)], &[Err(ErrorKind::Invalid)]).await;
        check(&[], &[down]).await;
    }

    #[tokio::test]
    async fn whose_vectors_they_are() {
        let check = async |members: &[Result<f32, ErrorKind>], expected: (&str, Reason, &[(&str, &str)])| {
            let member = |(at, made): (usize, &_)| (format!("w{at}"), Arc::new(Maker(*made)) as Arc<dyn Embed>);
            let rotating = Rotating::new(members.iter().enumerate().map(member).collect());
            let request = EmbedRequest { model: "m".to_owned(), inputs: Vec::new(), dimensions: None };
            let hops = rotating.embed(request).await.unwrap().hops;
            let failed: Vec<_> = hops[0].failed.iter().map(|miss| (&*miss.who, &*miss.error)).collect();
            assert_eq!((&*hops[0].service, hops[0].reason, &*failed), expected);
            assert_eq!((hops.len(), &*hops[0].asked), (1, "m"));
        };
        check(&[Ok(0.0), Ok(1.0)], ("w0", Reason::Turn, &[])).await;
        check(&[Err(ErrorKind::Upstream), Ok(1.0)], ("w1", Reason::Fallback, &[("w0", "upstream_failed")])).await;
    }
}
