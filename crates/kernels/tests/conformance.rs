//! Every case of the table on every instruction set of this machine, on one thread and on two.

use kernels::conformance::cases;
use kernels::{Device, Isa};

#[track_caller]
fn check(isa: Isa, threads: usize) {
    let dev = Device::with_isa(threads, isa);
    let errors: Vec<String> = cases().iter().filter_map(|case| case.check(&dev).err()).collect();
    assert!(errors.is_empty(), "{} cases differ:\n{}", errors.len(), errors.join("\n"));
}

/// Instruction sets that the machine lacks fall back to the best it has, which is then checked twice.
#[test]
fn plain_on_two_threads() {
    check(Isa::Scalar, 2);
}

#[test]
fn avx2() {
    check(Isa::Avx2, 1);
    check(Isa::Avx2, 2);
}

#[test]
fn avx512() {
    check(Isa::Avx512, 1);
    check(Isa::Avx512, 2);
}

#[test]
fn amx() {
    check(Isa::Amx, 1);
    check(Isa::Amx, 2);
}

#[test]
fn names_are_unique_and_counts_positive() {
    let cases = cases();
    let mut names: Vec<String> = cases.iter().map(ToString::to_string).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases share a name");
    for case in cases {
        assert!(case.bytes() > 0, "{case}");
    }
}
