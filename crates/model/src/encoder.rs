//! The encoder: every row sees its whole sequence, norms stand behind the sums, nothing is cached.

use kernels::{Device, activate, encoder_attention, layer_norm, linear};

use crate::LayerSpec;
use crate::ModelSpec;
use crate::weights::{Layer, Weights};
use crate::workspace::{Workspace, slice};

/// A model's parts as the encoder sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder<'m> {
    pub(crate) dev: &'m Device,
    pub(crate) spec: &'m ModelSpec,
    pub(crate) weights: &'m Weights,
}

impl Encoder<'_> {
    /// Final hidden states of all rows; `lens` are the lengths of the sequences that stand one behind the other.
    pub(crate) fn forward<'w>(&self, tokens: &[u32], lens: &[usize], work: &'w mut Workspace) -> &'w [f32] {
        self.embed(tokens, lens, work);
        for (spec, layer) in self.spec.layers.iter().zip(&self.weights.layers) {
            self.attend(spec, layer, lens, tokens.len(), work);
            self.feed_forward(spec, layer, tokens.len(), work);
        }
        &work.x[..tokens.len() * self.spec.width]
    }

    fn embed(&self, tokens: &[u32], lens: &[usize], work: &mut Workspace) {
        let width = self.spec.width;
        let x = slice(&mut work.x, tokens.len() * width);
        let positions = lens.iter().flat_map(|&len| self.weights.positions.chunks_exact(width).take(len));
        for ((row, &token), position) in x.chunks_exact_mut(width).zip(tokens).zip(positions) {
            self.weights.embedding.matrix().row(token as usize, row);
            row.iter_mut().zip(position).for_each(|(x, p)| *x += p);
        }
        let norm = &self.weights.embedding_norm;
        layer_norm(self.dev, x, &norm.weight, &norm.bias, self.spec.norm_eps);
    }

    fn attend(&self, spec: &LayerSpec, layer: &Layer, lens: &[usize], rows: usize, work: &mut Workspace) {
        let (weights, norm) = (&layer.attention, &layer.post_attention_norm);
        let (wide, x) = (rows * spec.attention.heads * spec.attention.head_dim, rows * self.spec.width);
        let x = &mut work.x[..x];
        work.input.set(self.dev, x, self.spec.width, &weights.qkv_forms.base);
        let (query, key) = (slice(&mut work.query, wide), slice(&mut work.key, wide));
        let (value, mixed) = (slice(&mut work.value, wide), slice(&mut work.mixed, wide));
        let mut group = [weights.query.to(query), weights.key.to(key), weights.value.to(value)];
        linear(self.dev, &work.input, &mut group);
        encoder_attention(self.dev, &spec.attention, lens, query, key, value, mixed);
        work.input.set(self.dev, mixed, wide / rows.max(1), &weights.out_forms.base);
        linear(self.dev, &work.input, &mut [weights.out.onto(x)]);
        layer_norm(self.dev, x, &norm.weight, &norm.bias, self.spec.norm_eps);
    }

    fn feed_forward(&self, spec: &LayerSpec, layer: &Layer, rows: usize, work: &mut Workspace) {
        let (ffn, norm) = (&layer.ffn, &layer.post_ffn_norm);
        let x = &mut work.x[..rows * self.spec.width];
        work.input.set(self.dev, x, self.spec.width, &ffn.up_forms.base);
        let up = slice(&mut work.up, rows * spec.ffn);
        linear(self.dev, &work.input, &mut [ffn.up.to(up)]);
        activate(self.dev, spec.activation, up);
        work.input.set(self.dev, up, spec.ffn, &ffn.down_forms.base);
        linear(self.dev, &work.input, &mut [ffn.down.onto(x)]);
        layer_norm(self.dev, x, &norm.weight, &norm.bias, self.spec.norm_eps);
    }
}
