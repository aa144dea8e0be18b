//! What the guard costs a request: a text of 1 KB checked whole and streamed, under the default policy and with each sort of
//! rule alone. `cargo bench -p guard` prints microseconds, the median of several rounds.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark reads the clock and prints")]

use std::time::Instant;

use guard::{Action, Direction, Guard, Policy};

const ENGLISH: &str = "The committee met on 12 March 2026 to review the budget of the new library. Its chair, who had been \
    elected a year before, explained that costs had risen by 7.5 % since the first estimate of 2,400,000 euros, mostly for \
    steel and glass. Members asked whether the reading room could be made smaller; the architect showed two drafts. ";
const CHINESE: &str = "委员会于2026年3月12日开会，审议新图书馆的预算。主席说明，自最初估算的240万欧元以来，费用上涨了百分之七点五，主要是钢材和玻璃。\
    委员们询问阅览室能否缩小，建筑师展示了两份草图。";
const ROUNDS: usize = 15;
const CALLS: usize = 400;

fn main() {
    let kilobyte = |text: &str| {
        let mut long = text.repeat(1024 / text.len() + 1);
        long.truncate(long.floor_char_boundary(1024));
        long
    };
    for (language, text) in [("English", kilobyte(ENGLISH)), ("Chinese", kilobyte(CHINESE))] {
        println!("{language}, {} bytes, microseconds per text", text.len());
        for (name, policy) in policies() {
            let Ok(guard) = Guard::new(&policy) else { continue };
            let whole = median(|| drop(std::hint::black_box(guard.check(&text, Direction::In))));
            println!("  {name:<22} check {whole:7.1}");
        }
        for (name, action) in [("watched", Action::Monitor), ("masked", Action::Mask)] {
            let mut policy = Policy::default();
            policy.personal.output = action;
            policy.toxicity.output = action;
            let Ok(guard) = Guard::new(&policy) else { continue };
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(5).collect();
            let streamed = median(|| {
                let mut filter = guard.stream(Direction::Out);
                pieces.iter().for_each(|piece| drop(std::hint::black_box(filter.push_bytes(piece))));
                drop(filter.finish());
            });
            println!(
                "  {name:<22} stream {streamed:6.1}, {:.2} per piece of five bytes",
                streamed / pieces.len() as f64
            );
        }
    }
}

fn policies() -> Vec<(&'static str, Policy)> {
    let mut nothing = Policy::default();
    nothing.personal.input = Action::Allow;
    nothing.injection.input = Action::Allow;
    nothing.toxicity.input = Action::Allow;
    let with = |change: fn(&mut Policy)| {
        let mut policy = nothing.clone();
        change(&mut policy);
        policy
    };
    vec![
        ("default", Policy::default()),
        ("nothing", nothing.clone()),
        ("personal data", with(|policy| policy.personal.input = Action::Monitor)),
        ("injection", with(|policy| policy.injection.input = Action::Monitor)),
        ("toxicity", with(|policy| policy.toxicity.input = Action::Monitor)),
    ]
}

/// Microseconds per call.
fn median(mut call: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..CALLS).for_each(|_| call());
            start.elapsed().as_secs_f64() * 1e6 / CALLS as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}
