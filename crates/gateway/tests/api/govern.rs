//! Keys, rights, limits, budgets and records, over a real ledger in a directory of its own.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use futures_util::StreamExt;
use gateway::{
    Gateway, Services,
    settings::{Live, Settings},
};
use guard::Guard;
use ledger::{Grant, Ledger, Role};
use protocol::Generate;
use serde_json::{Value, json};
use services::{
    Balanced, Fallback, Guarded, Limits, Target,
    cascade::{Bar, Cascade, OnFailure, Student},
    rollout::{Bounds, Rollout, Shadow},
};

use crate::{
    fake::{Fake, Step, says, started},
    send, text,
};

/// A gateway with a ledger.
pub(crate) struct Place {
    directory: PathBuf,
    pub(crate) ledger: Ledger,
    live: Arc<Live>,
    pub(crate) app: Router,
}

impl Place {
    pub(crate) async fn new(fake: &Fake, settings: &str) -> Self {
        Self::over(fake.gateway(), settings).await
    }

    pub(crate) async fn over(gateway: Gateway, settings: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let unique = format!("tessera-govern-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(directory.join("data")).unwrap();
        let url = format!("sqlite:{}", directory.join("data/ledger.db").display());
        std::fs::create_dir_all(directory.join("keys")).unwrap();
        let ledger = Ledger::open(ledger::Settings::new(url, directory.join("keys/ledger.keys"))).await.unwrap();
        let live = Live::new(Settings::parse(settings).unwrap());
        let gateway = Gateway { settings: live.clone(), ledger: Some(ledger.clone()), ..gateway };
        Self { directory, ledger, live, app: gateway::router(gateway) }
    }

    /// The secret of a new key.
    pub(crate) async fn key(&self, tenant: &str, role: Role, change: impl FnOnce(&mut Grant)) -> String {
        let mut grant = Grant {
            name: String::new(),
            tenant: tenant.to_owned(),
            role,
            models: Vec::new(),
            limits: ledger::Limits::default(),
            budgets: Vec::new(),
            expires_at: None,
        };
        change(&mut grant);
        self.ledger.keys().create(grant).await.unwrap().1
    }

    pub(crate) async fn chat(&self, key: &str, body: Value) -> Response<Body> {
        send(&self.app, with(key, "/v1/chat/completions", Some(body))).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> (StatusCode, Value) {
        let response = send(&self.app, with(key, path, None)).await;
        let status = response.status();
        let body = text(response).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> (u16, Value) {
        let response = send(&self.app, with(key, path, Some(body))).await;
        (response.status().as_u16(), serde_json::from_str(&text(response).await).unwrap())
    }

    /// The record of this place in the list, whole.
    async fn record(&self, key: &str, listed: &Value) -> Value {
        let path = format!("/v1/audit/records/{}", listed["request_id"].as_str().unwrap());
        self.get(key, &path).await.1
    }

    /// The records a key sees, once all of them are closed.
    async fn records(&self, key: &str) -> Vec<Value> {
        for _ in 0..200 {
            let (status, page) = self.get(key, "/v1/audit/records").await;
            assert_eq!(status, 200, "{page}");
            let records = page["records"].as_array().unwrap().clone();
            if records.iter().all(|record| !record["outcome"].is_null()) {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("a record stays open");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn with(key: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let builder = if body.is_some() { Request::post(path) } else { Request::get(path) };
    let builder = builder.header(header::CONTENT_TYPE, "application/json");
    let builder = if key.is_empty() { builder } else { builder.header(header::AUTHORIZATION, format!("Bearer {key}")) };
    builder.body(body.map_or_else(Body::empty, |body| body.to_string().into())).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "a literal reads best in its place")]
pub(crate) fn hello(extra: Value) -> Value {
    let mut body = json!({ "model": "talker", "messages": [{ "role": "user", "content": "Hello there" }] });
    body.as_object_mut().unwrap().extend(extra.as_object().cloned().unwrap_or_default());
    body
}

async fn error(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    (status, body["error"].clone())
}

#[tokio::test]
async fn the_first_key_closes_the_door() {
    let place = Place::new(&Fake::parrot(), "").await;
    assert_eq!(place.chat("", hello(json!({}))).await.status(), 200);
    assert_eq!(place.chat("none", hello(json!({}))).await.status(), 200);
    let key = place.key("acme", Role::User, |_| ()).await;
    assert_eq!(place.chat(&key, hello(json!({}))).await.status(), 200);
    let mut other = with("", "/v1/models", None);
    other.headers_mut().insert("x-api-key", key.parse().unwrap());
    assert_eq!(send(&place.app, other).await.status(), 200);
    for (wrong, code) in [("", "missing_api_key"), ("none", "invalid_api_key"), ("tsk-0-0", "invalid_api_key")] {
        let (status, error) = error(place.chat(wrong, hello(json!({}))).await).await;
        assert_eq!((status, &error["code"], &error["type"]), (401, &json!(code), &json!("authentication_error")));
    }
    for (path, status) in [("/healthz/live", 200), ("/healthz/ready", 200), ("/v1/models", 401), ("/metrics", 401)] {
        assert_eq!(place.get("", path).await.0, status, "{path}");
    }
    assert_eq!(place.get(&key, "/metrics").await.0, 403);
    let id = key.split('-').nth(1).unwrap();
    place.ledger.keys().revoke(id).await.unwrap();
    assert_eq!(place.chat(&key, hello(json!({}))).await.status(), 401);
}

#[tokio::test]
async fn rights_follow_role_and_list() {
    let place = Place::new(&Fake::parrot(), "").await;
    let one = place.key("acme", Role::User, |grant| grant.models = vec!["hf:owner/raw".to_owned()]).await;
    let auditor = place.key("acme", Role::Auditor, |_| ()).await;
    for (key, code) in [(&one, "model_not_allowed"), (&auditor, "insufficient_permissions")] {
        let (status, error) = error(place.chat(key, hello(json!({}))).await).await;
        assert_eq!((status, &error["code"]), (403, &json!(code)));
    }
    let (_, models) = place.get(&one, "/v1/models").await;
    let names: Vec<_> = models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["hf:owner/raw"]);
    assert_eq!(place.get(&one, "/v1/audit/records").await.0, 403);
    assert_eq!(place.get(&auditor, "/v1/audit/records").await.0, 200);
    assert_eq!(place.get(&auditor, "/v1/audit/tile/0/000.p/1").await.0, 403);
    let verify = send(&place.app, with(&auditor, "/v1/audit/verify", Some(json!({})))).await;
    assert_eq!(verify.status(), 403);
}

/// What the settings leave a tenant holds for all of its keys, for as long as the settings say so.
#[tokio::test]
async fn a_tenants_list_holds_for_its_keys() {
    let place = Place::new(&Fake::parrot(), "[tenants.acme]\nmodels = [\"hf:owner/raw\"]\n").await;
    let all = place.key("acme", Role::User, |_| ()).await;
    let other = place.key("acme", Role::User, |grant| grant.models = vec!["talker".to_owned()]).await;
    let foreign = place.key("other", Role::User, |_| ()).await;
    let check = async |key: &str, talks: u16, sees: Option<&[&str]>| {
        assert_eq!(place.chat(key, hello(json!({}))).await.status().as_u16(), talks);
        let (_, models) = place.get(key, "/v1/models").await;
        let models = models["data"].as_array().unwrap();
        let names: Vec<_> = models.iter().map(|model| model["id"].as_str().unwrap()).collect();
        assert!(sees.is_none_or(|sees| names == sees), "{names:?}");
    };
    check(&all, 403, Some(&["hf:owner/raw"])).await;
    check(&other, 403, Some(&[])).await;
    check(&foreign, 200, None).await;
    place.live.change(Settings::default()).unwrap();
    check(&all, 200, None).await;
    check(&other, 200, Some(&["talker"])).await;
}

#[tokio::test]
async fn records_tell_the_story_and_stay_with_their_tenant() {
    let place = Place::new(&Fake::parrot(), "[prices.talker]\ninput = \"1.00\"\noutput = \"10.00\"\n").await;
    let (acme, other) = (place.key("acme", Role::User, |_| ()).await, place.key("other", Role::User, |_| ()).await);
    let admin = place.key("house", Role::Admin, |_| ()).await;
    let auditor = place.key("acme", Role::Auditor, |_| ()).await;
    let response = place.chat(&acme, hello(json!({ "temperature": 0.25 }))).await;
    let timing = response.headers()["server-timing"].to_str().unwrap().to_owned();
    assert!(timing.contains("settle;dur=") && timing.contains("total;dur="), "{timing}");
    text(response).await;
    text(place.chat(&other, hello(json!({ "stream": true }))).await).await;
    let mine = place.records(&auditor).await;
    let [record] = &mine[..] else { panic!("{mine:?}") };
    assert_eq!(record["tenant"], "acme");
    assert_eq!(record["kind"], "chat");
    assert_eq!(record["outcome"], "served");
    assert_eq!(record["input_text"], "user: Hello there");
    assert_eq!(record["output_decision"], "Hello there");
    assert_eq!(record["parameters"]["sampling"]["temperature"], 0.25);
    assert_eq!(record["usage"], json!({ "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 2 }));
    // Three tokens in at 1, two out at 10 a million: 3000 + 20000 nano.
    assert_eq!(record["cost"], 23_000);
    assert_eq!(record["config_hash"].as_str().unwrap().len(), 32);
    let stages: u64 = record["latency"].as_object().unwrap().values().map(|us| us.as_u64().unwrap()).sum();
    assert!(stages > 0);
    assert_eq!(place.records(&admin).await.len(), 2);
    let id = record["request_id"].as_str().unwrap();
    let path = format!("/v1/audit/records/{id}");
    let foreign = place.key("other", Role::Auditor, |_| ()).await;
    let found = [&auditor, &admin, &foreign].map(|key| place.get(key, &path));
    let found = futures_util::future::join_all(found).await;
    assert_eq!(found.iter().map(|(status, _)| status.as_u16()).collect::<Vec<_>>(), [200, 200, 404]);
}

/// Why a request went where it went, in words for programs and for people, and what the guard took of its time.
#[tokio::test]
async fn records_say_which_way_a_request_went() {
    let down = Fake::refusing(protocol::Error::new(protocol::ErrorKind::Upstream, "down"));
    let target = |fake: Fake| Target { service: Arc::new(fake), model: "talker".to_owned() };
    let route = |name: &str, targets| Arc::new(Fallback::new(name, targets, None)) as Arc<dyn Generate>;
    let spare = route("spare", vec![target(down), target(Fake::parrot())]);
    let busy = vec![("w0".to_owned(), Arc::new(Fake::parrot()) as Arc<dyn Generate>)];
    let guarded = |service| Arc::new(Guarded::new(service, Guard::default())) as Arc<dyn Generate>;
    let services =
        [spare, route("nick", vec![target(Fake::parrot())]), Arc::new(Balanced::new(busy, Limits::default()))];
    let generate = services.map(guarded).to_vec();
    let place = Place::over(Fake::parrot().gateway_of(Services { generate, ..Services::default() }), "").await;
    let check = async |model: &str, why: &str, hop: Value, told: [&str; 2]| {
        for stream in [false, true] {
            text(place.chat("", hello(json!({ "model": model, "stream": stream }))).await).await;
            let record = &place.records("").await[0];
            assert_eq!((&record["route"]["why"], &record["route"]["hops"][0]), (&json!(why), &hop), "{record}");
            assert_eq!(record["answered"]["model"], "talker");
            assert!(record["latency"]["guard"].is_u64(), "{record}");
            let path = format!("/console/audit/{}", record["request_id"].as_str().unwrap());
            for (language, words) in ["en", "zh"].into_iter().zip(told) {
                let request = Request::get(&path).header("accept", "text/html").header("accept-language", language);
                let page = text(send(&place.app, request.body(Body::empty()).unwrap()).await).await;
                assert!(page.contains(words), "{words}: {page}");
            }
        }
    };
    let failed = json!([{ "who": "talker", "error": "upstream_failed" }]);
    let hop = json!({ "asked": "spare", "reason": "fallback", "model": "talker", "service": "test", "failed": failed });
    check("spare", "fallback", hop, ["failed before: talker (upstream_failed)", "此前失败：talker"]).await;
    let hop = json!({ "asked": "nick", "reason": "alias", "model": "talker", "service": "test" });
    check("nick", "alias", hop, ["the name stands for this one", "别名所指"]).await;
    let hop = json!({ "asked": "talker", "reason": "only", "model": "talker", "service": "w0" });
    check("talker", "only", hop, ["the only one that could answer", "唯一可用者"]).await;
}

/// A stream that breaks, one that is refused, one whose client leaves: each leaves its record.
#[tokio::test]
async fn every_end_is_recorded() {
    let fake = Fake::new(|request| match crate::fake::asked(request).as_str() {
        "break" => Ok(vec![
            Step::Send(started()),
            Step::Send(says(0, "so far")),
            Step::Fail(protocol::Error::internal("the fan fell off")),
        ]),
        "refuse" => Err(protocol::Error::invalid("messages", "no").with_code("context_length_exceeded")),
        _ => Ok(vec![Step::Send(started()), Step::Send(says(0, "so far")), Step::Hang]),
    });
    let place = Place::new(&fake, "").await;
    let ask = |content: &str| json!({ "model": "talker", "stream": true, "messages": [{ "role": "user", "content": content }] });
    text(place.chat("", ask("break")).await).await;
    assert_eq!(place.chat("", ask("refuse")).await.status(), 400);
    let mut body = place.chat("", ask("leave")).await.into_body().into_data_stream();
    while !String::from_utf8_lossy(&body.next().await.unwrap().unwrap()).contains("so far") {}
    drop(body);
    let records = place.records("").await;
    let ends: Vec<_> =
        records.iter().rev().map(|r| (r["outcome"].as_str().unwrap(), &r["output_decision"], &r["error"])).collect();
    assert_eq!(
        ends,
        [
            ("failed", &json!("so far"), &json!("internal")),
            ("failed", &Value::Null, &json!("context_length_exceeded")),
            ("aborted", &json!("so far"), &Value::Null),
        ]
    );
}

/// What a record says openly stays for good; whom a request concerns can be made unreadable, whoever's key it came with.
#[tokio::test]
async fn a_person_can_be_erased() {
    let fake = Fake::parrot();
    let services = Services { decide: vec![Arc::new(crate::scripted::Scripted)], ..fake.services() };
    let place = Place::over(fake.gateway_of(services), "").await;
    let key = place.key("acme", Role::User, |_| ()).await;
    let admin = place.key("house", Role::Admin, |_| ()).await;
    let ask = async |path: &str, body: Value| {
        let response = send(&place.app, with(&key, path, Some(body))).await;
        assert_eq!(response.status(), 200, "{path}");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        body["request_id"].as_str().unwrap_or_default().to_owned()
    };
    let replayed = async |id: &str| send(&place.app, with(&key, &format!("/v1/reasoning/{id}"), None)).await.status();
    let ann = "ann@example.com";
    ask("/v1/chat/completions", hello(json!({ "user": ann, "stop": ["Ann Lee"] }))).await;
    ask("/v1/chat/completions", hello(json!({ "safety_identifier": ann }))).await;
    ask("/v1/embeddings", json!({ "model": "vectors", "input": "Ann Lee", "user": ann })).await;
    let messages = json!([{ "role": "user", "content": "Ann Lee" }]);
    let message = json!({ "model": "talker", "max_tokens": 9, "messages": messages, "metadata": { "user_id": ann } });
    ask("/v1/messages", message).await;
    let path = ask("/v1/reasoning/decisions", json!({ "decision": "small", "text": "Ann Lee 2", "user": ann })).await;
    assert_eq!(replayed(&path).await, 200);
    ask("/v1/reasoning/solve", json!({ "problem": "Ann Lee has 2 hens", "chains": 1, "user": ann })).await;
    ask("/v1/chat/completions", hello(json!({}))).await;
    let before = place.records(&admin).await;
    assert!(before.iter().all(|record| record["content"] == "intact"));
    assert!(before[6]["input"].is_null(), "lists have beginnings only");
    assert_eq!(place.record(&admin, &before[6]).await["input"]["stop"], json!(["Ann Lee"]));
    assert!(before.iter().all(|record| !record["parameters"].to_string().contains("Ann")), "{before:?}");
    place.ledger.erase("acme", ann).await.unwrap();
    assert_eq!(replayed(&path).await, 404, "what is erased is not replayed from memory either");
    let after = place.records(&admin).await;
    let contents: Vec<_> = after.iter().map(|record| record["content"].as_str().unwrap()).collect();
    assert_eq!(contents, ["intact", "erased", "erased", "erased", "erased", "erased", "erased"]);
    assert!(!json!(after).to_string().contains("Ann Lee"));
}

/// Facts of a decision are sealed as its text is, and judged like it.
#[tokio::test]
async fn facts_are_sealed_and_judged() {
    let fake = Fake::parrot();
    let services = Services { decide: vec![Arc::new(crate::scripted::Scripted)], ..fake.services() };
    let place = Place::over(fake.gateway_of(services), "").await;
    let body = json!({ "decision": "small", "facts": { "x": 2, "who": ["Ann Lee"] } });
    let response = send(&place.app, with("", "/v1/reasoning/decisions", Some(body))).await;
    assert_eq!(response.status(), 200);
    drop(text(response).await);
    let record = place.record("", &place.records("").await[0]).await;
    assert_eq!((&record["parameters"]["facts"], &record["input"]["facts"]["who"][0]), (&json!(2), &json!("Ann Lee")));
}

/// While nobody is asked for a key, a stranger's name that leads here opens nothing, and no other site's page starts work.
#[tokio::test]
async fn an_open_door_is_this_machines() {
    let place = Place::new(&Fake::parrot(), "").await;
    let check = async |path: &str, headers: &[(&'static str, &str)], status: u16| {
        let body = (path == "/v1/audit/verify").then(|| json!({}));
        let mut request = with("", path, body);
        headers.iter().for_each(|(name, value)| drop(request.headers_mut().insert(*name, value.parse().unwrap())));
        assert_eq!(send(&place.app, request).await.status().as_u16(), status, "{path} {headers:?}");
    };
    let rebound = [("host", "evil.example:18080"), ("origin", "http://evil.example:18080")];
    for path in ["/v1/audit/records", "/v1/models", "/console/audit", "/"] {
        check(path, &rebound, 403).await;
        check(path, &[("host", "127.0.0.1:18080")], 200).await;
        check(path, &[], 200).await;
    }
    let here = ("host", "localhost:8080");
    check("/v1/audit/verify", &[here, ("sec-fetch-site", "cross-site")], 403).await;
    check("/v1/audit/verify", &[here, ("sec-fetch-site", "same-origin")], 200).await;
    check("/v1/audit/verify", &[], 200).await;
    place.key("acme", Role::Auditor, |_| ()).await;
    check("/v1/audit/records", &rebound, 401).await;
}

#[tokio::test]
async fn limits_are_told_and_held() {
    let place = Place::new(&Fake::parrot(), "[limits]\nrequests_per_minute = 3\n").await;
    let (key, generous) =
        (place.key("a", Role::User, |_| ()).await, place.key("a", Role::User, |g| g.limits.requests = Some(100)).await);
    for left in ["2", "1", "0"] {
        let response = place.chat(&key, hello(json!({}))).await;
        assert_eq!(response.headers()["x-ratelimit-limit-requests"], "3");
        assert_eq!(response.headers()["x-ratelimit-remaining-requests"], left);
    }
    let refused = place.chat(&key, hello(json!({}))).await;
    assert_eq!(refused.headers()["x-ratelimit-remaining-requests"], "0");
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    let (status, error) = error(refused).await;
    assert_eq!(
        (status, &error["code"], &error["type"]),
        (429, &json!("rate_limit_exceeded"), &json!("rate_limit_error"))
    );
    assert_eq!(place.chat(&generous, hello(json!({}))).await.status(), 200);
}

/// A caller that is turned away again and again writes one record for each reason, not one for each time.
#[tokio::test]
async fn refusals_are_recorded_and_flood_nothing() {
    let settings = "[limits]\nrequests_per_minute = 1\n[tenants.poor]\ntoken_budget = 1\n";
    let place = Place::new(&Fake::parrot(), settings).await;
    let quick = place.key("a", Role::User, |_| ()).await;
    let poor = place.key("poor", Role::User, |grant| grant.limits.requests = Some(100)).await;
    let narrow = place.key("a", Role::User, |grant| grant.models = vec!["hf:owner/raw".to_owned()]).await;
    assert_eq!(place.chat(&quick, hello(json!({}))).await.status(), 200);
    let mut first = Vec::new();
    for (key, status) in [(&quick, 429), (&poor, 429), (&narrow, 403)] {
        for _ in 0..20 {
            let response = place.chat(key, hello(json!({}))).await;
            assert_eq!(response.status(), status);
            first.push(response.headers()["x-request-id"].to_str().unwrap().to_owned());
        }
    }
    let admin = place.key("house", Role::Admin, |_| ()).await;
    let records = place.records(&admin).await;
    let told: Vec<_> =
        records.iter().rev().map(|r| [&r["outcome"], &r["error"], &r["parameters"]["refused"]]).collect();
    let refused = |code: &str| json!(["refused", code, 1]);
    assert_eq!(
        json!(told[1..]),
        json!(["rate_limit_exceeded", "insufficient_quota", "model_not_allowed"].map(refused))
    );
    let ids: Vec<_> = records.iter().rev().skip(1).map(|r| r["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&first[0], &first[20], &first[40]]);
}

/// What is past its time is deleted while the gateway serves; the record stays, without its words.
#[tokio::test]
async fn contents_are_kept_as_long_as_the_settings_say() {
    let settings = "[ledger]\nretention = \"1s\"\n";
    let place = Place::new(&Fake::parrot(), settings).await;
    text(place.chat("", hello(json!({}))).await).await;
    let live = Live::new(Settings::parse(settings).unwrap());
    let gateway = Gateway { settings: live, ledger: Some(place.ledger.clone()), ..Fake::parrot().gateway() };
    let expired = async {
        for _ in 0..100 {
            let records = place.records("").await;
            if records[0]["content"] == "erased" {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the content stays");
    };
    let listener = gateway::bind("127.0.0.1:0").await.unwrap();
    tokio::select! {
        () = gateway::serve(listener, gateway, std::future::pending()) => panic!("the server stopped"),
        records = expired => {
            assert_eq!((&records[0]["outcome"], &records[0]["output_decision"]), (&json!("served"), &Value::Null));
        }
    }
}

#[tokio::test]
async fn tokens_are_estimated_and_settled() {
    let place = Place::new(&Fake::parrot(), "[limits]\ntokens_per_minute = 200\n").await;
    let key = place.key("a", Role::User, |_| ()).await;
    // Each takes some hundred by its estimate, and five in the end.
    for _ in 0..8 {
        let response = place.chat(&key, hello(json!({ "max_tokens": 100 }))).await;
        assert_eq!(response.status(), 200);
        text(response).await;
    }
    let (status, error) = error(place.chat(&key, hello(json!({ "max_tokens": 1000 }))).await).await;
    assert_eq!((status, &error["code"]), (400, &json!("request_exceeds_rate_limit")));
}

/// Of many at once, a budget admits exactly as many as it pays for.
#[tokio::test]
async fn budgets_stop_spending() {
    let fake = Fake::new(|request| {
        let mut steps = vec![Step::Wait(Duration::from_millis(20))];
        steps.extend(crate::fake::parrot(request));
        Ok(steps)
    });
    let place = Place::new(&fake, "[tenants.acme]\ntoken_budget = 500\n").await;
    let key = place.key("acme", Role::User, |_| ()).await;
    let one = || async {
        let response = place.chat(&key, hello(json!({ "max_tokens": 94 }))).await;
        let status = response.status().as_u16();
        (status, text(response).await)
    };
    let ends = futures_util::future::join_all((0..20).map(|_| one())).await;
    let count = |wanted| ends.iter().filter(|(status, _)| *status == wanted).count();
    // A request holds 94 tokens and the estimate of its prompt, six.
    assert_eq!((count(200), count(429)), (5, 15), "{ends:?}");
    let refused = &ends.iter().find(|(status, _)| *status == 429).unwrap().1;
    assert!(refused.contains("insufficient_quota"), "{refused}");
    // What was held and not used came back.
    assert_eq!(one().await.0, 200);
}

#[tokio::test]
async fn a_full_server_says_so() {
    let fake = Fake::new(|_| Ok(vec![Step::Send(started()), Step::Hang]));
    let place = Place::new(&fake, "[limits]\nin_flight = 2\n").await;
    let ask = || place.chat("", hello(json!({ "stream": true })));
    let (first, second) = (ask().await, ask().await);
    let (status, error) = error(ask().await).await;
    assert_eq!((status, &error["code"]), (429, &json!("server_busy")));
    drop((first, second));
    assert_eq!(ask().await.status(), 200);
}

/// The log's own files and its newest signature.
#[tokio::test]
async fn the_log_can_be_read() {
    let place = Place::new(&Fake::parrot(), "").await;
    text(place.chat("", hello(json!({}))).await).await;
    let tile = send(&place.app, with("", "/v1/audit/tile/0/000.p/2", None)).await;
    assert_eq!(tile.status(), 200);
    // Two hashes, of the entry before the work and the one behind it.
    assert_eq!(axum::body::to_bytes(tile.into_body(), 1 << 20).await.unwrap().len(), 64);
    assert_eq!(place.get("", "/v1/audit/tile/0/000.p/9").await.0, 404);
    assert_eq!(place.get("", "/v1/audit/records?limit=x").await.0, 400);
    assert_eq!(place.get("", "/v1/audit/records?kind=chat&outcome=served&limit=1").await.0, 200);
    for _ in 0..200 {
        if let (StatusCode::OK, Value::String(note)) = place.get("", "/v1/audit/checkpoint").await {
            assert!(note.contains('\u{2014}'), "{note}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was signed");
}

/// A version that fails beside one that does not, behind the door: what is listed says so once enough is known.
#[tokio::test]
async fn a_version_that_fails_is_listed_as_worse() {
    let fake = Fake::new(|request| match request.model.as_str() {
        "talker" => Ok(crate::fake::parrot(request)),
        _ => Err(protocol::Error::new(protocol::ErrorKind::Upstream, "It broke.")),
    });
    let version = |model: &str| Target { service: Arc::new(fake.clone()), model: model.to_owned() };
    let versions = vec![(version("talker"), 60), (version("broken"), 40)];
    let rollout = Arc::new(Rollout::new("story", versions, None));
    let generate = vec![rollout.clone() as Arc<dyn Generate>];
    let place =
        Place::over(fake.gateway_of(Services { generate, rollouts: vec![rollout], ..Services::default() }), "").await;
    let (mut answered, mut failed) = (0, 0);
    for user in 0..400 {
        match place.chat("", hello(json!({ "model": "story", "user": user.to_string() }))).await.status().as_u16() {
            200 => answered += 1,
            502 => failed += 1,
            other => panic!("{other}"),
        }
    }
    let listed = place.get("", "/v1/rollouts").await.1["rollouts"][0].clone();
    let [good, bad] = [0, 1].map(|place| listed["versions"][place].clone());
    assert_eq!((&good["requests"], &bad["failed"]), (&json!(answered), &json!(failed)), "{listed}");
    assert_eq!(bad["failures_beside"]["standing"], "worse", "{listed}");
    assert!(bad["failures_beside"]["low"].as_f64().unwrap() > 0.5, "{listed}");
    assert!(good["failures_beside"].is_null() && bad["wait_beside"].is_null(), "{listed}");
    let records = place.records("").await;
    let broken = place.record("", records.iter().find(|record| record["outcome"] == "failed").unwrap()).await;
    assert_eq!(broken["route"]["hops"][0]["model"], "broken", "a failure's record names its version, too: {broken}");
}

/// Two versions behind one name, the parrot twice, and a shadow that hears all.
fn rolled_out(weights: [u32; 2]) -> Gateway {
    let fake = Fake::parrot();
    let target = || Target { service: Arc::new(fake.clone()), model: "talker".to_owned() };
    let alias =
        |name: &str| Target { service: Arc::new(Fallback::new(name, vec![target()], None)), model: name.to_owned() };
    let bounds = Bounds { share: 1.0, at_once: 64, tokens_per_hour: 0, time: Duration::from_secs(5) };
    let shadow = Shadow::new(target(), bounds);
    let versions = vec![(alias("old"), weights[0]), (alias("new"), weights[1])];
    let rollout = Arc::new(Rollout::new("story", versions, Some(shadow)));
    let generate = vec![rollout.clone() as Arc<dyn Generate>];
    fake.gateway_of(Services { generate, rollouts: vec![rollout], ..Services::default() })
}

#[tokio::test]
async fn a_record_says_which_version_of_a_rollout_answered_and_why() {
    let place = Place::over(rolled_out([1, 1]), "").await;
    let auditor = place.key("acme", Role::Auditor, |_| ()).await;
    let user = place.key("acme", Role::User, |_| ()).await;
    let mut seen = Vec::new();
    for n in 0..24 {
        // A named end user keeps its version whatever key it comes with; without one the key counts.
        let body = hello(json!({ "model": "story", "user": format!("user {}", n / 2) }));
        assert_eq!(place.chat(&user, body).await.status(), 200);
    }
    for listed in place.records(&auditor).await {
        let record = place.record(&auditor, &listed).await;
        let hop = &record["route"]["hops"][0];
        assert_eq!((&hop["asked"], &hop["reason"]), (&json!("story"), &json!("assigned")), "{record}");
        assert!(record["route"]["why"].as_str().unwrap().starts_with("assigned"), "{record}");
        seen.push(hop["model"].as_str().unwrap().to_owned());
    }
    assert!(seen.chunks(2).all(|twice| twice[0] == twice[1]), "{seen:?}");
    assert!(seen.iter().any(|arm| arm == "old") && seen.iter().any(|arm| arm == "new"), "{seen:?}");
    assert_eq!(place.get(&user, "/v1/rollouts").await.0, 403);
    let mut listed = Value::Null;
    for _ in 0..200 {
        listed = place.get(&auditor, "/v1/rollouts").await.1["rollouts"][0].clone();
        if listed["shadow"]["same"] == 24 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((&listed["model"], &listed["trustworthy"]), (&json!("story"), &json!(true)), "{listed}");
    for (place, name) in ["old", "new"].into_iter().enumerate() {
        let (version, answers) = (&listed["versions"][place], seen.iter().filter(|arm| *arm == name).count());
        assert_eq!((&version["model"], &version["weight"]), (&json!(name), &json!(1)), "{listed}");
        assert_eq!((&version["requests"], &version["failed"]), (&json!(answers), &json!(0)), "{listed}");
        assert_eq!(version["callers"], json!(answers / 2), "{listed}");
        assert!(version["failures_beside"].is_null(), "too little is known: {listed}");
    }
    assert_eq!((&listed["shadow"]["same"], &listed["shadow"]["likeness"]), (&json!(24), &json!(1.0)), "{listed}");
}

/// A student that is cut where it is asked for something hard, and its teacher.
fn cascaded() -> Gateway {
    let fake = Fake::new(|request| {
        let mut steps = crate::fake::parrot(request);
        if request.model == "small" && crate::fake::asked(request) == "hard" {
            let cut = protocol::Event::Finished { choice: 0, reason: protocol::FinishReason::Length };
            let end = steps.len() - 2;
            steps[end] = Step::Send(cut);
        }
        Ok(steps)
    });
    let target = |model: &str| Target { service: Arc::new(fake.clone()), model: model.to_owned() };
    let (student, bar) = (Student::new(target("small"), Vec::new()), Bar { threshold: 0.5, ..Bar::default() });
    let cascade = Cascade::new("pair", student, target("talker"), bar, OnFailure::Error, None);
    fake.gateway_of(Services { generate: vec![Arc::new(cascade)], ..Services::default() })
}

/// Whoever answers, the caller asks for one name, gets one answer, and pays its price once; the record says who it was and why.
#[tokio::test]
async fn a_cascade_is_billed_once_and_its_record_says_who_answered() {
    let place = Place::over(
        cascaded(),
        "[prices.pair]\ninput = \"1.00\"\noutput = \"10.00\"\n[prices.talker]\ninput = \"99.00\"",
    )
    .await;
    let check = async |content: &str, why: &str, model: &str, failed: Value| {
        for stream in [false, true] {
            let body =
                json!({ "model": "pair", "stream": stream, "messages": [{ "role": "user", "content": content }] });
            let answer = text(place.chat("", body).await).await;
            assert_eq!(answer.matches(content).count(), 1, "{answer}");
            let record = &place.records("").await[0];
            let hop = &record["route"]["hops"][0];
            assert_eq!((&record["model"], &record["route"]["why"]), (&json!("pair"), &json!(why)), "{record}");
            assert_eq!(
                (&hop["asked"], &hop["model"], &hop["failed"]),
                (&json!("pair"), &json!(model), &failed),
                "{hop}"
            );
            assert_eq!(record["answered"]["model"], model);
            assert_eq!(record["usage"], json!({ "prompt_tokens": 3, "cached_tokens": 1, "completion_tokens": 2 }));
            // Three tokens in at 1, two out at 10 a million, whoever wrote them.
            assert_eq!(record["cost"], 23_000, "{record}");
        }
    };
    check("easy", "accepted", "small", Value::Null).await;
    check("hard", "escalated", "talker", json!([{ "who": "small", "error": "cut" }])).await;
    let metrics = place.get("", "/metrics").await.1;
    for row in ["outcome=\"accepted\",why=\"sure\"} 2", "outcome=\"escalated\",why=\"cut\"} 2"] {
        let row = format!("tessera_cascade_requests_total{{cascade=\"pair\",{row}");
        assert!(metrics.as_str().unwrap().contains(&row), "{row}: {metrics}");
    }
}
