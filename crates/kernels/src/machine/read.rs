//! Reading cache lines as fast as an instruction set can.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "loads of whole registers, and calls into instruction sets")
)]

use std::hint::black_box;

use crate::Isa;

/// A cache line.
pub(super) type CacheLine = [u8; 64];

/// Reads all lines, `repeats` times over.
pub(super) fn read(isa: Isa, lines: &[CacheLine], repeats: usize) {
    for _ in 0..repeats {
        black_box(sum(isa, black_box(lines)));
    }
}

#[cfg(target_arch = "x86_64")]
fn sum(isa: Isa, lines: &[CacheLine]) -> u64 {
    match isa {
        // SAFETY: a device never has an instruction set that the machine lacks.
        Isa::Avx512 | Isa::Amx => unsafe { sum_avx512(lines) },
        // SAFETY: as above.
        Isa::Avx2 => unsafe { sum_avx2(lines) },
        Isa::Scalar => sum_plain(lines),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn sum(_isa: Isa, lines: &[CacheLine]) -> u64 {
    sum_plain(lines)
}

fn sum_plain(lines: &[CacheLine]) -> u64 {
    let word = |line: &CacheLine, i: usize| u64::from_ne_bytes(std::array::from_fn(|b| line[8 * i + b]));
    lines.iter().fold(0, |sum, line| (0..8).fold(sum, |s: u64, i| s.wrapping_add(word(line, i))))
}

/// Four independent sums: loads are what is measured, not the latency of additions.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(lines: &[CacheLine]) -> u64 {
    use std::arch::x86_64::{_mm512_add_epi64, _mm512_loadu_si512, _mm512_reduce_add_epi64, _mm512_setzero_si512};

    let (groups, rest) = lines.as_chunks::<4>();
    let mut sums = [_mm512_setzero_si512(); 4];
    for group in groups {
        for (sum, line) in sums.iter_mut().zip(group) {
            // SAFETY: a line is 64 bytes, and the load needs no alignment.
            *sum = _mm512_add_epi64(*sum, unsafe { _mm512_loadu_si512(line.as_ptr().cast()) });
        }
    }
    let total = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi64(a, b));
    (_mm512_reduce_add_epi64(total) as u64).wrapping_add(sum_plain(rest))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(lines: &[CacheLine]) -> u64 {
    use std::arch::x86_64::{_mm256_add_epi64, _mm256_loadu_si256, _mm256_setzero_si256, _mm256_storeu_si256};

    let (groups, rest) = lines.as_chunks::<4>();
    let mut sums = [_mm256_setzero_si256(); 8];
    for group in groups {
        for (sum, half) in sums.iter_mut().zip(group.as_flattened().as_chunks::<32>().0) {
            // SAFETY: half a line is 32 bytes, and the load needs no alignment.
            *sum = _mm256_add_epi64(*sum, unsafe { _mm256_loadu_si256(half.as_ptr().cast()) });
        }
    }
    let mut words = [0u64; 4];
    let total = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
    // SAFETY: `words` is 32 bytes, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), total) };
    words.into_iter().fold(sum_plain(rest), u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read() {
        for count in [0, 1, 3, 4, 7, 64] {
            let lines: Vec<CacheLine> = (0..count).map(|i| std::array::from_fn(|b| (i * 31 + b * 7) as u8)).collect();
            for isa in Isa::available() {
                assert_eq!(sum(isa, &lines), sum_plain(&lines), "{isa:?} {count}");
            }
        }
    }
}
