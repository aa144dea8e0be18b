//! What values mean together, which no type can say; and the line at which a value stands.

use toml::de::{DeTable, DeValue};

use super::{Cascade, Conversion, Loop, Mistake, Money, Rollout, Route, Settings, Upstream, line_at};

/// A mistake at a path such as `upstreams`, `0`, `url`.
pub(super) type Wrong = (Vec<String>, String);

/// All mistakes of meaning.
pub(super) fn check(settings: &Settings) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    server(settings, &mut wrong);
    identity(settings, &mut wrong);
    if let Err(error) = guard::Guard::new(&settings.guard) {
        add(&mut wrong, &["guard"], error);
    }
    for (i, upstream) in settings.upstreams.iter().enumerate() {
        self::upstream(settings, i, upstream, &mut wrong);
    }
    for (i, worker) in settings.workers.iter().enumerate() {
        web(&["workers", &i.to_string(), "url"], &worker.url, &mut wrong);
        if worker.secret.is_empty() {
            add(
                &mut wrong,
                &["workers", &i.to_string(), "secret"],
                "is required: the secret that the worker was given",
            );
        }
    }
    for (i, route) in settings.routes.iter().enumerate() {
        self::route(settings, i, route, &mut wrong);
    }
    for (i, conversion) in settings.conversions.iter().enumerate() {
        self::conversion(settings, i, conversion, &mut wrong);
    }
    for (i, rollout) in settings.rollouts.iter().enumerate() {
        self::rollout(settings, i, rollout, &mut wrong);
    }
    for (i, cascade) in settings.cascades.iter().enumerate() {
        self::cascade(settings, i, cascade, &mut wrong);
    }
    students(&settings.models.students, &mut wrong);
    for (i, circle) in settings.loops.iter().enumerate() {
        self::circle(settings, i, circle, &mut wrong);
    }
    wrong
}

fn add(wrong: &mut Vec<Wrong>, path: &[&str], what: impl std::fmt::Display) {
    let path: Vec<String> = path.iter().map(ToString::to_string).collect();
    let message = format!("{} {what}", path.join("."));
    wrong.push((path, message));
}

fn server(settings: &Settings, wrong: &mut Vec<Wrong>) {
    let server = &settings.server;
    if server.listen.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err()) {
        add(wrong, &["server", "listen"], format!("is `{}`: write host:port, such as 127.0.0.1:8080", server.listen));
    }
    let (certificate, key) = (server.tls.certificate.as_os_str(), server.tls.key.as_os_str());
    if certificate.is_empty() != key.is_empty() {
        let missing = if key.is_empty() { "key" } else { "certificate" };
        add(wrong, &["server", "tls", missing], "is missing: TLS needs both the certificate and its key");
    }
    if !(0.0..=1.0).contains(&settings.tracing.sample) {
        add(wrong, &["tracing", "sample"], format!("is {}, but must be between 0 and 1", settings.tracing.sample));
    }
    let currency = &settings.ledger.currency;
    if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
        add(wrong, &["ledger", "currency"], format!("is `{currency}`: write its three letters, such as USD"));
    }
}

fn identity(settings: &Settings, wrong: &mut Vec<Wrong>) {
    let oidc = &settings.auth.oidc;
    if oidc.issuer.is_empty() {
        return;
    }
    if oidc.roles.is_empty() {
        add(
            wrong,
            &["auth", "oidc", "roles"],
            "is empty: say which values of the role claim mean admin, user or auditor",
        );
    }
    if oidc.audience.is_empty() {
        add(wrong, &["auth", "oidc", "audience"], "is empty: tokens meant for others would be accepted");
    }
}

fn web(path: &[&str], url: &str, wrong: &mut Vec<Wrong>) {
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        add(wrong, path, format!("is `{url}`: write a URL that begins with http:// or https://"));
    }
}

fn upstream(settings: &Settings, i: usize, upstream: &Upstream, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["upstreams", &place, key], what);
    if upstream.name.is_empty() {
        say("name", "is required: what it is called in routes, metrics and records".to_owned());
    }
    if settings.upstreams[..i].iter().any(|other| other.name == upstream.name) {
        say("name", format!("is `{}`, as an upstream before it is called", upstream.name));
    }
    if upstream.models.is_empty() && upstream.embed_models.is_empty() && upstream.image_models.is_empty() {
        say("models", "is empty: write { name-here = \"name-there\" }".to_owned());
    }
    web(&["upstreams", &place, "url"], &upstream.url, wrong);
}

fn route(settings: &Settings, i: usize, route: &Route, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    if route.model.is_empty() {
        add(wrong, &["routes", &place, "model"], "is required: the name requests use");
    }
    if route.targets.is_empty() {
        add(wrong, &["routes", &place, "targets"], "is empty: name at least one model");
    }
    if route.targets.contains(&route.model) {
        add(wrong, &["routes", &place, "targets"], format!("name `{}` itself", route.model));
    }
    if settings.routes[..i].iter().any(|other| other.model == route.model) {
        add(wrong, &["routes", &place, "model"], format!("is `{}`, which another route stands for", route.model));
    }
}

fn rollout(settings: &Settings, i: usize, rollout: &Rollout, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["rollouts", &place, key], what);
    if rollout.model.is_empty() {
        say("model", "is required: the name requests use".to_owned());
    }
    let others = settings.routes.iter().map(|route| &route.model);
    if others.chain(settings.rollouts[..i].iter().map(|other| &other.model)).any(|other| *other == rollout.model) {
        say("model", format!("is `{}`, which a route or another rollout stands for", rollout.model));
    }
    if rollout.versions.values().all(|weight| *weight == 0) {
        say("versions", "give no version any weight: write { a-model = 90, another = 10 }".to_owned());
    }
    let shares = [
        ("tolerated_failures", rollout.tolerated_failures),
        ("tolerated_blocks", rollout.tolerated_blocks),
        ("tolerated_cost", rollout.tolerated_cost),
        ("tolerated_quality", rollout.tolerated_quality),
        ("shadow_share", rollout.shadow_share),
    ];
    for (key, share) in shares {
        if !(0.0..=1.0).contains(&share) {
            say(key, format!("is {share}, but must be between 0 and 1"));
        }
    }
    if !rollout.canary.is_empty() {
        canary(i, rollout, wrong);
    }
}

/// Steps that grow to 100, to a version that is none of the others.
fn canary(i: usize, rollout: &Rollout, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["rollouts", &place, key], what);
    if rollout.versions.contains_key(&rollout.canary) {
        say("canary", format!("is `{}`, one of the versions: it has its share by `steps`", rollout.canary));
    }
    let grow = rollout.steps.windows(2).all(|pair| pair[0] < pair[1]);
    if !grow || rollout.steps.first() == Some(&0) || rollout.steps.last() != Some(&100) {
        say("steps", "must grow from 1 or more to 100, such as [1, 10, 50, 100]".to_owned());
    }
}

/// Beyond, the price of one does not fit into the bill's integers.
const DEAREST: Money = Money(9_000_000_000_000);

fn conversion(settings: &Settings, i: usize, conversion: &Conversion, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["conversions", &place, key], what);
    if conversion.name.is_empty() {
        say("name", "is required: what feedback calls it".to_owned());
    }
    if settings.conversions[..i].iter().any(|other| other.name == conversion.name) {
        say("name", format!("is `{}`, as a conversion before it is called", conversion.name));
    }
    if (conversion.share.0 > 0) == (conversion.amount.0 > 0) {
        say("share", "or amount: write one of them".to_owned());
    }
    if conversion.share > Money(1_000_000_000) || !conversion.share.0.is_multiple_of(1000) {
        say("share", format!("is {}, but must be at most 1, with at most six places", conversion.share));
    }
    if conversion.amount > DEAREST {
        say("amount", format!("is {}, but may be {DEAREST} at most", conversion.amount));
    }
}

fn cascade(settings: &Settings, i: usize, cascade: &Cascade, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["cascades", &place, key], what);
    for (key, name) in [("model", &cascade.model), ("student", &cascade.student), ("teacher", &cascade.teacher)] {
        if name.is_empty() {
            say(key, "is required: the name of a model".to_owned());
        }
    }
    let routes = settings.routes.iter().map(|route| &route.model);
    let others = routes.chain(settings.rollouts.iter().map(|rollout| &rollout.model));
    if others.chain(settings.cascades[..i].iter().map(|other| &other.model)).any(|other| *other == cascade.model) {
        say("model", format!("is `{}`, which a route, a rollout or another cascade stands for", cascade.model));
    }
    if cascade.student == cascade.teacher {
        say("student", "is the teacher: it would be asked twice".to_owned());
    }
    if !(0.0..=1.0).contains(&cascade.threshold) {
        say("threshold", format!("is {}, but must be between 0 and 1", cascade.threshold));
    }
    match (cascade.calibration.as_os_str().is_empty(), cascade.threshold < 1.0) {
        (true, false) => {
            say("calibration", "is missing: name what `tessera eval cascade` wrote, or a threshold".to_owned())
        }
        (false, true) => say("threshold", "stands beside a calibration, which has its own".to_owned()),
        _ => {}
    }
}

/// It may name a file.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

fn students(names: &[String], wrong: &mut Vec<Wrong>) {
    for (i, name) in names.iter().enumerate() {
        let what = if !is_plain(name) {
            format!("is `{name}`: write the name that `tessera distill` gave it")
        } else if names[..i].contains(name) {
            format!("is `{name}`, which stands there before")
        } else {
            continue;
        };
        add(wrong, &["models", "students", &i.to_string()], what);
    }
}

fn circle(settings: &Settings, i: usize, circle: &Loop, wrong: &mut Vec<Wrong>) {
    let place = i.to_string();
    let mut say = |key: &str, what: String| add(wrong, &["loops", &place, key], what);
    if !is_plain(&circle.name) {
        say("name", format!("is `{}`: write letters, digits, `-`, `_` and `.`", circle.name));
    }
    if settings.loops[..i].iter().any(|other| other.name == circle.name) {
        say("name", format!("is `{}`, as a loop before it is called", circle.name));
    }
    if !settings.rollouts.iter().any(|rollout| rollout.model == circle.rollout) {
        say("rollout", format!("is `{}`, and no [[rollouts]] has that model", circle.rollout));
    }
    for (key, name) in [("teacher", &circle.teacher), ("base", &circle.base)] {
        if name.is_empty() {
            say(key, "is required: the name of a model".to_owned());
        }
    }
    let sizes = [
        ("student_width", circle.student_width),
        ("student_ffn", circle.student_ffn),
        ("student_kv_heads", circle.student_kv_heads),
    ];
    for (key, size) in sizes {
        if size > 0 && circle.student_layers == 0 {
            say(key, format!("is {size}, but no model is made without student_layers"));
        }
    }
    for (key, share) in [("risk", circle.risk), ("kept", circle.kept), ("accepted", circle.accepted)] {
        if !(0.0..=1.0).contains(&share) {
            say(key, format!("is {share}, but must be between 0 and 1"));
        }
    }
}

/// The mistakes with the lines of their keys, or of the innermost table around a key that is missing.
pub(super) fn placed(text: &str, wrong: Vec<Wrong>) -> Vec<Mistake> {
    let table = DeTable::parse(text).ok();
    let line = |path: &[String]| table.as_ref().map_or(0, |table| line(text, table.get_ref(), path));
    wrong.into_iter().map(|(path, message)| Mistake { line: line(&path), message }).collect()
}

fn line(text: &str, table: &DeTable<'_>, path: &[String]) -> usize {
    let Some((first, rest)) = path.split_first() else { return 0 };
    let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == first) else { return 0 };
    let here = line_at(text, key.span().start);
    let (value, rest) = match (value.get_ref(), rest.split_first()) {
        (DeValue::Array(items), Some((index, rest))) => match index.parse().ok().and_then(|i: usize| items.get(i)) {
            Some(item) => (item, rest),
            None => return here,
        },
        _ => (value, rest),
    };
    match value.get_ref() {
        DeValue::Table(inner) => match line(text, inner, rest) {
            0 => line_at(text, value.span().start),
            found => found,
        },
        _ => here,
    }
}
