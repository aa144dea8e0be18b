//! The pool: every task runs once, panics come back, idle threads sleep.

use super::*;

fn counts(pool: &Pool, n: usize) -> Vec<usize> {
    let counts: Vec<_> = (0..n).map(|_| AtomicUsize::new(0)).collect();
    pool.run(n, &|i| {
        counts[i].fetch_add(1, Ordering::Relaxed);
    });
    counts.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_task_runs_once() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        for n in [0, 1, 2, 7, 1000] {
            assert_eq!(counts(&pool, n), vec![1; n]);
        }
    }
}

#[test]
fn many_small_jobs_after_each_other() {
    let pool = Pool::new(4);
    for n in 0..20_000 {
        let sum = AtomicUsize::new(0);
        pool.run(n % 5, &|i| {
            sum.fetch_add(i + 1, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), (n % 5) * (n % 5 + 1) / 2);
    }
}

#[test]
fn callers_take_turns() {
    let pool = Pool::new(3);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| assert_eq!(counts(&pool, 9), [1; 9])));
        }
    });
}

#[test]
fn workers_wake_after_sleep() {
    let pool = Pool::new(2);
    for _ in 0..20 {
        assert_eq!(counts(&pool, 64), [1; 64]);
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let pool = Pool::new(2);
    for _ in 0..50 {
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert!(i != 5, "task five"))));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"task five"));
        assert_eq!(counts(&pool, 8), [1; 8]);
    }
}

#[test]
fn a_job_inside_a_task_runs_in_line() {
    let pool = Pool::new(2);
    let sum = AtomicUsize::new(0);
    pool.run(4, &|i| {
        pool.run(4, &|j| {
            sum.fetch_add(i * j, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), 36);
}

#[test]
fn idle_workers_sleep() {
    let pool = Pool::new(3);
    assert_eq!(counts(&pool, 64), [1; 64]);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(pool.shared.sleepers.load(Ordering::SeqCst), 2, "workers still spin after 50 ms");
}
