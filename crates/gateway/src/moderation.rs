//! `POST /v1/moderations`: a text in OpenAI's categories, as the guard judges it.

use axum::{Json, response::Response, routing::post};
use guard::Category;
use ledger::Kind;
use protocol::{
    Usage,
    openai::moderation::{self, MODEL, ModerationBody, ModerationRequest, ResultBody},
};
use serde_json::json;

use crate::{
    api::Route,
    ask::Ask,
    record::{Work, end_user},
    refusal::Refusal,
};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::post::<ModerationRequest>("/v1/moderations", post(moderations))
            .about("moderations", "Judge texts in OpenAI's categories")
            .gives::<ModerationBody>(),
    ]
}

/// A judgement for every input.
pub(crate) async fn moderations(ask: Ask) -> Result<Response, Refusal> {
    let call = moderation::parse(&ask.body)?;
    let record = ask.begin(work(&call.texts, end_user(&call.recorded))).await?;
    let services = ask.app.services();
    let judge = |text: &String| {
        let moderation = services.guard.moderate(text);
        let each = Category::ALL
            .iter()
            .map(|(category, name)| (*name, moderation.flags(*category), moderation.score(*category)));
        ResultBody::new(each)
    };
    let id = ask.id.0.strip_prefix("req_").unwrap_or(&ask.id.0);
    let results: Vec<ResultBody> = call.texts.iter().map(judge).collect();
    record.judged();
    record.deliver(json!(results), Vec::new(), Usage::default()).await?;
    Ok(ask.timed(Json(ModerationBody { id: format!("modr-{id}"), model: MODEL.to_owned(), results })))
}

fn work(texts: &[String], end_user: &str) -> Work {
    Work {
        kind: Kind::Moderation,
        model: MODEL.to_owned(),
        digest: String::new(),
        adapter: String::new(),
        service: "guard".to_owned(),
        parameters: json!({ "inputs": texts.len() }),
        input: json!(texts),
        subject: end_user.to_owned(),
        estimate: Usage::default(),
    }
}
