//! A canary behind the door: judged while it serves, moved by people, followed by other gateways and after a restart, and written down.

use std::{sync::Arc, time::Duration};

use gateway::{Gateway, Services, settings::Settings};
use guard::Guard;
use ledger::Role;
use protocol::Generate;
use serde_json::{Value, json};
use services::{Guarded, Target, rollout::Rollout};
use tokio::task::JoinSet;

use crate::{
    fake::{Fake, Step, done, ends, says, started},
    govern::{Place, hello},
};

const SETTINGS: &str = r#"
[prices.dear]
input = "1.00"
output = "1.00"

[prices.story]
input = "0.10"
output = "0.10"

[[rollouts]]
model = "story"
versions = { talker = 1 }
canary = "CANARY"
steps = [50, 75, 100]
hold = "0s"
hold_requests = 100
tolerated_failures = 0.5
tolerated_blocks = 0.5
tolerated_wait = "10s"
tolerated_quality = 0.5

[guard.terms.projects]
words = ["falcon"]
output = "block"
"#;

/// `broken` fails, `rude` says what the guard blocks; whatever else is named says hello.
fn fake() -> Fake {
    Fake::new(|request| match request.model.as_str() {
        "broken" => Err(protocol::Error::new(protocol::ErrorKind::Upstream, "It broke.")),
        "rude" => Ok([started(), says(0, "Falcon"), ends(0), done()].into_iter().map(Step::Send).collect()),
        _ => Ok([started(), says(0, "Hello"), ends(0), done()].into_iter().map(Step::Send).collect()),
    })
}

fn settings(canary: &str) -> String {
    SETTINGS.replace("CANARY", canary)
}

/// A gateway over the rollout that these settings name.
fn gateway(canary: &str) -> Gateway {
    let fake = fake();
    let target = |model: &str| Target { service: Arc::new(fake.clone()), model: model.to_owned() };
    let settings = Settings::parse(&settings(canary)).unwrap();
    let (guard, written) = (Guard::new(&settings.guard).unwrap(), &settings.rollouts[0]);
    let rollout = Rollout::new("story", vec![(target("talker"), 1)], None).with_canary(target(canary), written.plan());
    let rollout = Arc::new(rollout);
    let guarded = Guarded::new(rollout.clone() as Arc<dyn Generate>, guard.clone());
    let generate = vec![Arc::new(guarded) as Arc<dyn Generate>];
    fake.gateway_of(Services { generate, rollouts: vec![rollout], guard, ..Services::default() })
}

/// A place whose gateway really runs, so that its canary is judged.
async fn running(canary: &str) -> (Place, Gateway, JoinSet<()>) {
    let gateway = gateway(canary);
    let place = Place::over(gateway.clone(), &settings(canary)).await;
    let mut task = JoinSet::new();
    run(&place, &gateway, &mut task).await;
    (place, gateway, task)
}

async fn run(place: &Place, gateway: &Gateway, task: &mut JoinSet<()>) {
    let listener = gateway::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway { ledger: Some(place.ledger.clone()), ..gateway.clone() };
    task.spawn(gateway::serve(listener, gateway, std::future::pending()));
}

async fn canary(place: &Place) -> Value {
    place.get("", "/v1/rollouts").await.1["rollouts"][0]["canary"].clone()
}

/// Waits until the canary is so; callers come meanwhile, a fresh one each time, and are heard to the end.
///
/// Canaries are judged once a second: a number of callers would be no bound, since a fast machine is through with them before.
async fn until(place: &Place, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    let calls = async {
        let mut callers = 0;
        loop {
            let found = canary(place).await;
            if so(&found) {
                return found;
            }
            if found.is_null() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            callers += 1;
            let body = hello(json!({ "model": "story", "user": format!("{what} {callers}") }));
            let _ = crate::text(place.chat("", body).await).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), calls).await {
        Ok(found) => found,
        Err(_) => panic!("not {what}: {}", canary(place).await),
    }
}

#[tokio::test]
async fn a_good_canary_is_promoted_step_by_step() {
    let (place, gateway, _task) = running("new").await;
    let end = until(&place, "promoted", |canary| canary["course"] == "promoted").await;
    assert_eq!((&end["share"], &end["moves"], &end["by"]), (&json!(100), &json!(2), &json!("")), "{end}");
    assert!(end["why"].as_str().unwrap().starts_with("fine: failures"), "{end}");
    assert_eq!(gateway.services.get().rollouts[0].state().unwrap().number, 2);
    let found = place.ledger.verify(None).await.unwrap();
    assert_eq!(found.problems, []);
}

#[tokio::test]
async fn a_bad_canary_is_taken_back_everywhere_and_for_good() {
    let (place, _, mut task) = running("broken").await;
    let other = gateway("broken");
    run(&place, &other, &mut task).await;
    let end = until(&place, "rolled back", |canary| canary["course"] == "rolled_back").await;
    assert!(end["why"].as_str().unwrap().starts_with("worse: failures"), "{end}");
    let rollout = other.services.get().rollouts[0].clone();
    crate::sockets::until("the other gateway follows", || rollout.state().is_some_and(|state| state.share == 0)).await;
    // A restart goes on from there before it takes its first request.
    task.shutdown().await;
    let again = gateway("broken");
    run(&place, &again, &mut task).await;
    let rollout = again.services.get().rollouts[0].clone();
    crate::sockets::until("the restarted one knows", || rollout.state().is_some_and(|state| state.share == 0)).await;
    // New settings make it anew; it stands where the one before stood.
    let next = gateway("broken").services.get();
    again.services.replace(Services::clone(&next));
    assert_eq!(again.services.get().rollouts[0].state(), rollout.state());
}

#[tokio::test]
async fn blocked_answers_are_a_guardrail() {
    let (place, _, _task) = running("rude").await;
    let end = until(&place, "rolled back", |canary| canary["course"] == "rolled_back").await;
    assert!(end["why"].as_str().unwrap().starts_with("worse: blocks"), "{end}");
}

/// What a version costs by its own model's prices, and how it is rated, show beside the other; a dear one is taken back.
#[tokio::test]
async fn cost_and_ratings_are_guardrails() {
    let (place, _, _task) = running("dear").await;
    until(&place, "begun", |canary| !canary.is_null()).await;
    let body = hello(json!({ "model": "story", "user": "a caller" }));
    let answer: Value = serde_json::from_str(&crate::text(place.chat("", body).await).await).unwrap();
    for rating in [json!("down"), json!("up")] {
        let body = json!({ "request_id": answer["id"], "rating": rating });
        assert_eq!(place.post("", "/v1/feedback", body).await.0, 200);
    }
    let listed = place.get("", "/v1/rollouts").await.1["rollouts"][0]["versions"].clone();
    let rated: Vec<f64> = listed.as_array().unwrap().iter().filter_map(|version| version["quality"].as_f64()).collect();
    assert_eq!(rated, [0.0], "the first rating of an answer counts: {listed}");
    let end = until(&place, "rolled back", |canary| canary["course"] == "rolled_back").await;
    assert!(end["why"].as_str().unwrap().starts_with("worse: cost"), "{end}");
}

#[tokio::test]
async fn people_move_a_canary() {
    let (place, _, _task) = running("new").await;
    until(&place, "begun", |canary| !canary.is_null()).await;
    let act = async |key: &str, action: &str| {
        let (status, body) = place.post(key, "/v1/rollouts/story", json!({ "action": action })).await;
        (status, body["canary"]["course"].as_str().map(str::to_owned))
    };
    for (action, course) in [
        ("pause", Some("paused")),
        ("pause", None),
        ("resume", Some("running")),
        ("rollback", Some("rolled_back")),
        ("resume", Some("running")),
        ("promote", Some("promoted")),
        ("resume", None),
        ("retreat", None),
    ] {
        let status = if course.is_some() { 200 } else { 400 };
        assert_eq!(act("", action).await, (status, course.map(str::to_owned)), "{action}");
    }
    let end = canary(&place).await;
    assert_eq!((&end["by"], &end["share"]), (&json!("anybody"), &json!(100)), "{end}");
    assert_eq!(place.post("", "/v1/rollouts/tale", json!({ "action": "pause" })).await.0, 404);
    let user = place.key("acme", Role::User, |_| ()).await;
    let admin = place.key("acme", Role::Admin, |_| ()).await;
    assert_eq!(act(&user, "rollback").await.0, 403);
    assert_eq!(act(&admin, "rollback").await.0, 200);
    let (_, listed) = place.get(&admin, "/v1/rollouts").await;
    let by = listed["rollouts"][0]["canary"]["by"].as_str().unwrap_or_default().to_owned();
    assert!(!by.is_empty() && by != "anybody", "{listed}");
    assert_eq!(place.ledger.verify(None).await.unwrap().problems, []);
}

/// Two versions as an experiment: nothing is said before there is enough, then how they stand by the metric that was named, either way round.
#[tokio::test]
async fn an_experiment_says_what_it_shows_and_what_it_takes() {
    for (control, other, verdict) in [("talker", "broken", "worse"), ("broken", "talker", "better")] {
        let fake = fake();
        let target = |model: &str| (Target { service: Arc::new(fake.clone()), model: model.to_owned() }, 1);
        let rollout = Arc::new(Rollout::new("story", vec![target(control), target(other)], None));
        let alone = Arc::new(Rollout::new("tale", vec![target("talker")], None));
        let generate = vec![rollout.clone() as Arc<dyn Generate>];
        let rollouts = vec![rollout, alone];
        let gateway = fake.gateway_of(Services { generate, rollouts, ..Services::default() });
        let settings = format!(
            "[[rollouts]]\nmodel = \"story\"\nversions = {{ {control} = 1, {other} = 1 }}\nmetric = \"failures\"\n"
        );
        let place = Place::over(gateway, &settings).await;
        let asked = async |callers: std::ops::Range<usize>| {
            for caller in callers {
                let body = hello(json!({ "model": "story", "user": format!("caller {caller}") }));
                let _ = crate::text(place.chat("", body).await).await;
            }
            place.get("", "/v1/experiments/story").await.1
        };
        let early = asked(0..20).await;
        assert_eq!(
            (&early["metric"], &early["control"], &early["confidence"]),
            (&json!("failures"), &json!(control), &json!(0.95))
        );
        let arm = |said: &Value| {
            said["versions"].as_array().unwrap().iter().find(|arm| arm["model"] == other).cloned().unwrap()
        };
        assert_eq!(
            arm(&early)["beside"],
            json!({ "verdict": "running", "difference": null, "low": null, "high": null, "p": null, "still_needed": null })
        );
        let late = asked(20..280).await;
        let (beside, samples) = (arm(&late)["beside"].clone(), arm(&late)["samples"].clone());
        assert_eq!((&beside["verdict"], &late["trustworthy"]), (&json!(verdict), &json!(true)), "{late}");
        assert_eq!(beside["difference"].as_f64().unwrap().abs(), 1.0, "{late}");
        assert!(beside["low"].as_f64() < beside["difference"].as_f64() && samples.as_u64() > Some(99), "{late}");
        assert!(beside["still_needed"].is_u64() && beside["p"].as_f64() < Some(0.05), "{late}");
        let listed = place.get("", "/v1/experiments").await.1;
        assert_eq!(listed, json!({ "experiments": [late] }), "one version alone is none");
        for (name, code) in [("tale", "no_experiment"), ("nobody", "no_rollout")] {
            let (status, said) = place.get("", &format!("/v1/experiments/{name}")).await;
            assert_eq!((status.as_u16(), &said["error"]["code"]), (404, &json!(code)), "{said}");
        }
        let user = place.key("acme", Role::User, |_| ()).await;
        assert_eq!(place.get(&user, "/v1/experiments").await.0.as_u16(), 403);
    }
}
