//! A checkpoint becomes a function from tokens and cache to logits.
//!
//! [`ModelSpec`] is data: what the layers are. A file of at most 150 lines per family fills one in, from GGUF metadata or from a
//! Hugging Face `config.json`. [`Model`] is a spec with its weights; [`Model::forward`] is the one decoder for all families.
//!
//! Invariant: no request, no scheduler and no tokenizer is known here; a family is data, never a second decoder.

mod adapter;
mod arch;
mod checkpoint;
mod decoder;
mod domain;
mod encoder;
mod error;
mod exits;
mod export;
mod fields;
pub mod gguf;
mod inspect;
mod model;
mod router;
pub mod safetensors;
mod spec;
mod tensors;
mod value;
mod vocabulary;
mod weights;
mod workspace;

pub use adapter::{
    Adapter, DOMAIN, EXPERTS, EXPERTS_FORMAT, FORMAT, GENERAL, MOST_EXPERTS, OpenedAdapter, ROUTER_BIAS, ROUTER_LAYER,
    ROUTER_WEIGHTS, THRESHOLD, adapted_layers, expert_prefix,
};
pub use domain::Domain;
pub use error::{Error, Problem};
pub use export::{hugging_face_config, hugging_face_name, hugging_face_row};
pub use inspect::{Inspection, inspect};
pub use model::{Batch, Model};
pub use router::Router;
pub use spec::{Exit, LayerSpec, ModelSpec, Norms, Pooling};
pub use tensors::{Scales, TensorInfo};
pub use value::Value;
pub use vocabulary::{TokenizerSource, Vocabulary};
pub use weights::{Attention, FeedForward, Layer, LinearLayer, Norm, Weights};
pub use workspace::{HeadWorkspace, Workspace};
