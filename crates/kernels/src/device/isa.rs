//! Which instructions this machine has, and may use.
//!
//! AMX needs more than the processor's word: the operating system must save the tile registers (XCR0), and Linux wants each
//! process to ask for permission before the first tile instruction. Permission is asked for once, on detection.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "XGETBV and the permission system call for AMX"))]

use std::sync::OnceLock;

/// An instruction set with kernels of its own. Ordered: later ones are faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, the oracle of every other.
    Scalar,
    /// AVX2 + FMA + F16C.
    Avx2,
    /// AVX-512 F, BW, VL, DQ, VNNI and BF16.
    Avx512,
    /// AVX-512 and AMX with tiles of int8 and bf16.
    Amx,
}

impl Isa {
    /// The best one this machine has.
    pub fn detect() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(probe)
    }

    /// All that this machine can run, [`Isa::Scalar`] first.
    pub fn available() -> Vec<Self> {
        let best = Self::detect();
        [Self::Scalar, Self::Avx2, Self::Avx512, Self::Amx].into_iter().filter(|isa| *isa <= best).collect()
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn probe() -> Isa {
    Isa::Scalar
}

#[cfg(target_arch = "x86_64")]
fn probe() -> Isa {
    if !(has!("avx2") && has!("fma") && has!("f16c")) {
        return Isa::Scalar;
    }
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq");
    if !(avx512 && has!("avx512vnni") && has!("avx512bf16")) {
        return Isa::Avx2;
    }
    if has_amx() && may_use_amx() { Isa::Amx } else { Isa::Avx512 }
}

#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($feature:tt) => {
        std::arch::is_x86_feature_detected!($feature)
    };
}
#[cfg(target_arch = "x86_64")]
use has;

/// The processor has tiles of int8 and bf16, and the system saves their registers.
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    use std::arch::x86_64::{__cpuid_count, _xgetbv};

    const BF16_TILE_INT8: u32 = 0b1101 << 22;
    const OSXSAVE: u32 = 1 << 27;
    const TILE_STATE: u64 = 0b11 << 17;

    #[target_feature(enable = "xsave")]
    fn saved_state() -> u64 {
        // SAFETY: the caller has seen OSXSAVE, without which XGETBV faults.
        unsafe { _xgetbv(0) }
    }

    let tiles = __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8;
    let xsave = __cpuid_count(1, 0).ecx & OSXSAVE != 0;
    // SAFETY: OSXSAVE was checked just before.
    tiles && xsave && unsafe { saved_state() } & TILE_STATE == TILE_STATE
}

/// Asks Linux for the tile registers, once for the process and all threads it will start.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn may_use_amx() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// Other systems are not known to need permission, nor have they been tried: no AMX there.
#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn may_use_amx() -> bool {
    false
}
