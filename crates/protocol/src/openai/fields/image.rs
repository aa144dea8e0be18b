//! The table of `POST /v1/images/generations`.

use super::{Field, MODEL, Object, SEED, USER, honoured, recorded, refused};

/// The body of `POST /v1/images/generations`.
pub const IMAGE: Object = Object {
    name: "an image request",
    schema: "CreateImageRequest",
    fields: &[
        MODEL,
        honoured("prompt", "required; what to draw"),
        honoured("n", "1 to 10, default 1"),
        honoured("size", "auto (default) or WIDTHxHEIGHT in pixels; what sizes there are depends on the model"),
        honoured("response_format", "only b64_json, which is also the default: images are not kept here"),
        honoured("stream", "only false"),
        Field { extension: true, ..SEED },
        recorded("moderation", "the server's own policy decides"),
        USER,
        refused("quality", "there is one quality; leave it out"),
        refused("style", "say it in the prompt"),
        refused("background", "say it in the prompt"),
        refused("output_format", "the model decides; the reply says which it is"),
        refused("output_compression", "images are sent as the model encoded them; leave it out"),
        refused("partial_images", "images come whole; leave it out"),
    ],
};
