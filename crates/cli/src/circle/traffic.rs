//! What became of a rollout's requests, counted from the ledger: who answered, how long it took, what the teacher would have cost and computed.

use std::time::Duration;

use eval::{Estimate, wilson};
use gateway::settings::Price;
use ledger::{Filter, Ledger, Outcome, Page, Record, Scope};
use protocol::Reason;
use serde::{Deserialize, Serialize};

/// Requests between two moments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Traffic {
    /// Answered ones.
    pub(super) requests: usize,
    /// Of these, those that a student answered.
    pub(super) by_student: usize,
    /// Those that failed, were held back or given up.
    pub(super) others: usize,
    /// Seconds of all answered ones together.
    pub(super) seconds: f64,
    /// Tokens of the answers that a student gave: prompts and what was written.
    pub(super) student_tokens: [u64; 2],
    /// And of those that the teacher gave.
    pub(super) teacher_tokens: [u64; 2],
    /// What the answers took of processors.
    #[serde(default)]
    pub(super) work: Workers,
}

/// Processor time by who worked on an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Workers {
    /// A student answered.
    pub(super) student: Work,
    /// The teacher answered behind a student: the time of both.
    pub(super) both: Work,
    /// The teacher answered, and no student was there.
    pub(super) teacher: Work,
}

/// Processor time of some answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Work {
    /// How many they are.
    pub(super) answers: usize,
    /// Of these, those whose records say what they took.
    pub(super) told: usize,
    /// Seconds of those.
    pub(super) seconds: f64,
}

impl Work {
    fn add(&mut self, micros: Option<u64>) {
        self.answers += 1;
        self.told += usize::from(micros.is_some());
        self.seconds += Duration::from_micros(micros.unwrap_or(0)).as_secs_f64();
    }

    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        let (answers, told) = (self.answers + other.answers, self.told + other.told);
        Self { answers, told, seconds: self.seconds + other.seconds }
    }

    /// Mean seconds of an answer, of those that say it.
    pub(super) fn each(&self) -> Option<f64> {
        (self.told > 0).then(|| self.seconds / self.told as f64)
    }

    /// Seconds of all of them, where all say it.
    fn whole(&self) -> Option<f64> {
        (self.told == self.answers).then_some(self.seconds)
    }
}

impl Workers {
    /// Seconds that `teacher`, as it works alone, would have taken for what had a student, less what that took; `None` where somebody does not tell.
    pub(super) fn saved(&self, teacher: Work) -> Option<f64> {
        let with_student = self.student.and(self.both);
        Some(teacher.each()? * with_student.answers as f64 - with_student.whole()?)
    }
}

/// When requests were accepted, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between {
    pub(super) since: Option<i64>,
    pub(super) until: Option<i64>,
}

impl Traffic {
    /// Counts the requests to a model.
    pub(super) async fn count(ledger: &Ledger, model: &str, Between { since, until }: Between) -> ledger::Result<Self> {
        let filter = Filter { model: Some(model.to_owned()), since, until, ..Filter::default() };
        let (mut traffic, mut page) = (Self::default(), Page::default());
        loop {
            let found = ledger.records(&Scope::All, &filter, page, |record| record).await?;
            found.records.iter().for_each(|record| traffic.add(record));
            match found.next {
                Some(before) => page.before = Some(before),
                None => return Ok(traffic),
            }
        }
    }

    fn add(&mut self, record: &Record) {
        if record.outcome != Some(Outcome::Served) {
            self.others += 1;
            return;
        }
        let met = |reason| record.route.hops.iter().any(|hop| hop.reason == reason);
        let (by_student, escalated) = (met(Reason::Accepted), met(Reason::Escalated));
        self.requests += 1;
        self.by_student += usize::from(by_student);
        let micros = record.settled_at.unwrap_or(record.accepted_at).saturating_sub(record.accepted_at);
        self.seconds += Duration::from_micros(u64::try_from(micros).unwrap_or(0)).as_secs_f64();
        let tokens = if by_student { &mut self.student_tokens } else { &mut self.teacher_tokens };
        tokens[0] += record.usage.prompt_tokens as u64;
        tokens[1] += record.usage.completion_tokens as u64;
        let work = match (by_student, escalated) {
            (true, _) => &mut self.work.student,
            (false, true) => &mut self.work.both,
            (false, false) => &mut self.work.teacher,
        };
        work.add(record.usage.processor_micros);
    }

    /// The share that a student answered.
    pub(super) fn share(&self) -> Estimate {
        wilson(self.by_student, self.requests)
    }

    /// Mean seconds of an answer.
    pub(super) fn seconds_each(&self) -> f64 {
        self.seconds / self.requests.max(1) as f64
    }

    /// What the teacher did not have to answer, in nano-units of currency at its price.
    pub(super) fn saved(&self, price: &Price) -> u64 {
        let [prompt, written] = self.student_tokens;
        let of = |tokens: u64, price: u64| u128::from(tokens) * u128::from(price) / 1_000_000;
        u64::try_from(of(prompt, price.input.0) + of(written, price.output.0)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use gateway::settings::Money;

    use super::*;

    #[test]
    fn savings_are_the_teachers_price() {
        let price = Price { input: Money(150_000_000), output: Money(600_000_000), ..Price::default() };
        let traffic =
            Traffic { requests: 4, by_student: 3, student_tokens: [2_000_000, 500_000], ..Traffic::default() };
        assert_eq!(traffic.saved(&price), 600_000_000, "two million at 0.15 and half a million at 0.60");
        assert_eq!((traffic.share().value, traffic.share().n), (0.75, 4));
        assert_eq!(Traffic::default().seconds_each(), 0.0);
    }

    #[test]
    fn computing_is_saved_only_where_everybody_tells() {
        let work = |times: &[Option<u64>]| {
            let mut work = Work::default();
            times.iter().for_each(|micros| work.add(*micros));
            work
        };
        let check = |student: &[_], both: &[_], teacher: &[_], saved: Option<f64>| {
            let workers = Workers { student: work(student), both: work(both), teacher: Work::default() };
            assert_eq!(workers.saved(work(teacher)), saved, "{student:?} {both:?} {teacher:?}");
        };
        let second = Some(1_000_000);
        check(&[second, second], &[Some(5_000_000)], &[Some(4_000_000), Some(4_000_000), None], Some(5.0));
        check(&[second], &[Some(6_000_000)], &[second], Some(-5.0));
        check(&[second], &[None], &[second], None);
        check(&[second], &[], &[None], None);
        check(&[], &[], &[second], Some(0.0));
    }
}
