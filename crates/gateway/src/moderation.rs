//! `POST /v1/moderations`: a text in OpenAI's categories, as the guard judges it.

use axum::{Json, routing::post};
use guard::Category;
use protocol::openai::moderation::{self, MODEL, ModerationBody, ModerationRequest, ResultBody};

use crate::{api::Route, ask::Ask, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<ModerationRequest>("/v1/moderations", post(moderations))
            .about("moderations", "Judge texts in OpenAI's categories")
            .gives::<ModerationBody>(),
    ]
}

/// A judgement for every input.
pub(crate) async fn moderations(ask: Ask) -> Result<Json<ModerationBody>, Refusal> {
    let call = moderation::parse(&ask.body)?;
    let judge = |text: &String| {
        let moderation = ask.app.gateway.guard.moderate(text);
        let each = Category::ALL
            .iter()
            .map(|(category, name)| (*name, moderation.flags(*category), moderation.score(*category)));
        ResultBody::new(each)
    };
    let id = ask.id.0.strip_prefix("req_").unwrap_or(&ask.id.0);
    let results = call.texts.iter().map(judge).collect();
    Ok(Json(ModerationBody { id: format!("modr-{id}"), model: MODEL.to_owned(), results }))
}
