//! RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016), row by row in a fixed order.

use crate::parallel::rows;
use crate::simd::{Kernel, Map, Simd, dispatch, sum_map, zip_map};
use crate::{Activations, Device, Form};

/// `y = x / rms(x) * weight` for every row of `weight.len()` numbers.
pub fn rms_norm(dev: &Device, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let cols = weight.len();
    rows(dev, y, cols, |first, y| {
        let x = &x[first * cols..][..y.len()];
        dispatch(dev.isa(), Rms { x: Some(x), weight, eps, y, add: false });
    });
}

/// [`rms_norm`] straight into `out`, in each of `forms`: the input of the next product without a pass through memory.
pub fn rms_norm_to(dev: &Device, x: &[f32], weight: &[f32], eps: f32, out: &mut Activations, forms: &[Form]) {
    let cols = weight.len();
    assert!(cols > 0 && x.len().is_multiple_of(cols), "{} numbers are not rows of {cols}", x.len());
    out.fill(dev, x.len() / cols, cols, forms, &|row, columns, y| {
        let x = &x[row * cols..][..cols];
        // A chunk of a wide row needs the whole row's scale.
        dispatch(dev.isa(), RmsChunk { x, chunk: &x[columns.clone()], weight: &weight[columns], eps, y });
    });
}

/// [`rms_norm`] with input and output the same (per-head norms of queries and keys).
pub fn rms_norm_in_place(dev: &Device, x: &mut [f32], weight: &[f32], eps: f32) {
    rows(dev, x, weight.len(), |_, y| dispatch(dev.isa(), Rms { x: None, weight, eps, y, add: false }));
}

/// `y += rms_norm(x)`: a norm behind a block and the residual in one pass.
pub fn rms_norm_add(dev: &Device, x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let cols = weight.len();
    rows(dev, y, cols, |first, y| {
        let x = &x[first * cols..][..y.len()];
        dispatch(dev.isa(), Rms { x: Some(x), weight, eps, y, add: true });
    });
}

/// `x = (x - mean) / sqrt(var + eps) * weight + bias`, in place.
pub fn layer_norm(dev: &Device, x: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    assert_eq!(weight.len(), bias.len());
    rows(dev, x, weight.len(), |_, x| dispatch(dev.isa(), Layer { x, weight, bias, eps }));
}

/// RMSNorm of some rows.
struct Rms<'a> {
    /// The input; `None` if it stands in `y`.
    x: Option<&'a [f32]>,
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
    /// Add to `y`.
    add: bool,
}

impl Kernel for Rms<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.weight.len();
        for (i, y) in self.y.chunks_exact_mut(cols).enumerate() {
            let x = self.x.map(|x| &x[i * cols..][..cols]);
            let inverse = inverse_rms(s, x.unwrap_or(y), self.eps);
            match x {
                None => zip_map(s, y, self.weight, self.weight, &ScaleInPlace(inverse)),
                Some(x) if self.add => zip_map(s, y, x, self.weight, &AddScaled(inverse)),
                Some(x) => zip_map(s, y, x, self.weight, &Scaled(inverse)),
            }
        }
    }
}

/// RMSNorm of some columns of a row.
struct RmsChunk<'a> {
    x: &'a [f32],
    chunk: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl Kernel for RmsChunk<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        zip_map(s, self.y, self.chunk, self.weight, &Scaled(inverse_rms(s, self.x, self.eps)));
    }
}

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
pub(crate) fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (sum_map(s, x, &SquareFrom(0.0)) / x.len() as f32 + eps).sqrt()
}

/// LayerNorm of some rows.
struct Layer<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernel for Layer<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.weight.len() as f32;
        for x in self.x.chunks_exact_mut(self.weight.len()) {
            let mean = sum_map(s, x, &Itself) / n;
            let variance = sum_map(s, x, &SquareFrom(mean)) / n;
            let inverse = 1.0 / (variance + self.eps).sqrt();
            zip_map(s, x, self.weight, self.bias, &Standardised { mean, inverse });
        }
    }
}

/// `a * factor * b`.
pub(crate) struct Scaled(pub(crate) f32);

impl Map for Scaled {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, _: S::F, a: S::F, b: S::F) -> S::F {
        s.mul(s.mul(a, s.splat(self.0)), b)
    }
}

/// `y * factor * a`.
struct ScaleInPlace(f32);

impl Map for ScaleInPlace {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, _: S::F) -> S::F {
        s.mul(s.mul(y, s.splat(self.0)), a)
    }
}

/// `y + a * factor * b`.
struct AddScaled(f32);

impl Map for AddScaled {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, b: S::F) -> S::F {
        s.fma(s.mul(a, s.splat(self.0)), b, y)
    }
}

/// `(y - mean) * inverse * a + b`.
struct Standardised {
    mean: f32,
    inverse: f32,
}

impl Map for Standardised {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, a: S::F, b: S::F) -> S::F {
        s.fma(s.mul(s.sub(y, s.splat(self.mean)), s.splat(self.inverse)), a, b)
    }
}

/// The number.
struct Itself;

impl Map for Itself {
    #[inline(always)]
    fn at<S: Simd>(&self, _: S, y: S::F, _: S::F, _: S::F) -> S::F {
        y
    }
}

/// The square of the distance from a number.
pub(crate) struct SquareFrom(pub(crate) f32);

impl Map for SquareFrom {
    #[inline(always)]
    fn at<S: Simd>(&self, s: S, y: S::F, _: S::F, _: S::F) -> S::F {
        let x = s.sub(y, s.splat(self.0));
        s.mul(x, x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0) * 3.0)
            .collect()
    }

    /// The formula in f64.
    fn exact(x: &[f32], weight: &[f32], bias: Option<&[f32]>, eps: f32) -> Vec<f64> {
        let (n, cols) = (weight.len() as f64, weight.len());
        let row = |x: &[f32]| -> Vec<f64> {
            let mean = if bias.is_some() { x.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
            let square = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (square + f64::from(eps)).sqrt();
            let term = |i: usize| {
                (f64::from(x[i]) - mean) * inverse * f64::from(weight[i]) + bias.map_or(0.0, |b| f64::from(b[i]))
            };
            (0..cols).map(term).collect()
        };
        x.chunks(cols).flat_map(row).collect()
    }

    #[track_caller]
    fn close(got: &[f32], want: &[f64]) {
        for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(got) - want).abs() <= 1e-6 * (1.0 + want.abs()), "{i}: {got} for {want}");
        }
    }

    #[test]
    fn norms_match_their_formulas_on_every_instruction_set_and_thread_count() {
        for (rows, cols) in [(1, 576), (3, 1), (5, 15), (40, 640), (70, 17), (300, 64)] {
            let (x, weight, bias) = (numbers(rows * cols, 1), numbers(cols, 7), numbers(cols, 9));
            let mut all = Vec::new();
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let dev = Device::with_isa(threads, isa);
                    let (mut out, mut same, mut added, mut layer) =
                        (vec![0.0; x.len()], x.clone(), x.clone(), x.clone());
                    rms_norm(&dev, &x, &weight, 1e-5, &mut out);
                    rms_norm_in_place(&dev, &mut same, &weight, 1e-5);
                    rms_norm_add(&dev, &x, &weight, 1e-5, &mut added);
                    layer_norm(&dev, &mut layer, &weight, &bias, 1e-5);
                    assert_eq!(out, same);
                    let rms = exact(&x, &weight, None, 1e-5);
                    close(&out, &rms);
                    close(&added, &rms.iter().zip(&x).map(|(r, x)| r + f64::from(*x)).collect::<Vec<_>>());
                    close(&layer, &exact(&x, &weight, Some(&bias), 1e-5));
                    all.push((out, added, layer));
                }
            }
            assert!(all.iter().all(|one| *one == all[0]), "{rows} x {cols}: all the same bits");
        }
    }
}
