//! Passes over a row of logits: the parts of choosing a token that touch the whole vocabulary.

use crate::Device;

/// Index of the largest; the lowest index wins ties. NaN never wins.
pub fn argmax(_dev: &Device, _x: &[f32]) -> usize { unimplemented!() }
/// `ln(sum(exp(x)))`, in a fixed order.
pub fn log_sum_exp(_dev: &Device, _x: &[f32]) -> f32 { unimplemented!() }
/// The `k` largest as (index, value), best first, lower index first among equals; replaces the content of `out`.
pub fn top_k(_dev: &Device, _x: &[f32], _k: usize, _out: &mut Vec<(u32, f32)>) { unimplemented!() }
/// `argmax(x[i] * inverse_temperature + g(seed, position, i))` over all `i` with `x[i] >= floor`, where `g` is Gumbel noise, a pure
/// function of its arguments: a draw from `softmax(x * inverse_temperature)` (Gumbel 1954; Maddison et al. 2014).
pub fn gumbel_argmax(_dev: &Device, _x: &[f32], _inverse_temperature: f32, _floor: f32, _seed: u64, _position: u64) -> usize { unimplemented!() }
/// The noise itself.
pub fn gumbel(_seed: u64, _position: u64, _index: u32) -> f32 { unimplemented!() }
