//! Which expert of a module takes a token.
//!
//! The layers below a router run without any expert, so a token's state in front of the router's layer is the base's, whatever is installed: a router
//! that was learned from states of the base meets the same states wherever it runs. Its choice is a function of that state alone, which has seen all
//! that stands before the token and nothing behind it; so a prompt read at once and one read token by token choose alike, and no neighbour has a say.

/// A linear map from a token's state to a score for the base alone and for each expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Router {
    /// It reads what enters this layer, and experts stand beside this layer and all above it.
    pub layer: usize,
    /// `[1 + experts][width]`, the base's row first.
    pub weights: Vec<f32>,
    /// `[1 + experts]`.
    pub bias: Vec<f32>,
}

/// Sums of a product that run side by side.
const LANES: usize = 16;

impl Router {
    /// The expert with the highest score, `None` where it is the base alone, which also wins a tie.
    ///
    /// # Panics
    /// When the state has another width.
    pub fn pick(&self, state: &[f32]) -> Option<usize> {
        let mut best = (None, f32::NEG_INFINITY);
        for (choice, score) in self.scores(state).enumerate() {
            if score > best.1 {
                best = (choice.checked_sub(1), score);
            }
        }
        best.0
    }

    /// Scores of the base alone and of each expert. States differ in length more than in direction, so their length is taken out.
    ///
    /// # Panics
    /// When the state has another width.
    pub fn scores(&self, state: &[f32]) -> impl Iterator<Item = f32> {
        assert_eq!(self.weights.len(), self.bias.len() * state.len(), "a state of the router's model");
        let unit = Self::unit(state);
        let rows = self.weights.chunks_exact(state.len().max(1)).zip(&self.bias);
        rows.map(move |(row, bias)| dot(row, state) * unit + bias)
    }

    /// What makes a state's numbers 1 on average; 0 where all of them are.
    pub fn unit(state: &[f32]) -> f32 {
        let square = dot(state, state) / state.len().max(1) as f32;
        if square > 0.0 { square.sqrt().recip() } else { 0.0 }
    }

    /// How many experts it chooses among.
    pub fn experts(&self) -> usize {
        self.bias.len().saturating_sub(1)
    }
}

/// In one order, whatever runs it.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_score_takes_a_token() {
        let router = Router { layer: 1, weights: vec![0.0, 0.0, 1.0, 0.0, 0.0, 1.0], bias: vec![0.5, 0.0, 0.0] };
        assert_eq!(router.experts(), 2);
        let check = |state: [f32; 2], want: Option<usize>| assert_eq!(router.pick(&state), want, "{state:?}");
        check([3.0, 0.0], Some(0));
        check([0.1, 0.2], Some(1));
        check([-1.0, 0.3], None);
        // Longer is not surer, nothing is nobody's, and a tie is the base's.
        check([-100.0, 30.0], None);
        check([0.0, 0.0], None);
        let tied = Router { weights: vec![0.0; 6], bias: vec![0.0; 3], ..router.clone() };
        assert_eq!(tied.pick(&[1.0, 2.0]), None);
    }

    #[test]
    fn a_product_has_every_term() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &[1.0; 37]), (0..37).sum::<i32>() as f32);
    }
}
