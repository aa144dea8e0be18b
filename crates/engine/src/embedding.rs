//! The last touch on a pooled vector: dimensions and length.

use protocol::Error;

/// Cuts to the wanted dimensions and scales to length 1. A mean is a sum up to its length, so sums will do.
pub(crate) fn finish(mut vector: Vec<f32>, dimensions: Option<usize>) -> Result<Vec<f32>, Error> {
    if let Some(dimensions) = dimensions {
        if dimensions == 0 || dimensions > vector.len() {
            let message =
                format!("this model's vectors have {} dimensions; ask for 1 to {0}, not {dimensions}", vector.len());
            return Err(Error::invalid("dimensions", message));
        }
        vector.truncate(dimensions);
    }
    let norm = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one_after_the_cut() {
        assert_eq!(finish(vec![3.0, 4.0], None).unwrap(), [0.6, 0.8]);
        assert_eq!(finish(vec![3.0, 4.0], Some(1)).unwrap(), [1.0]);
        assert_eq!(finish(vec![0.0, 0.0], None).unwrap(), [0.0, 0.0]);
    }

    #[test]
    fn impossible_dimensions_are_named() {
        let error = finish(vec![3.0, 4.0], Some(3)).unwrap_err();
        assert_eq!(error.message, "this model's vectors have 2 dimensions; ask for 1 to 2, not 3");
        assert_eq!(error.param.as_deref(), Some("dimensions"));
    }
}
