//! Paths of reasoning that are under way or were lately: a bounded memory, so that they can be followed and shown again.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use protocol::{
    Error, ErrorKind, StepEvent,
    reasoning::{Answer, no_such_path},
};
use tokio::sync::watch;

use super::Shown;
use crate::{Caller, Role};

/// Paths kept at most.
const PATHS: usize = 1000;
/// Their size at most, in bytes of JSON. The oldest go first; a path counts when it ends.
const BYTES: usize = 64 << 20;

/// The memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paths(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// The oldest first, each with its size.
    paths: VecDeque<(Arc<Trodden>, usize)>,
    bytes: usize,
}

/// A path and whose it is.
#[derive(Debug)]
struct Trodden {
    tenant: String,
    key_id: String,
    answer: watch::Sender<Answer>,
}

impl Trodden {
    /// Admins see all paths, auditors their tenant's, users their own.
    fn is_visible_to(&self, caller: &Caller) -> bool {
        match caller.role {
            Role::Admin => true,
            Role::Auditor => caller.tenant == self.tenant,
            Role::User => caller.tenant == self.tenant && caller.key_id == self.key_id,
        }
    }
}

/// A path that somebody works on. Dropping it before its end says that the caller left.
#[derive(Debug)]
pub(super) struct Kept {
    path: Arc<Trodden>,
    paths: Paths,
}

impl Paths {
    /// Begins a path of this caller.
    pub(super) fn keep(&self, caller: &Caller, answer: Answer) -> Kept {
        let (tenant, key_id) = (caller.tenant.clone(), caller.key_id.clone());
        let path = Arc::new(Trodden { tenant, key_id, answer: watch::Sender::new(answer) });
        let mut memory = self.0.lock();
        memory.paths.push_back((path.clone(), 0));
        memory.trim();
        Kept { path, paths: self.clone() }
    }

    /// The newest path of this name that the caller may see.
    pub(super) fn find(&self, caller: &Caller, id: &str) -> Result<Found, Error> {
        let memory = self.0.lock();
        let fits =
            |(path, _): &&(Arc<Trodden>, usize)| path.answer.borrow().request_id == id && path.is_visible_to(caller);
        let found = memory.paths.iter().rev().find(fits);
        found.map(|(path, _)| Found(path.answer.subscribe())).ok_or_else(|| no_such_path(id))
    }

    /// Drops the paths of this name.
    pub(super) fn forget(&self, id: &str) {
        self.0.lock().forget(id);
    }
}

impl Memory {
    fn forget(&mut self, id: &str) {
        let fits = |path: &Trodden| path.answer.borrow().request_id == id;
        self.bytes -= self.paths.iter().filter(|(path, _)| fits(path)).map(|(_, size)| size).sum::<usize>();
        self.paths.retain(|(path, _)| !fits(path));
    }

    fn trim(&mut self) {
        while self.paths.len() > PATHS || (self.bytes > BYTES && self.paths.len() > 1) {
            self.bytes -= self.paths.pop_front().map_or(0, |(_, size)| size);
        }
    }

    fn ended(&mut self, path: &Arc<Trodden>, size: usize) {
        if let Some((_, known)) = self.paths.iter_mut().rev().find(|(other, _)| Arc::ptr_eq(other, path)) {
            self.bytes += size - std::mem::replace(known, size);
            self.trim();
        }
    }
}

impl Kept {
    /// Keeps an event; what is sent of it.
    pub(super) fn push(&self, item: Result<StepEvent, Error>) -> Option<Shown> {
        let mut over = false;
        self.path.answer.send_modify(|answer| match item {
            Ok(StepEvent::Started { version }) => answer.version = Some(version),
            Ok(StepEvent::Step(step)) => answer.steps.push(step),
            Ok(StepEvent::Done(conclusion)) => answer.end = Some(Ok(*conclusion)),
            // An event of the future changes nothing here.
            Ok(_) => {}
            Err(error) => answer.end = Some(Err(error)),
        });
        let answer = self.path.answer.borrow();
        over |= answer.end.is_some();
        let shown = Shown::last(&answer);
        let size = if over { serde_json::to_vec(&answer.body()).map_or(0, |body| body.len()) } else { 0 };
        drop(answer);
        if over {
            self.paths.0.lock().ended(&self.path, size);
        }
        shown
    }

    /// The path as it stands.
    pub(super) fn answer(&self) -> Answer {
        self.path.answer.borrow().clone()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.path.answer.borrow().end.is_none() {
            let message = "Whoever asked left before the end.";
            self.push(Err(Error::new(ErrorKind::Invalid, message).with_code("cancelled")));
        }
    }
}

/// A path that somebody looks at.
#[derive(Debug)]
pub(super) struct Found(watch::Receiver<Answer>);

impl Found {
    /// The path as it stands.
    pub(super) fn answer(&self) -> Answer {
        self.0.borrow().clone()
    }

    /// Events behind the first `seen`, as soon as there are any; and whether they are the last.
    pub(super) async fn grown(&mut self, seen: usize) -> (Vec<Shown>, bool) {
        match self.0.wait_for(|answer| Shown::count(answer) > seen).await {
            Ok(answer) => (Shown::of(&answer, seen), answer.end.is_some()),
            // The path fell out of memory, and nobody works on it any more.
            Err(_) => (Vec::new(), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::reasoning::Status;

    use super::*;

    fn caller(role: Role, tenant: &str, key: &str) -> Caller {
        Caller { tenant: tenant.to_owned(), key_id: key.to_owned(), role, ..Caller::open() }
    }

    fn answer(id: &str, input: &str) -> Answer {
        Answer::new(id, Some("d".to_owned()), input)
    }

    #[test]
    fn users_see_their_own_auditors_their_tenants_admins_all() {
        let paths = Paths::default();
        let _kept = paths.keep(&caller(Role::User, "a", "1"), answer("p", ""));
        let check = |role, tenant, key, wanted: bool| {
            assert_eq!(paths.find(&caller(role, tenant, key), "p").is_ok(), wanted, "{role:?} {tenant} {key}");
        };
        check(Role::User, "a", "1", true);
        check(Role::User, "a", "2", false);
        check(Role::User, "b", "1", false);
        check(Role::Auditor, "a", "3", true);
        check(Role::Auditor, "b", "3", false);
        check(Role::Admin, "b", "4", true);
        assert!(paths.find(&caller(Role::Admin, "a", "1"), "q").is_err());
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_size() {
        let (paths, me) = (Paths::default(), caller(Role::Admin, "a", ""));
        for n in 0..PATHS + 10 {
            drop(paths.keep(&me, answer(&format!("p{n}"), "")));
        }
        assert_eq!(paths.0.lock().paths.len(), PATHS);
        assert!(paths.find(&me, "p9").is_err() && paths.find(&me, "p10").is_ok());
        let sizes = |paths: &Paths| {
            let memory = paths.0.lock();
            (memory.bytes, memory.paths.iter().map(|(_, size)| size).sum::<usize>())
        };
        let (bytes, sum) = sizes(&paths);
        assert_eq!(bytes, sum);
        for n in 0..3 {
            let big = answer(&format!("big{n}"), "");
            let kept = paths.keep(&me, Answer { version: Some("v".repeat(BYTES / 2)), ..big });
            drop(kept);
        }
        let (bytes, sum) = sizes(&paths);
        assert!(bytes <= BYTES && bytes == sum);
        assert!(paths.find(&me, "big2").is_ok() && paths.find(&me, "big0").is_err());
    }

    #[tokio::test]
    async fn a_caller_who_leaves_ends_the_path() {
        let (paths, me) = (Paths::default(), caller(Role::Admin, "a", ""));
        let kept = paths.keep(&me, answer("p", ""));
        kept.push(Ok(StepEvent::Started { version: "v".to_owned() }));
        let mut found = paths.find(&me, "p").unwrap();
        assert_eq!(found.grown(0).await.0.len(), 1);
        drop(kept);
        let (events, over) = found.grown(1).await;
        assert!(over && events.len() == 1);
        assert_eq!(found.answer().status(), Status::Failed);
    }
}
