//! Who runs when: prefill against decoding, turns, limits, deadlines, cancellation.

use super::*;

fn prompt(len: usize, salt: u32) -> Vec<u32> {
    (0..len as u32).map(|at| 97 + (at * 7 + salt * 13 + at / 26 * salt) % 26).collect()
}

/// An answer that runs to its limit.
fn long(max_tokens: usize) -> Answers {
    Answers { ignore_eos: true, ..answers(max_tokens) }
}

#[test]
fn a_long_prompt_delays_running_answers_by_small_chunks_only() {
    let mut bench = Bench::new(64, EngineConfig::default());
    let running = bench.core.submit(job(prompt(20, 1), long(100))).unwrap();
    bench.core.step();
    bench.core.submit(job(prompt(1500, 2), long(1))).unwrap();
    let mut last = bench.clock.now();
    for _ in 0..14 {
        let outputs = bench.core.step();
        assert!(outputs.iter().any(|(id, _)| *id == running), "every step brings the running answer a token");
        let now = bench.clock.now();
        // The fake takes 2 ms and 50 us per row: 128 rows of prompt and one of decoding.
        assert!(now - last <= Duration::from_micros(2000 + 50 * 129), "{:?}", now - last);
        last = now;
    }
    bench.finish();
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut bench = Bench::new(64, EngineConfig::default());
    bench.core.submit(job(prompt(1800, 1), long(1))).unwrap();
    bench.core.step();
    let short = bench.core.submit(job(prompt(30, 2), long(1))).unwrap();
    let answered = bench.core.step().into_iter().any(|(id, output)| id == short && is_text(&output));
    assert!(answered, "half of a step's rows are for others");
    bench.finish();
    // 1800 and 30 rows at 512 a step, of which none is wasted: four steps.
    assert_eq!(bench.core.stats().steps, 4);
}

fn is_text(output: &Result<Output, Error>) -> bool {
    matches!(output, Ok(Output::Event(Event::Text { .. })))
}

#[test]
fn a_shared_prompt_is_computed_once() {
    let mut bench = Bench::new(64, EngineConfig::default());
    bench.core.submit(job(prompt(200, 1), long(5))).unwrap();
    bench.finish();
    let before = bench.rows();
    bench.core.submit(job(prompt(200, 1), long(1))).unwrap();
    let outputs = bench.finish();
    assert_eq!(bench.rows() - before, 1, "only the last token is computed again");
    let usage = told(outputs.values().next().unwrap()).usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.cached_tokens), (200, 199));
}

#[test]
fn a_burst_with_one_prefix_computes_it_once() {
    let mut bench = Bench::new(256, EngineConfig::default());
    for salt in 0..16 {
        let mut tokens = prompt(640, 1);
        tokens.extend(prompt(10, salt));
        bench.core.submit(job(tokens, long(3))).unwrap();
    }
    bench.finish();
    let (prefixes, tails, decoding) = (640, 16 * 10, 16 * 2);
    assert!(bench.rows() <= prefixes + tails + decoding, "{} rows", bench.rows());
}

#[test]
fn choices_share_the_prompt() {
    for prefix_cache in [true, false] {
        let mut bench = Bench::new(64, EngineConfig { prefix_cache, ..EngineConfig::default() });
        let choices = (0..4).map(|_| Choice::default()).collect();
        bench.core.submit(job(prompt(300, 1), Answers { choices, ..long(10) })).unwrap();
        bench.finish();
        assert_eq!(bench.rows(), 300 + 3 + 4 * 9, "the prompt once, its last token per further choice, then decoding");
    }
}

#[test]
fn tenants_take_turns() {
    let mut bench = Bench::new(64, EngineConfig { max_sequences: 1, ..EngineConfig::default() });
    let submit = |bench: &mut Bench, tenant: &str| {
        let job = Job { tenant: tenant.into(), ..job(prompt(50, 1), long(5)) };
        bench.core.submit(job).unwrap()
    };
    let a: Vec<RequestId> = (0..3).map(|_| submit(&mut bench, "a")).collect();
    let b = submit(&mut bench, "b");
    let mut order = Vec::new();
    while !bench.core.is_idle() {
        let done = |(id, output)| matches!(output, Ok(Output::Event(Event::Done(_)))).then_some(id);
        order.extend(bench.core.step().into_iter().filter_map(done));
    }
    assert_eq!(order, [a[0], b, a[1], a[2]], "one waiting tenant is not held up by the queue of another");
}

#[test]
fn a_full_queue_says_so() {
    let mut bench = Bench::new(64, EngineConfig { queue_limit: 2, ..EngineConfig::default() });
    for salt in 0..2 {
        bench.core.submit(job(prompt(5, salt), long(1))).unwrap();
    }
    let error = bench.core.submit(job(prompt(5, 9), long(1))).unwrap_err();
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Overloaded, Some("overloaded")));
    assert_eq!(bench.finish().len(), 2);
}

#[test]
fn a_deadline_ends_waiting_and_running_requests() {
    let mut bench = Bench::new(64, EngineConfig { max_sequences: 1, ..EngineConfig::default() });
    let deadline = Some(Duration::from_millis(20));
    let running = bench.core.submit(Job { deadline, ..job(prompt(5, 1), long(1000)) }).unwrap();
    let waiting = bench.core.submit(Job { deadline, ..job(prompt(5, 2), long(1000)) }).unwrap();
    let outputs = bench.finish();
    for id in [running, waiting] {
        let error = told(&outputs[&id]).error.unwrap();
        assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
    }
    assert!(bench.clock.now() < Duration::from_millis(30));
}

#[test]
fn cancelling_frees_pages_at_once() {
    let mut bench = Bench::new(64, EngineConfig::default());
    let id = bench.core.submit(job(prompt(300, 1), long(500))).unwrap();
    (0..5).for_each(|_| drop(bench.core.step()));
    assert!(bench.core.stats().kv_used_bytes > 0);
    bench.core.cancel(id);
    assert_eq!((bench.core.stats().kv_used_bytes, bench.core.is_idle()), (0, true));
    assert!(bench.core.step().is_empty());
}

#[test]
fn too_little_memory_pauses_the_youngest_and_loses_nothing() {
    // Eight pages; three answers that grow to four pages each.
    let mut bench = Bench::new(8, EngineConfig::default());
    for salt in 0..3 {
        bench.core.submit(job(prompt(60, salt), long(180))).unwrap();
    }
    let mut paused = false;
    let mut outputs: BTreeMap<RequestId, Vec<_>> = BTreeMap::new();
    while !bench.core.is_idle() {
        for (id, output) in bench.core.step() {
            outputs.entry(id).or_default().push(output);
        }
        paused |= bench.core.stats().paused > 0;
    }
    assert!(paused, "the case is tight enough");
    for (salt, seen) in outputs.values().enumerate() {
        let (text, ..) = naive(&prompt(60, salt as u32), &long(180), 0);
        assert_eq!(told(seen).texts[&0], text);
    }
}

#[test]
fn nothing_to_do_is_nothing_done() {
    let mut bench = Bench::new(8, EngineConfig::default());
    assert!(bench.core.is_idle() && bench.core.step().is_empty());
    assert_eq!(bench.clock.now(), Duration::ZERO);
}

#[test]
fn states_and_logits_come_out_whole() {
    let mut bench = Bench::new(64, EngineConfig { prefill_rows: 50, ..EngineConfig::default() });
    let tokens = prompt(130, 1);
    for work in [Work::Logits, Work::Vector] {
        bench
            .core
            .submit(Job { prompt: tokens.clone(), adaptation: None, tenant: String::new(), deadline: None, work })
            .unwrap();
    }
    let outputs: Vec<_> = bench.finish().into_values().flatten().map(Result::unwrap).collect();
    let [Output::Logits(rows), Output::Vector(sum)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((rows.len(), sum.len()), (130, fake::WIDTH));
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row[65], fake::logit(fake::state_of(&tokens[..=at]), 65));
    }
}

#[test]
fn forced_tokens_may_outgrow_the_pages_of_the_prompt() {
    let mut bench = Bench::new(8, EngineConfig::default());
    let choices = vec![Choice { matcher: Some(grammar()), ..Choice::default() }];
    let wanted = Answers { choices, ..answers(120) };
    let expected = naive(&prompt(62, 1), &wanted, 0);
    bench.core.submit(job(prompt(62, 1), wanted)).unwrap();
    let told = told(bench.finish().values().next().unwrap());
    assert_eq!((told.texts[&0].clone(), told.reasons[&0]), (expected.0, expected.1));
}

#[test]
fn choices_do_not_wait_for_one_that_was_forced_throughout() {
    let mut bench = Bench::new(8, EngineConfig::default());
    let choices = (0..3).map(|_| Choice { matcher: Some(grammar()), ..Choice::default() }).collect();
    bench.core.submit(job(prompt(5, 1), Answers { choices, ..answers(1) })).unwrap();
    let told = told(bench.finish().values().next().unwrap());
    assert_eq!(told.texts.values().collect::<Vec<_>>(), ["t", "t", "t"]);
}

/// A first turn whose answer left early, and a second one that begins with it: as part of a prompt it goes the whole way, whatever is cached.
#[test]
fn an_answer_that_left_early_is_read_whole_in_the_next_turn() {
    let mut bench = Bench::over(true, 40, EngineConfig::default());
    let ask = |bench: &mut Bench, prompt: Vec<u32>| {
        bench.core.submit(job(prompt, Answers { report_tokens: true, ..long(50) })).unwrap();
        bench.finish().into_values().next().unwrap()
    };
    let first = ask(&mut bench, prompt(60, 1));
    let ids = |output: &Result<Output, Error>| match output {
        Ok(Output::Event(Event::Tokens { ids, .. })) => ids.clone(),
        _ => Vec::new(),
    };
    let second: Vec<u32> = prompt(60, 1).into_iter().chain(first.iter().flat_map(ids)).collect();
    assert_eq!((second.len(), bench.core.stats().skipped_layers), (110, 49), "the fake skips one layer a token");
    let (text, ..) = naive_over(true, &second, &long(50), 0);
    let told = told(&ask(&mut bench, second));
    assert_eq!(told.texts[&0], text);
    assert_eq!(told.usage.unwrap().cached_tokens, 60, "the first prompt is reused, its answer is not");
}

#[test]
fn processor_time_is_shared_out_by_rows() {
    let mut bench = Bench::new(64, EngineConfig::default());
    let short = bench.core.submit(job(prompt(30, 1), long(4))).unwrap();
    let several = Answers { choices: (0..3).map(|_| Choice::default()).collect(), ..long(20) };
    let long = bench.core.submit(job(prompt(700, 2), several)).unwrap();
    let outputs = bench.finish();
    let took = |id| told(&outputs[&id]).usage.unwrap().processor_micros.unwrap();
    // The fake's processor takes 100 us a row: a prompt's rows, and one more for each token but the last.
    let near = |micros: u64, rows: u64| micros.abs_diff(100 * rows) <= 2;
    assert!(near(took(short), 30 + 3), "{}", took(short));
    assert!(near(took(long), 700 + 2 + 3 * 19), "{}", took(long));
    assert!(near(took(short) + took(long), bench.rows()), "nothing is lost and nothing counted twice");
}

#[test]
fn whoever_may_give_up_knows_what_it_took_so_far() {
    let mut bench = Bench::new(64, EngineConfig::default());
    let id = bench.core.submit(job(prompt(10, 1), Answers { report_work: true, ..long(3) })).unwrap();
    let outputs = bench.finish().remove(&id).unwrap();
    let told: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Ok(Output::Event(Event::Worked(micros))) => Some(*micros),
            Ok(Output::Event(Event::Text { .. })) => Some(0),
            _ => None,
        })
        .collect();
    assert_eq!(told, [1000, 0, 1100, 0, 1200, 0], "each ahead of the text that came of it");
}
