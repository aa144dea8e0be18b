//! Every instruction set gives the bits of the plain one, special values included.

use super::*;

struct Everything<'a>(&'a [f32; LANES], &'a [f32; LANES], &'a [f32; LANES]);

impl Kernel for Everything<'_> {
    type Out = Vec<u32>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<u32> {
        let (a, b, c) = (s.load(self.0), s.load(self.1), s.load(self.2));
        let (i, j) = (s.bits(a), s.bits(b));
        let mut half = [0; LANES];
        s.store_f16(a, &mut half);
        let mut words = [0; LANES];
        s.store_int(j, &mut words);
        let bytes: [u8; 4 * LANES] = std::array::from_fn(|i| half[i / 4].to_le_bytes()[i % 2]);
        let signed = [&bytes[..32], &bytes[32..]].map(|half| std::array::from_fn(|i| half[i].cast_signed()));
        let lt = s.lt(a, b);
        let floats = [
            s.add(a, b),
            s.sub(a, b),
            s.mul(a, b),
            s.div(a, b),
            s.fma(a, b, c),
            s.min(a, b),
            s.max(a, b),
            s.abs(a),
            s.swap_pairs(a),
            s.interleave(a, c)[0],
            s.interleave(a, c)[1],
            s.select(lt, a, b),
            s.select(s.mask(0x1a2b), a, b),
            s.load_f16(&half),
            s.load_part(&self.0[..5]),
            s.as_float(s.add_int(i, j)),
            s.as_float(s.sub_int(i, j)),
            s.as_float(s.mul_int(i, j)),
            s.as_float(s.and(i, j)),
            s.as_float(s.xor(i, j)),
            s.as_float(s.shl::<7>(i)),
            s.as_float(s.shr::<7>(i)),
            s.as_float(s.dot_bytes(i, j, i)),
            s.as_float(s.load_bytes(&bytes)),
            s.as_float(s.load_blocks([&signed[0], &signed[1]])),
            s.to_float(i),
            s.as_float(s.add_int(s.iota(), s.splat_int(9))),
            s.splat(s.sum(c)),
            s.splat(s.largest(c)),
        ];
        let mut out = vec![u32::from(s.mask_bits(lt)), u32::from(s.mask_bits(s.ge(a, b)))];
        let mut lanes = [0.0; LANES];
        for x in floats {
            s.store(x, &mut lanes);
            out.extend(lanes.map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }));
        }
        out.extend(words);
        s.store_part(a, &mut lanes[..3]);
        out.extend(lanes.map(f32::to_bits));
        out
    }
}

#[test]
fn instruction_sets_agree_to_the_bit() {
    let special =
        [0.0, -0.0, 1.0, -1.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40, 65519.0, 65520.0, 5.9e-8, 2e-8];
    let mut seed = 1_u32;
    for round in 0..500 {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if seed >> 28 == 0 {
                special[(seed >> 8) as usize % special.len()]
            } else {
                f32::from_bits((0x3000_0000 + (seed >> 3)) ^ (seed << 31))
            }
        };
        let (a, b) = (std::array::from_fn(|_| next()), std::array::from_fn(|_| next()));
        let c = std::array::from_fn(|i| i as f32 - 7.3 * (i * round) as f32);
        let expected = dispatch(Isa::Scalar, Everything(&a, &b, &c));
        for isa in Isa::available() {
            assert_eq!(dispatch(isa, Everything(&a, &b, &c)), expected, "{isa:?}");
        }
    }
}

struct Transposed(Vec<f32>);

impl Kernel for Transposed {
    type Out = Vec<f32>;
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) -> Vec<f32> {
        let (lines, _) = self.0.as_chunks_mut::<LANES>();
        let mut rows = [s.splat(0.0); LANES];
        rows.iter_mut().zip(&*lines).for_each(|(row, line)| *row = s.load(line));
        transpose(s, rows).into_iter().zip(lines).for_each(|(row, line)| s.store(row, line));
        self.0
    }
}

#[test]
fn rows_become_columns() {
    let numbers = |at: fn(usize) -> usize| (0..LANES * LANES).map(|i| at(i) as f32).collect::<Vec<f32>>();
    for isa in Isa::available() {
        let columns = dispatch(isa, Transposed(numbers(|i| i)));
        assert_eq!(columns, numbers(|i| i % LANES * LANES + i / LANES), "{isa:?}");
    }
}
