//! Ranks: processes that learn one run together, and what they ask of whatever connects them.
//!
//! A thread of its own speaks to the other ranks, in the order in which it is asked, so that a gather goes on while layers compute. Every rank must ask
//! for the same in the same order. Nothing is added up on the way: sums are taken by the rank that they belong to, in a fixed order, so that their bits
//! do not depend on how many ranks there are.

use std::fmt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::Error;

/// What connects ranks. When one of them is gone there is no going on, and a method may end the process or the thread.
pub trait Collective {
    /// This one's number, from 0 on.
    fn rank(&self) -> usize;
    /// How many there are.
    fn ranks(&self) -> usize;
    /// Everyone's part, all of one length, behind each other in the order of ranks.
    fn all_gather(&mut self, part: &[f32], whole: &mut [f32]);
    /// The same of f64.
    fn all_gather_f64(&mut self, part: &[f64], whole: &mut [f64]);
    /// Block `r` of `blocks` goes to rank `r`; block `r` of `from` comes from there. All are of one length.
    fn all_to_all(&mut self, blocks: &[f32], from: &mut [f32]);
}

type Job = Box<dyn FnOnce(&mut dyn Collective) + Send>;

/// The ranks of a run, seen from one of them.
pub struct Group {
    rank: usize,
    ranks: usize,
    /// None while it ends.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What other ranks were asked for.
#[derive(Debug)]
pub(crate) struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// What came.
    ///
    /// # Panics
    /// When a rank is gone.
    pub(crate) fn wait(self) -> T {
        self.0.recv().expect("a rank is gone")
    }
}

impl Group {
    /// Connects with the other ranks, on the thread that will speak to them.
    ///
    /// # Errors
    /// What `connect` says.
    pub fn open<C: Collective>(connect: impl FnOnce() -> Result<C, Error> + Send + 'static) -> Result<Self, Error> {
        let (jobs, asked) = channel::<Job>();
        let (tell, told) = channel();
        let serve = move || match connect() {
            Ok(mut ranks) => {
                let _ = tell.send(Ok((ranks.rank(), ranks.ranks())));
                asked.into_iter().for_each(|job| job(&mut ranks));
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        };
        let thread = thread::spawn(serve);
        let (rank, ranks) = told.recv().expect("it tells before it ends")?;
        Ok(Self { rank, ranks, jobs: Some(jobs), thread: Some(thread) })
    }

    /// This one's number, from 0 on.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn ranks(&self) -> usize {
        self.ranks
    }

    /// Begins to collect everyone's part.
    pub(crate) fn gather(&self, part: Vec<f32>) -> Pending<Vec<f32>> {
        let ranks = self.ranks;
        self.ask(move |group| {
            let mut whole = vec![0.0; part.len() * ranks];
            group.all_gather(&part, &mut whole);
            whole
        })
    }

    /// Begins to send a block to every rank, and to take one from each.
    pub(crate) fn exchange(&self, blocks: Vec<f32>) -> Pending<Vec<f32>> {
        self.ask(move |group| {
            let mut from = vec![0.0; blocks.len()];
            group.all_to_all(&blocks, &mut from);
            from
        })
    }

    /// Everyone's numbers, in the order of ranks.
    pub(crate) fn gather_f64(&self, part: Vec<f64>) -> Vec<f64> {
        let ranks = self.ranks;
        let pending = self.ask(move |group| {
            let mut whole = vec![0.0; part.len() * ranks];
            group.all_gather_f64(&part, &mut whole);
            whole
        });
        pending.wait()
    }

    /// Whether anyone says so; all go on together.
    pub(crate) fn anyone(&self, says: bool) -> bool {
        self.gather_f64(vec![f64::from(u8::from(says))]).into_iter().any(|said| said != 0.0)
    }

    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut dyn Collective) -> T + Send + 'static) -> Pending<T> {
        let (tell, told) = channel();
        if let Some(jobs) = &self.jobs {
            // A thread that is gone is noticed by whoever waits.
            let _ = jobs.send(Box::new(move |group| {
                let _ = tell.send(job(group));
            }));
        }
        Pending(told)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.ranks)
    }
}

impl Drop for Group {
    /// The thread says goodbye to the other ranks.
    fn drop(&mut self) {
        self.jobs = None;
        self.thread.take().map(JoinHandle::join);
    }
}
