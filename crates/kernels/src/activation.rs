//! Element-wise non-linearities, fused with the preparation of the next product.

use crate::{Activations, Device, Form};

/// The function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU, tanh approximation.
    GeluTanh,
    /// GELU with the error function.
    Gelu,
}

/// `f(gate) * up` (SwiGLU, GeGLU: Shazeer 2020), straight into `out` in each of `forms`. Rows are `cols` wide.
#[expect(clippy::too_many_arguments, reason = "two inputs, one output and its forms")]
pub fn gated(_dev: &Device, _f: Activation, _gate: &[f32], _up: &[f32], _cols: usize, _out: &mut Activations, _forms: &[Form]) { unimplemented!() }
/// `x = f(x)`.
pub fn activate(_dev: &Device, _f: Activation, _x: &mut [f32]) { unimplemented!() }
