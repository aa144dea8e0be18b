//! What only `cargo xtask test --slow` runs: minutes each, and worth it before a release.

use crate::{
    check,
    run::{Steps, run},
    test::{Needs, with_data},
};

/// Long tests of the crates, full-text perplexity, and lm-eval beside `tessera eval`.
pub(crate) fn test(steps: &mut Steps, needs: &Needs) {
    steps.step("long tests", || {
        let mut command = check::tests(check::Kind::Slow);
        with_data(&mut command, needs.models().as_deref(), needs.datasets().as_deref());
        run(&mut command)
    });
}
