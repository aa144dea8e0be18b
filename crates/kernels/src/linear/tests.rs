use super::*;
use crate::testing::{Random, random_bytes};
use crate::{BlockType, Isa};

fn product(dev: &Device, weight: &Matrix, x: &[f32]) -> Vec<f32> {
    let mut activations = Activations::new();
    activations.set(dev, x, weight.cols(), &[weight.form()]);
    let mut out = vec![f32::NAN; activations.rows() * weight.rows()];
    linear(dev, &activations, &mut [Linear { weight, bias: None, out: &mut out, accumulate: false }]);
    out
}

#[test]
fn products_are_near_those_of_f64() {
    let dev = Device::with_isa(1, Isa::Scalar);
    for kind in BlockType::ALL {
        let (rows, cols, m) = (20, 512, 3);
        let bytes = random_bytes(kind, rows * cols, 3);
        let weight = Matrix::pack(&dev, kind, rows, cols, &bytes).unwrap();
        let x = Random::new(4).numbers(m * cols);
        let out = product(&dev, &weight, &x);
        let mut row = vec![0.0; cols];
        for n in 0..rows {
            weight.row(n, &mut row);
            for r in 0..m {
                let terms = || row.iter().zip(&x[r * cols..]).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let size = terms().map(|t| t * t).sum::<f64>().sqrt();
                let error = (terms().sum::<f64>() - f64::from(out[r * rows + n])).abs();
                assert!(error < 0.02 * size, "{kind:?}: {error} of {size}");
            }
        }
    }
}
