//! Images: a request on OpenAI's wire, and what comes back.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{DrawRequest, Drawing, Error, ErrorKind, Image};
use serde::Deserialize;
use serde_json::{Value, json};

/// The reply: images in base64.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    data: Vec<One>,
}

#[derive(Debug, Deserialize)]
struct One {
    b64_json: Option<String>,
}

/// The body of a request. Only the older models must be asked for base64; OpenAI's newer ones know nothing else and refuse the
/// field.
pub(super) fn body(request: &DrawRequest, model: &str) -> Result<Value, Error> {
    if request.seed.is_some() {
        let message = "`seed` has a value, but the upstream that draws for this model cannot do that.";
        return Err(Error::new(ErrorKind::Unsupported, message).with_param("seed"));
    }
    let asks = !model.contains("gpt-image");
    let mut body = json!({ "model": model, "prompt": request.prompt, "n": request.n });
    if let Some((width, height)) = request.size {
        body["size"] = json!(format!("{width}x{height}"));
    }
    if asks {
        body["response_format"] = json!("b64_json");
    }
    Ok(body)
}

pub(super) fn drawing(reply: Reply) -> Result<Drawing, Error> {
    let images = reply.data.into_iter().map(|one| {
        let bytes = one.b64_json.and_then(|text| STANDARD.decode(text).ok());
        let bytes =
            bytes.ok_or_else(|| Error::new(ErrorKind::Upstream, "The upstream sent an image without its data."))?;
        let media_type = media_type(&bytes).to_owned();
        Ok(Image { bytes, media_type })
    });
    Ok(Drawing { images: images.collect::<Result<_, Error>>()? })
}

/// What a file says it is in its first bytes.
fn media_type(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => "application/octet-stream",
    }
}
