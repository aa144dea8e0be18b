//! RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016), row by row in a fixed order.

use crate::Device;

/// `y = x / rms(x) * weight` for every row of `weight.len()` numbers.
pub fn rms_norm(_dev: &Device, _x: &[f32], _weight: &[f32], _eps: f32, _y: &mut [f32]) { unimplemented!() }
/// [`rms_norm`] with input and output the same (per-head norms of queries and keys).
pub fn rms_norm_in_place(_dev: &Device, _x: &mut [f32], _weight: &[f32], _eps: f32) { unimplemented!() }
/// `y += rms_norm(x)`: a norm behind a block and the residual in one pass.
pub fn rms_norm_add(_dev: &Device, _x: &[f32], _weight: &[f32], _eps: f32, _y: &mut [f32]) { unimplemented!() }
/// `x = (x - mean) / sqrt(var + eps) * weight + bias`, in place.
pub fn layer_norm(_dev: &Device, _x: &mut [f32], _weight: &[f32], _bias: &[f32], _eps: f32) { unimplemented!() }
