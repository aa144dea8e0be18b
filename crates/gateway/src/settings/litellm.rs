//! A LiteLLM proxy's configuration becomes ours. What has no counterpart is said, never dropped in silence.
//!
//! Deployments that share provider, address and key become one upstream. A name that several deployments answer to becomes a
//! balanced route over them; fallbacks become a route as well. `os.environ/NAME` becomes `${NAME}`; a key that stands in the
//! file is not copied but replaced by a variable to set.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{Api, Money, Price, Route, Secret, Settings, Span, Strategy, Upstream};

type Rest = BTreeMap<String, Value>;

/// What an import came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The settings.
    pub settings: Settings,
    /// What has no counterpart here, or needs a hand.
    pub notes: Vec<String>,
}

impl Imported {
    /// The file: the notes as comments, then what differs from the defaults.
    pub fn written(&self) -> String {
        let notes: String = self.notes.iter().map(|note| format!("# NOTE: {note}\n")).collect();
        format!("# Imported from a LiteLLM proxy's configuration.\n{notes}\n{}", self.settings.written_changes())
    }
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct File {
    model_list: Vec<Deployment>,
    litellm_settings: Shared,
    router_settings: Shared,
    general_settings: Rest,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    model_name: String,
    litellm_params: Params,
    #[serde(default)]
    model_info: Info,
}

#[derive(Debug, Deserialize)]
struct Params {
    model: String,
    api_base: Option<String>,
    api_key: Option<String>,
    timeout: Option<f64>,
    max_retries: Option<u32>,
    input_cost_per_token: Option<f64>,
    output_cost_per_token: Option<f64>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Info {
    mode: Option<String>,
    input_cost_per_token: Option<f64>,
    output_cost_per_token: Option<f64>,
}

/// `litellm_settings` and `router_settings` say much the same.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Shared {
    num_retries: Option<u32>,
    request_timeout: Option<f64>,
    timeout: Option<f64>,
    allowed_fails: Option<u32>,
    cooldown_time: Option<f64>,
    fallbacks: Vec<BTreeMap<String, Vec<String>>>,
    model_group_alias: BTreeMap<String, Value>,
    #[serde(flatten)]
    rest: Rest,
}

/// Where providers that speak OpenAI's API live, by LiteLLM's prefix.
const PROVIDERS: [(&str, &str); 8] = [
    ("openai", "https://api.openai.com/v1"),
    ("anthropic", "https://api.anthropic.com"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("mistral", "https://api.mistral.ai/v1"),
    ("deepseek", "https://api.deepseek.com/v1"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("together_ai", "https://api.together.xyz/v1"),
    ("ollama", "http://127.0.0.1:11434/v1"),
];
/// Prefixes that only make sense with an `api_base` of their own.
const SELF_HOSTED: [&str; 5] = ["hosted_vllm", "vllm", "openai_like", "custom_openai", "litellm_proxy"];

/// Reads the YAML text of a LiteLLM proxy's configuration.
pub fn import(yaml: &str) -> Result<Imported, String> {
    let file: File = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let mut import = Import::default();
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for deployment in &file.model_list {
        import.deployment(deployment, &file, &mut names);
    }
    import.routes(&file, &names);
    import.leftovers(&file);
    Ok(Imported { settings: import.settings, notes: import.notes })
}

#[derive(Default)]
struct Import {
    settings: Settings,
    notes: Vec<String>,
}

impl Import {
    fn deployment(&mut self, deployment: &Deployment, file: &File, names: &mut BTreeMap<String, Vec<String>>) {
        let (params, public) = (&deployment.litellm_params, &deployment.model_name);
        let (provider, there) = params.model.split_once('/').unwrap_or(("openai", &params.model));
        let known = PROVIDERS.iter().find(|(name, _)| *name == provider).map(|(_, url)| (*url).to_owned());
        let base = params.api_base.as_deref().map(variables).or(known);
        let Some(url) = base.filter(|_| SELF_HOSTED.contains(&provider) || PROVIDERS.iter().any(|p| p.0 == provider))
        else {
            return self.notes.push(format!("model {public}: provider `{provider}` has no counterpart; left out"));
        };
        for key in params.rest.keys() {
            self.notes.push(format!("model {public}: `{key}` has no counterpart"));
        }
        let here = self.free_name(public, file, names);
        names.entry(public.clone()).or_default().push(here.clone());
        self.price(&here, deployment);
        let at = self.upstream(provider, &url, params, file);
        let upstream = &mut self.settings.upstreams[at];
        let models = match deployment.model_info.mode.as_deref() {
            Some("embedding") => &mut upstream.embed_models,
            Some("image_generation") => &mut upstream.image_models,
            _ => &mut upstream.models,
        };
        models.insert(here, there.to_owned());
    }

    /// The public name itself, unless a route will carry it.
    fn free_name(&self, public: &str, file: &File, names: &BTreeMap<String, Vec<String>>) -> String {
        let deployments = file.model_list.iter().filter(|other| other.model_name == public).count();
        let routed = deployments > 1 || fallbacks(file).any(|(name, _)| name == public);
        let number = names.get(public).map_or(0, Vec::len) + 1;
        if routed { format!("{public}-{number}") } else { public.to_owned() }
    }

    fn price(&mut self, name: &str, deployment: &Deployment) {
        let (params, info) = (&deployment.litellm_params, &deployment.model_info);
        let million = |per_token: Option<f64>| per_token.map(|price| Money((price * 1e15).round() as u64));
        let input = million(params.input_cost_per_token.or(info.input_cost_per_token));
        let output = million(params.output_cost_per_token.or(info.output_cost_per_token));
        if input.is_some() || output.is_some() {
            let price =
                Price { input: input.unwrap_or_default(), output: output.unwrap_or_default(), ..Price::default() };
            self.settings.prices.insert(name.to_owned(), price);
        }
    }

    /// The upstream with this address and key, made if it is not there yet.
    fn upstream(&mut self, provider: &str, url: &str, params: &Params, file: &File) -> usize {
        let given = params.api_key.as_deref().map(variables).unwrap_or_default();
        let literal = !given.is_empty() && !given.starts_with("${");
        let same = |upstream: &Upstream| upstream.url == url && (literal || upstream.key == Secret::reference(&given));
        if let Some(at) = self.settings.upstreams.iter().position(same) {
            return at;
        }
        let number = self.settings.upstreams.iter().filter(|u| u.name.split('-').next() == Some(provider)).count();
        let name = if number == 0 { provider.to_owned() } else { format!("{provider}-{}", number + 1) };
        let key = if literal { self.moved_key(&name) } else { given };
        let (shared, router) = (&file.litellm_settings, &file.router_settings);
        let mut upstream = Upstream {
            name,
            url: url.to_owned(),
            api: if provider == "anthropic" { Api::Anthropic } else { Api::OpenAi },
            key: Secret::reference(&key),
            ..Upstream::default()
        };
        let retries = params.max_retries.or(router.num_retries).or(shared.num_retries);
        upstream.retries = retries.unwrap_or(upstream.retries);
        upstream.breaker_failures = router.allowed_fails.or(shared.allowed_fails).unwrap_or(upstream.breaker_failures);
        let time =
            |seconds: Option<f64>, otherwise| seconds.map_or(otherwise, |s| Span(Duration::from_secs_f64(s.max(0.0))));
        let limit = params.timeout.or(router.timeout).or(shared.request_timeout).or(shared.timeout);
        upstream.timeout = time(limit, upstream.timeout);
        upstream.breaker_pause = time(router.cooldown_time.or(shared.cooldown_time), upstream.breaker_pause);
        self.settings.upstreams.push(upstream);
        self.settings.upstreams.len() - 1
    }

    /// A variable in place of a key that stood in the file.
    fn moved_key(&mut self, upstream: &str) -> String {
        let name = format!("{}_API_KEY", upstream.to_uppercase().replace('-', "_"));
        self.notes.push(format!("the key of upstream {upstream} stood in the file: set the variable {name} to it"));
        format!("${{{name}}}")
    }

    fn routes(&mut self, file: &File, names: &BTreeMap<String, Vec<String>>) {
        let mut add = |model: &str, targets: Vec<String>, strategy| {
            self.settings.routes.push(Route { model: model.to_owned(), targets, strategy });
        };
        let behind: BTreeMap<&str, Vec<String>> = fallbacks(file).collect();
        for (public, own) in names {
            match (own.len(), behind.get(public.as_str())) {
                (1, None) => {}
                (_, None) => add(public, own.clone(), Strategy::Balance),
                (1, Some(others)) => add(public, [own, others.as_slice()].concat(), Strategy::Fallback),
                (_, Some(others)) => {
                    let all = format!("{public}-all");
                    add(&all, own.clone(), Strategy::Balance);
                    add(public, [&[all], others.as_slice()].concat(), Strategy::Fallback);
                }
            }
        }
        let aliases = file.router_settings.model_group_alias.iter().chain(&file.litellm_settings.model_group_alias);
        for (alias, target) in aliases {
            let target = target.as_str().or(target["model"].as_str()).unwrap_or_default();
            add(alias, vec![target.to_owned()], Strategy::Fallback);
        }
    }

    fn leftovers(&mut self, file: &File) {
        if file.general_settings.contains_key("master_key") {
            self.settings.auth.required = true;
            let how = "make an admin key with `tessera keys create --role admin`";
            self.notes.push(format!("general_settings.master_key: keys are demanded; {how}"));
        }
        let general = file.general_settings.keys().filter(|key| *key != "master_key");
        let sections = [
            ("general_settings.", general.collect::<Vec<_>>()),
            ("litellm_settings.", file.litellm_settings.rest.keys().collect()),
            ("router_settings.", file.router_settings.rest.keys().collect()),
            ("", file.rest.keys().collect()),
        ];
        let named = sections.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}{key}")));
        self.notes.extend(named.map(|key| format!("{key} has no counterpart")));
    }
}

fn fallbacks(file: &File) -> impl Iterator<Item = (&str, Vec<String>)> {
    let lists = file.router_settings.fallbacks.iter().chain(&file.litellm_settings.fallbacks);
    lists.flatten().map(|(name, others)| (name.as_str(), others.clone()))
}

/// `os.environ/NAME` as `${NAME}`.
fn variables(text: &str) -> String {
    text.strip_prefix("os.environ/").map_or_else(|| text.to_owned(), |name| format!("${{{name}}}"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    #[test]
    fn a_proxys_configuration_becomes_ours() {
        let imported = import(include_str!("../../tests/data/litellm.yaml")).unwrap();
        expect_file!["../../tests/data/litellm.toml"].assert_eq(&imported.written());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let imported = import(include_str!("../../tests/data/litellm.yaml")).unwrap();
        let text = imported.written().replace("${", "$ {");
        let read = Settings::parse(&text).unwrap();
        assert_eq!(read.routes, imported.settings.routes);
        assert_eq!(read.prices, imported.settings.prices);
        assert_eq!(read.upstreams.len(), imported.settings.upstreams.len());
    }

    #[test]
    fn broken_yaml_has_its_line() {
        let error = import("model_list:\n  - model_name: a\n    litellm_params: [").unwrap_err();
        assert!(error.contains("line 3"), "{error}");
        assert!(import("model_list:\n  - model_name: a\n").unwrap_err().contains("litellm_params"));
    }
}
