//! Requests for images and what comes back.

use serde::{Deserialize, Serialize};

/// A request for images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrawRequest {
    /// The caller's id for this request.
    pub id: String,
    /// Which model; empty means the default one.
    pub model: String,
    /// What to draw.
    pub prompt: String,
    /// How many images, at least 1.
    pub n: usize,
    /// Width and height in pixels; `None` leaves it to the model.
    pub size: Option<(u32, u32)>,
    /// The same seed gives the same images, where the service can do that.
    pub seed: Option<u64>,
    /// Tenant for fair queueing.
    pub tenant: String,
}

/// The images of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drawing {
    /// In the order they were drawn.
    pub images: Vec<Image>,
}

/// One encoded image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The encoded file.
    pub bytes: Vec<u8>,
    /// Its media type, such as `image/png`.
    pub media_type: String,
}
