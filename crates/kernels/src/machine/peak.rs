//! Arithmetic at its peak: independent chains of one instruction, in registers only.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "calls into instruction sets, and AMX, which has no stable intrinsics")
)]

use std::{fmt, hint::black_box};

use crate::Isa;

/// Enough chains to hide the latency of a multiply-add on two ports, and few enough for sixteen registers.
const CHAINS: usize = 12;
/// Steps of every chain in one repetition.
const STEPS: usize = 1024;

/// A kind of arithmetic, named after what is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arithmetic {
    /// f32, fused multiply-add where the instruction set has it.
    F32,
    /// Pairs of bf16 added to f32 (`VDPBF16PS`).
    Bf16,
    /// Quads of u8 x i8 added to i32 (`VPDPBUSD`, or `VPMADDUBSW` + `VPMADDWD` + `VPADDD`).
    Int8,
    /// Tiles of u8 x i8 added to i32 (`TDPBUSD`).
    Int8Tiles,
}

impl Arithmetic {
    /// The kinds that an instruction set has.
    pub(super) fn of(isa: Isa) -> &'static [Self] {
        match isa {
            Isa::Scalar => &[Self::F32],
            Isa::Avx2 => &[Self::F32, Self::Int8],
            Isa::Avx512 => &[Self::F32, Self::Bf16, Self::Int8],
            Isa::Amx => &[Self::F32, Self::Bf16, Self::Int8, Self::Int8Tiles],
        }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int8Tiles => "int8 tiles",
        })
    }
}

/// Computes for `repeats` repetitions and returns how many operations that was. The kind must be one of `isa`'s.
pub(super) fn compute(isa: Isa, kind: Arithmetic, repeats: usize) -> u64 {
    let steps = repeats * STEPS;
    let per_step = match (isa, kind) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512 | Isa::Amx, _) => x86::avx512(kind, steps),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => x86::avx2(kind, steps),
        _ => plain_f32(steps),
    };
    (steps * per_step) as u64
}

/// Multiplies and adds apart, as plain Rust does it; the lanes are for the compiler to spread over what registers there are.
fn plain_f32(steps: usize) -> usize {
    let (x, y) = (black_box(0.999f32), black_box(0.001f32));
    let mut sums = [1.0f32; 4 * CHAINS];
    for _ in 0..steps {
        for sum in &mut sums {
            *sum = *sum * x + y;
        }
    }
    black_box(sums);
    2 * sums.len()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Each function runs `steps` steps and returns the operations of one step.

    use std::arch::{asm, x86_64::*};
    use std::hint::black_box;

    use super::{Arithmetic, CHAINS};
    use crate::tiles::Registers;

    pub(super) fn avx512(kind: Arithmetic, steps: usize) -> usize {
        // SAFETY: a device has this instruction set only where all of these features were found (`Isa::detect`).
        unsafe {
            match kind {
                Arithmetic::F32 => f32_avx512(steps),
                Arithmetic::Bf16 => bf16_avx512(steps),
                Arithmetic::Int8 => int8_avx512(steps),
                Arithmetic::Int8Tiles => int8_tiles(steps),
            }
        }
    }

    pub(super) fn avx2(kind: Arithmetic, steps: usize) -> usize {
        // SAFETY: as above.
        unsafe { if kind == Arithmetic::F32 { f32_avx2(steps) } else { int8_avx2(steps) } }
    }

    #[target_feature(enable = "avx512f")]
    fn f32_avx512(steps: usize) -> usize {
        let (x, y) = black_box((_mm512_set1_ps(0.999), _mm512_set1_ps(0.001)));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        CHAINS * 16 * 2
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_avx512(steps: usize) -> usize {
        let start = _mm512_set1_ps(0.001);
        let (x, y) = black_box((_mm512_cvtne2ps_pbh(start, start), _mm512_cvtne2ps_pbh(start, start)));
        let mut sums = [start; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, y);
            }
        }
        black_box(sums);
        CHAINS * 32 * 2
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn int8_avx512(steps: usize) -> usize {
        let (x, y) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(-2)));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, y);
            }
        }
        black_box(sums);
        CHAINS * 64 * 2
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_avx2(steps: usize) -> usize {
        let (x, y) = black_box((_mm256_set1_ps(0.999), _mm256_set1_ps(0.001)));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
        CHAINS * 8 * 2
    }

    /// The products change from step to step, or the compiler would take them out of the loop.
    #[target_feature(enable = "avx2")]
    fn int8_avx2(steps: usize) -> usize {
        let (x, y, ones) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(-2), _mm256_set1_epi16(1)));
        let mut sums = [x; CHAINS];
        for _ in 0..steps {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(*sum, y);
                *sum = _mm256_add_epi32(x, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
        CHAINS * 32 * 2
    }

    /// Four chains, as many as two operands on each side make: what a matrix product of tiles can keep going.
    ///
    /// # Safety
    /// The machine has AMX with int8 and the process may use it.
    unsafe fn int8_tiles(steps: usize) -> usize {
        // SAFETY: the registers are configured before, zeroed by that, and freed after their use; only they are written.
        unsafe {
            let _registers = Registers::new([(16, 64); 8]);
            asm!(
                "test {steps}, {steps}",
                "jz 3f",
                "2:",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "dec {steps}",
                "jnz 2b",
                "3:",
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        4 * 16 * 16 * 64 * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        for isa in Isa::available() {
            for &kind in Arithmetic::of(isa) {
                let one = compute(isa, kind, 1);
                assert!(one > 0 && one.is_multiple_of(STEPS as u64), "{isa:?} {kind}");
                assert_eq!(compute(isa, kind, 3), 3 * one, "{isa:?} {kind}");
            }
        }
        assert_eq!(compute(Isa::Scalar, Arithmetic::F32, 2), (2 * STEPS * 48 * 2) as u64);
    }
}
