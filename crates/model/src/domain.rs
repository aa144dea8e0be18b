//! Where an adapter's domain lies among what a model is asked: what a router compares prompts with.
//!
//! A decoder's pooled hidden states all point much the same way (Ethayarajh 2019), so that any two prompts look alike. What tells domains apart is where
//! they lie from the middle of general prompts; so a domain is a direction from there, and a threshold.

/// A domain of prompts, by the vectors that the base gives of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Domain {
    /// The mean vector of general prompts.
    pub general: Vec<f32>,
    /// From there to the mean vector of the domain's prompts, of length 1.
    pub direction: Vec<f32>,
    /// A prompt that scores less is of another domain, or of none.
    pub threshold: f32,
}

impl Domain {
    /// From the middle of general prompts to that of the domain's own; any prompt that points there at all passes.
    ///
    /// # Panics
    /// When vectors differ in length.
    pub fn between(general: &[&[f32]], own: &[&[f32]]) -> Self {
        let (general, own) = (mean(general), mean(own));
        assert_eq!(general.len(), own.len(), "vectors of one model");
        let mut direction: Vec<f32> = own.iter().zip(&general).map(|(own, general)| own - general).collect();
        let length = dot(&direction, &direction).sqrt();
        if length > 0.0 {
            direction.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        Self { general, direction, threshold: 0.0 }
    }

    /// The cosine between the domain's direction and that of a prompt's vector, from -1 to 1; 0 for one without direction, or of another model.
    pub fn score(&self, vector: &[f32]) -> f32 {
        if vector.len() != self.general.len() {
            return 0.0;
        }
        let from: Vec<f32> = vector.iter().zip(&self.general).map(|(x, general)| x - general).collect();
        let length = dot(&from, &from).sqrt();
        if length > 0.0 { (dot(&from, &self.direction) / length) as f32 } else { 0.0 }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn mean(vectors: &[&[f32]]) -> Vec<f32> {
    let mut sum = vec![0.0; vectors.first().map_or(0, |first| first.len())];
    for vector in vectors {
        assert_eq!(vector.len(), sum.len(), "vectors of one model");
        sum.iter_mut().zip(*vector).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    sum.into_iter().map(|sum| (sum / vectors.len() as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_cosines_from_the_middle() {
        let domain = Domain::between(&[&[1.0, 1.0], &[1.0, 3.0]], &[&[4.0, 2.0], &[6.0, 2.0]]);
        assert_eq!((&domain.general[..], &domain.direction[..]), (&[1.0, 2.0][..], &[1.0, 0.0][..]));
        let check = |vector: &[f32], want: f32| {
            let got = domain.score(vector);
            assert!((got - want).abs() < 1e-6, "{vector:?}: {got}, not {want}");
        };
        check(&[3.0, 2.0], 1.0);
        check(&[-1.0, 2.0], -1.0);
        check(&[1.0, 9.0], 0.0);
        check(&[2.0, 3.0], 0.5_f32.sqrt());
        check(&[1.0, 2.0], 0.0);
        check(&[1.0], 0.0);
    }
}
