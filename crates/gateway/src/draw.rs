//! `POST /v1/images/generations`.

use axum::{Json, response::Response, routing::post};
use futures_util::future::{Either, select};
use protocol::{
    Draw, DrawRequest, Drawing, Error, Image, Usage,
    openai::image::{self, ImageList, ImageRequest},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{api::Route, ask::Ask, clock, record::Work, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<ImageRequest>("/v1/images/generations", post(images))
            .about("images", "Draw images")
            .gives::<ImageList>(),
    ]
}

/// Images for the prompt.
pub(crate) async fn images(ask: Ask) -> Result<Response, Refusal> {
    let call = image::parse(&ask.body)?;
    ask.caller.may_use(&call.request.model)?;
    let service = ask.app.drawings(&call.request.model)?;
    // The wire has no tenant: what the request holds under that name is its end user.
    let end_user = call.request.tenant.clone();
    let tenant = if ask.caller.is_known() { ask.caller.tenant.clone() } else { call.request.tenant.clone() };
    let mut request = DrawRequest { id: ask.id.0.clone(), tenant, ..call.request };
    let model = request.model.clone();
    let card = service.models().into_iter().find(|card| card.id == request.model);
    let mut record = ask.begin(Work::drawing(&request, &end_user, card)).await?;
    let judged = record.judge("prompt", &mut request.prompt);
    let drawing = match judged {
        Ok(()) => drawn(&ask, service.as_ref(), request).await,
        Err(error) => Err(error),
    };
    match drawing {
        Ok(mut drawing) => {
            label(&ask, &model, &mut drawing);
            record
                .deliver(
                    json!({ "images": drawing.images.iter().map(digest).collect::<Vec<_>>() }),
                    Vec::new(),
                    Usage::default(),
                )
                .await?;
            Ok(ask.timed(Json(ImageList::new(clock::unix_seconds(), &drawing))))
        }
        Err(error) => Err(record.fail(error).await.into()),
    }
}

async fn drawn(ask: &Ask, service: &dyn Draw, request: DrawRequest) -> Result<Drawing, Error> {
    let n = request.n;
    let cut = Box::pin(ask.app.drain.cut());
    let drawing = match select(service.draw(request), cut).await {
        Either::Left((drawing, _)) => drawing?,
        Either::Right((error, _)) => return Err(error),
    };
    if drawing.images.len() != n {
        return Err(Error::internal(format!("The service drew {} images of {n}.", drawing.images.len())));
    }
    Ok(drawing)
}

/// Images say in their metadata that they are generated, where the policy wants that.
fn label(ask: &Ask, model: &str, drawing: &mut Drawing) {
    let (services, provenance) = (ask.app.services(), ask.provenance(model));
    for image in &mut drawing.images {
        if let Some(labelled) = services.guard.policy().labels.png(&image.bytes, &provenance) {
            image.bytes = labelled;
        }
    }
}

/// An image is large and its file leaves with the answer; the record knows it again.
fn digest(image: &Image) -> Value {
    let digest: String = Sha256::digest(&image.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "media_type": image.media_type, "sha256": digest })
}
