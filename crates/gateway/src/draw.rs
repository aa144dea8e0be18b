//! `POST /v1/images/generations`.

use axum::{Json, routing::post};
use futures_util::future::{Either, select};
use protocol::{
    DrawRequest, Error,
    openai::image::{self, ImageList, ImageRequest},
};

use crate::{api::Route, ask::Ask, clock, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<ImageRequest>("/v1/images/generations", post(images))
            .about("images", "Draw images")
            .gives::<ImageList>(),
    ]
}

/// Images for the prompt.
pub(crate) async fn images(ask: Ask) -> Result<Json<ImageList>, Refusal> {
    let call = image::parse(&ask.body)?;
    ask.caller.may_use(&call.request.model)?;
    let service = ask.app.drawings(&call.request.model)?;
    let tenant = if ask.caller.is_known() { ask.caller.tenant.clone() } else { call.request.tenant.clone() };
    let n = call.request.n;
    let request = DrawRequest { id: ask.id.0.clone(), tenant, ..call.request };
    let cut = Box::pin(ask.app.drain.cut());
    let drawing = match select(service.draw(request), cut).await {
        Either::Left((drawing, _)) => drawing?,
        Either::Right((error, _)) => return Err(error.into()),
    };
    if drawing.images.len() != n {
        let message = format!("The service drew {} images of {n}.", drawing.images.len());
        return Err(Error::internal(message).into());
    }
    Ok(Json(ImageList::new(clock::unix_seconds(), &drawing)))
}
