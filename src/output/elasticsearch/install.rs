//! Installation of the index template, before the first document is written.
//!
//! A template of the user's that has what Windrow needs is left alone. What Windrow's template
//! takes away from others, and what takes it away from Windrow, is said.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::backoff::full_jitter;
use super::client::Client;
use super::health::{OutputHealth, WaitReason};
use super::http::{Request, Response};
use super::index_pattern::IndexPattern;
use super::lifecycle::{self, Lifecycle};
use super::outcome::RequestError;
use super::template::{TEMPLATE_PRIORITY, body, variants};
use crate::config::{ElasticsearchConfig, IndexTemplate};
use crate::output::matches_wildcard;

/// Priorities that are tried when another template for the same names has the same one.
const MAX_PRIORITY_STEPS: u32 = 5;

/// Pause before another attempt at what was not allowed.
const NOT_ALLOWED_PAUSE: Duration = Duration::from_secs(300);

/// What is read of all templates, and how much of that at most.
const TEMPLATE_FILTER: &str = "filter_path=index_templates.index_template.index_patterns,\
    index_templates.index_template.priority,index_templates.index_template.data_stream";
const MAX_TEMPLATES_BYTES: u64 = 32 << 20;

/// Result of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum InstallResult {
    /// It is installed, or not needed. What the operator should know.
    Done(Vec<String>),
    /// It is not allowed or not possible now; documents are written without it. The reason.
    Impossible(String),
    /// To be retried; the reason.
    Retry(String),
}

/// What the store would give a new index.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Simulation {
    #[serde(default)]
    template: Value,
    #[serde(default)]
    pub(crate) overlapping: Vec<Overlap>,
}

/// A template that a new index would have without the one that wins.
#[derive(Debug, Deserialize)]
pub(crate) struct Overlap {
    pub(crate) name: String,
}

#[derive(Default, Deserialize)]
struct Templates {
    #[serde(default)]
    index_templates: Vec<NamedTemplate>,
}

#[derive(Deserialize)]
struct NamedTemplate {
    index_template: TemplateWire,
}

#[derive(Deserialize)]
struct TemplateWire {
    #[serde(default)]
    index_patterns: Vec<String>,
    #[serde(default)]
    priority: u64,
    data_stream: Option<Value>,
}

impl Simulation {
    /// The settings of the new index.
    pub(crate) fn settings(&self) -> Option<&Value> {
        self.template.get("settings")
    }

    /// Whether it would be the first index of a data stream. OpenSearch does not say it.
    fn says_data_stream(&self) -> bool {
        let enabled = self.template.pointer("/mappings/_data_stream_timestamp/enabled");
        enabled.is_some_and(|enabled| enabled == &Value::Bool(true) || enabled == "true")
    }

    /// Whether the mapping has what Windrow needs.
    pub(crate) fn is_fit(&self) -> bool {
        let at = |path: &str| self.template.pointer(path);
        at("/mappings/properties/windrow/properties/state/enabled").is_some_and(is_false)
            && at("/mappings/properties/windrow/properties/unmapped").is_some()
    }
}

/// A boolean of a mapping may come back as a string.
fn is_false(value: &Value) -> bool {
    value == &Value::Bool(false) || value == "false"
}

/// An index of today, or a data stream, as the configuration names it first.
pub(crate) fn example(client: &Client, data_streams: bool) -> Option<String> {
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    let name = client.destinations.example(data_streams)?;
    let pattern = IndexPattern::parse(&name).ok()?;
    Some(pattern.of(now).index.to_string())
}

/// Asks what a new index would get; `None` if the store does not say.
pub(crate) async fn simulate(client: &Client, name: &str) -> Option<Simulation> {
    let path = format!("/_index_template/_simulate_index/{name}");
    let response = client.ask(&Request::json(Method::POST, path, "")).await.ok()?;
    serde_json::from_slice(&response.success().ok()?).ok()
}

/// Whether the first document with a name would make a data stream.
pub(crate) async fn makes_data_stream(client: &Client, name: &str, simulation: &Simulation) -> bool {
    if simulation.says_data_stream() {
        return true;
    }
    let mut request = Request::json(Method::GET, format!("/_index_template?{TEMPLATE_FILTER}"), "");
    request.max_response_bytes = MAX_TEMPLATES_BYTES;
    let answer = client.ask(&request).await.and_then(Response::success);
    let all: Templates = answer
        .ok()
        .and_then(|answer| serde_json::from_slice(&answer).ok())
        .unwrap_or_default();
    let templates = all.index_templates.iter().map(|named| &named.index_template);
    let matching = templates.filter(|template| {
        let mut patterns = template.index_patterns.iter();
        patterns.any(|pattern| matches_wildcard(pattern, name))
    });
    let winner = matching.max_by_key(|template| template.priority);
    winner.is_some_and(|template| template.data_stream.is_some())
}

/// Attempts to install the template once, for the names of indices or of data streams.
pub(crate) async fn install(
    client: &Client,
    template: &IndexTemplate,
    lifecycle: &Lifecycle,
) -> InstallResult {
    let data_streams = lifecycle.data_streams;
    let Some(example) = example(client, data_streams) else {
        return InstallResult::Done(Vec::new());
    };
    // OpenSearch does not simulate what would be made of a data stream that exists.
    let before = simulate(client, &example).await.unwrap_or_default();
    // Windrow's own is written again: a newer version may have more.
    let others: Vec<_> = before
        .overlapping
        .iter()
        .map(|overlap| overlap.name.clone())
        .collect();
    let own = owner(client, &template.name).await;
    let fits = before.is_fit() && (!data_streams || makes_data_stream(client, &example, &before).await);
    if fits && own == Owner::Nobody {
        return InstallResult::Done(vec![
            "a template of the cluster has what Windrow needs; Windrow's own is not installed".into(),
        ]);
    }
    if own == Owner::SomebodyElse {
        return InstallResult::Impossible(format!(
            "the cluster has a template {:?} that Windrow did not make; set elasticsearch.template_name to another name",
            template.name
        ));
    }
    let path = format!("/_index_template/{}", template.name);
    let patterns = lifecycle.patterns(client);
    let mut refused = String::new();
    for priority in TEMPLATE_PRIORITY..TEMPLATE_PRIORITY + MAX_PRIORITY_STEPS {
        for variant in variants(data_streams) {
            let text = body(template, lifecycle, &patterns, priority, &variant).to_string();
            let request = Request::json(Method::PUT, path.clone(), text);
            match client.ask(&request).await.and_then(Response::success) {
                Ok(answer) if is_acknowledged(&answer) => {
                    let mut said = said(client, &example, &others).await;
                    if lifecycle.own.is_some() && !variant.has_lifecycle {
                        said.push(
                            "the store has no lifecycle for data streams: nothing is rolled over or deleted by itself"
                                .into(),
                        );
                    }
                    return InstallResult::Done(said);
                }
                Ok(answer) => {
                    let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
                    return InstallResult::Retry(format!("the answer does not acknowledge it: {text}"));
                }
                // A field type that this store does not know, or a priority that is taken.
                Err(RequestError::Malformed(reason)) => {
                    if refused.is_empty() {
                        refused = reason;
                    }
                }
                // Wrong credentials block writing too; without the privilege for templates, writing
                // may still be allowed.
                Err(RequestError::Denied(reason)) if reason.starts_with("status 401") => {
                    return InstallResult::Retry(reason);
                }
                Err(error @ (RequestError::Denied(_) | RequestError::Unexpected(_))) => {
                    return InstallResult::Impossible(error.reason().to_owned());
                }
                Err(error) => return InstallResult::Retry(error.reason().to_owned()),
            }
        }
    }
    InstallResult::Impossible(refused)
}

fn is_acknowledged(answer: &[u8]) -> bool {
    serde_json::from_slice::<Value>(answer).is_ok_and(|answer| answer["acknowledged"] == true)
}

/// Who made a template.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Windrow,
    SomebodyElse,
    /// It does not exist, or the store does not say.
    Nobody,
}

async fn owner(client: &Client, name: &str) -> Owner {
    let request = Request::json(Method::GET, format!("/_index_template/{name}"), "");
    let Ok(answer) = client.ask(&request).await.and_then(Response::success) else {
        return Owner::Nobody;
    };
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    let Some(found) = answer.pointer("/index_templates/0/index_template") else {
        return Owner::Nobody;
    };
    let description = found.pointer("/_meta/description").and_then(Value::as_str);
    if description.is_some_and(|text| text.contains("Windrow")) {
        Owner::Windrow
    } else {
        Owner::SomebodyElse
    }
}

/// What the operator should know after the installation.
async fn said(client: &Client, example: &str, others: &[String]) -> Vec<String> {
    let mut said = Vec::new();
    let Some(after) = simulate(client, example).await else {
        return said;
    };
    if !after.is_fit() {
        said.push(
            "another template with a higher priority wins for new indices and lacks the mapping of Windrow: \
             lower its priority below 200, or add the properties of windrow to it (docs/elasticsearch.md)"
                .into(),
        );
    }
    let hidden: Vec<&str> = after
        .overlapping
        .iter()
        .map(|overlap| overlap.name.as_str())
        .collect();
    if !hidden.is_empty() && after.is_fit() {
        said.push(format!(
            "new indices get nothing of these templates any more, which match the same names with a lower priority: {}; \
             put their settings into the template of Windrow's names with elasticsearch.template = false, or ignore this",
            hidden.join(", ")
        ));
    } else if !hidden.is_empty() && others.is_empty() {
        said.push(format!("templates for the same names: {}", hidden.join(", ")));
    }
    said
}

/// Installs lifecycle and templates, with retries. Documents wait until that is done, or known not
/// to be possible now; then it is tried again in the background, and the future goes on.
pub(crate) async fn install_with_retries(
    client: &Client,
    config: &ElasticsearchConfig,
    health: &OutputHealth,
    done: &tokio::sync::Notify,
) {
    let Some(template) = &config.template else {
        lifecycle::install_without_template(client, config).await;
        look_at_streams(client).await;
        done.notify_one();
        return;
    };
    let mut told = false;
    for attempt in 0.. {
        match install_all(client, config, template).await {
            InstallResult::Done(said) => {
                for said in said {
                    tracing::warn!(template = %template.name, "{said}");
                }
                break;
            }
            InstallResult::Impossible(reason) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        template = %template.name, %reason,
                        "the index template cannot be installed; new indices get dynamic mapping; trying again"
                    );
                    look_at_streams(client).await;
                }
                health.clear(WaitReason::Template);
                done.notify_one();
                let pause = NOT_ALLOWED_PAUSE.min(config.blocked_retry * (1 << attempt.min(4)));
                tokio::time::sleep(pause).await;
            }
            InstallResult::Retry(reason) => {
                if !told {
                    health.set(
                        WaitReason::Template,
                        format!("the index template cannot be installed yet: {reason}"),
                    );
                }
                let pause = full_jitter(config.backoff_base, config.retry_max_wait, attempt);
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = client.nodes.revived.notified() => {}
                }
            }
        }
    }
    look_at_streams(client).await;
    health.clear(WaitReason::Template);
    done.notify_one();
}

/// Installs the templates of indices and of data streams once.
async fn install_all(
    client: &Client,
    config: &ElasticsearchConfig,
    template: &IndexTemplate,
) -> InstallResult {
    let mut all = Vec::new();
    for data_streams in [false, true] {
        let patterns = client.exact_patterns(data_streams);
        if patterns.is_empty() {
            continue;
        }
        let mut template = template.clone();
        if data_streams {
            template.name = stream_template(&template.name);
        }
        let lifecycle = lifecycle::install(client, config, data_streams).await;
        match install(client, &template, &lifecycle).await {
            InstallResult::Done(said) => {
                tracing::info!(template = %template.name, ?patterns, "index template installed");
                all.extend(said);
            }
            other => return other,
        }
    }
    InstallResult::Done(all)
}

/// The name of the template of data streams: a template makes indices or data streams.
pub(crate) fn stream_template(name: &str) -> String {
    format!("{name}-data-streams")
}

/// Resolves the data stream that is named first, so that what cannot be kept is said at the start.
async fn look_at_streams(client: &Client) {
    if let Some(name) = example(client, true) {
        client.targets.refresh(client, &name, true).await;
    }
}
