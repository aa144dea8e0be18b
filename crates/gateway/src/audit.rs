//! `/v1/audit`: the records and the log they stand in, for auditors. A tenant's auditor sees its records; the log itself holds
//! hashes and public facts of all tenants, so its tiles and bundles, and computing it again, are an admin's.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use ledger::{Filter, Kind, Ledger, Outcome, Page, Proof, Record, Records, Verification};
use protocol::{Error, ErrorKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Caller, api::Route, app::App, auth, body, refusal::Refusal};

pub(crate) fn routes() -> Vec<Route> {
    let of = |path, handler, about| Route::get(path, handler).about("audit", about).fails(404);
    vec![
        of(
            "/v1/audit/records",
            get(records),
            "A page of records, the newest first, with the beginnings of their contents",
        )
        .asks::<Wanted>()
        .gives::<Records>(),
        of("/v1/audit/records/{id}", get(record), "One record").gives::<Record>(),
        of("/v1/audit/proof/{id}", get(proof), "That a record stands in the signed log")
            .asks::<Disclose>()
            .gives::<Proven>(),
        Route::get("/v1/audit/checkpoint", get(checkpoint))
            .about("audit", "The newest signed checkpoint")
            .gives_text("text/plain")
            .fails(404),
        Route::get("/v1/audit/tile/{*path}", get(tile))
            .about("audit", "A tile of the log, or a bundle of its entries")
            .gives_text("application/octet-stream")
            .fails(404),
        Route::post::<Against>("/v1/audit/verify", post(verify))
            .about("audit", "Compute the whole log again")
            .or_nothing()
            .gives::<Verification>(),
    ]
}

/// What `GET /v1/audit/records` may be narrowed by.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    /// What was asked for.
    kind: Option<Kind>,
    /// The model or decision asked for, by its exact name.
    model: Option<String>,
    /// The public part of the key.
    key_id: Option<String>,
    /// How it ended.
    outcome: Option<Outcome>,
    /// Accepted at this microsecond since 1970 or later.
    since: Option<i64>,
    /// Accepted before this microsecond since 1970.
    until: Option<i64>,
    /// Only those of which somebody said something.
    with_feedback: bool,
    /// Goes on where `next` of the page before says.
    before: Option<u64>,
    /// Records at most: 50 unless it is said, never more than 1000.
    limit: Option<u32>,
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

/// What stands behind the `?`.
fn asked<T>(query: Asked<T>) -> Result<T, Error> {
    query.map(|Query(asked)| asked).map_err(|error| Error::new(ErrorKind::Invalid, error.body_text()))
}

fn ledger<'a>(app: &'a App, caller: &Caller) -> Result<&'a Ledger, Error> {
    caller.may_audit()?;
    app.gateway
        .ledger
        .as_ref()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "This server keeps no records.").with_code("no_ledger"))
}

/// `GET /v1/audit/records`: a page of them, the newest first.
pub(crate) async fn records(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    wanted: Asked<Wanted>,
) -> Result<Json<Records>, Refusal> {
    let ledger = ledger(&app, &caller)?;
    let Wanted { kind, model, key_id, outcome, since, until, with_feedback, before, limit } = asked(wanted)?;
    let filter = Filter { kind, model, key_id, outcome, since, until, with_feedback };
    let page = Page { before, limit: limit.unwrap_or(Page::default().limit) };
    Ok(Json(ledger.records(&caller.scope(), &filter, page, ledger::beginnings).await.map_err(Error::from)?))
}

/// `GET /v1/audit/records/{id}`: one, as a story.
pub(crate) async fn record(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Json<Record>, Refusal> {
    let found = ledger(&app, &caller)?.record(&caller.scope(), &id).await.map_err(Error::from)?;
    Ok(Json(found.ok_or_else(|| missing(&id))?))
}

fn missing(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("There is no record `{id}` that this key may see.")).with_code("no_record")
}

/// `GET /v1/audit/checkpoint`: the newest signed one, as text.
pub(crate) async fn checkpoint(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
) -> Result<Response, Refusal> {
    let checkpoint = ledger(&app, &caller)?.checkpoint().await.map_err(Error::from)?;
    let nothing = || Error::new(ErrorKind::NotFound, "Nothing was recorded yet.").with_code("no_checkpoint");
    let checkpoint = checkpoint.ok_or_else(nothing)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], checkpoint.note).into_response())
}

/// `GET /v1/audit/tile/{level}/{n}` and `/v1/audit/tile/entries/{n}`, as c2sp.org/tlog-tiles names them.
pub(crate) async fn tile(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(path): Path<String>,
) -> Result<Response, Refusal> {
    caller.may_administer()?;
    let ledger = ledger(&app, &caller)?;
    let named = tile_path(&path).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("`{path}` is no tile: write LEVEL/N, LEVEL/N.p/WIDTH or entries/N."))
    })?;
    let bytes = match named.level {
        Some(level) => ledger.tile(level, named.n, named.width).await,
        None => ledger.bundle(named.n, named.width).await,
    };
    let bytes = bytes.map_err(Error::from)?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// Whether contents are shown with a proof.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Disclose {
    /// Show salt and content; the entry holds their hash.
    disclose: bool,
}

/// `GET /v1/audit/proof/{id}`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Proven {
    /// The log's name and public key, as signed notes write them.
    log: String,
    /// Of the entry before the work and the one behind it.
    proofs: Vec<Proof>,
}

/// `GET /v1/audit/proof/{id}`: that both entries of a request stand in the signed log; verifies offline.
pub(crate) async fn proof(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    wanted: Asked<Disclose>,
) -> Result<Json<Proven>, Refusal> {
    let ledger = ledger(&app, &caller)?;
    let Disclose { disclose } = asked(wanted)?;
    let proofs = ledger.prove(&caller.scope(), &id, disclose).await.map_err(Error::from)?;
    Ok(Json(Proven { log: ledger.verifier().to_string(), proofs }))
}

/// What `POST /v1/audit/verify` compares with.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Against {
    /// A signed checkpoint that was kept elsewhere.
    checkpoint: Option<String>,
}

/// `POST /v1/audit/verify`: everything is computed again; an empty body, or a checkpoint kept elsewhere to compare with.
pub(crate) async fn verify(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Arc<Caller>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Verification>, Refusal> {
    // It reads the whole log, and its totals are all tenants'.
    caller.may_administer()?;
    if !auth::from_here(&headers, !app.auth.demanded()) {
        let message = "Another site's page sent this; nothing is computed on its behalf.";
        return Err(Error::new(ErrorKind::Forbidden, message).with_code("cross_site").into());
    }
    let ledger = ledger(&app, &caller)?;
    let against: Against = if body.is_empty() { Against::default() } else { body::object(&body)? };
    let outside = against.checkpoint.map(|note| ledger.verifier().open(&note)).transpose().map_err(Error::from)?;
    Ok(Json(ledger.verify(outside.as_ref()).await.map_err(Error::from)?))
}

/// A tile of hashes, or with no level a bundle of entries.
#[derive(Debug, PartialEq, Eq)]
struct Tile {
    level: Option<u8>,
    n: u64,
    width: u16,
}

/// `0/x001/x234/067`, `1/000.p/5`, `entries/000`.
fn tile_path(path: &str) -> Option<Tile> {
    let (path, width) = match path.rsplit_once(".p/") {
        Some((path, width)) => (path, width.parse().ok().filter(|width| (1..256).contains(width))?),
        None => (path, 256),
    };
    let mut parts = path.split('/');
    let level = match parts.next()? {
        "entries" => None,
        level => Some(level.parse().ok().filter(|level| *level < 64)?),
    };
    let mut groups: Vec<&str> = parts.collect();
    let last = groups.pop()?;
    let three = |digits: &str| (digits.len() == 3).then(|| digits.parse::<u64>().ok()).flatten();
    let n =
        groups.iter().try_fold(0_u64, |n, group| n.checked_mul(1000)?.checked_add(three(group.strip_prefix('x')?)?))?;
    Some(Tile { level, n: n.checked_mul(1000)?.checked_add(three(last)?)?, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_named_as_the_specification_has_it() {
        let check = |path, level, n, width| assert_eq!(tile_path(path), Some(Tile { level, n, width }), "{path}");
        check("0/000", Some(0), 0, 256);
        check("1/x001/x234/067.p/5", Some(1), 1_234_067, 5);
        check("entries/012", None, 12, 256);
        for wrong in ["", "0", "0/1", "x/000", "0/000.p/256", "0/000.p/0", "0/1234", "64/000", "0/x1/000"] {
            assert_eq!(tile_path(wrong), None, "{wrong}");
        }
    }
}
