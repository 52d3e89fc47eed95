//! Lifecycle of indices: a policy that deletes old ones and rolls an alias or a data stream over,
//! with what the store has: ILM of Elasticsearch, ISM of OpenSearch, or the lifecycle of a data stream.
//!
//! Never changes a policy that Windrow did not make.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::http::{Request, Response};
use super::index_pattern;
use super::outcome::RequestError;
use crate::config::ElasticsearchConfig;
use crate::output::DestinationId;

/// Age and size at which a data stream is rolled over where only its retention is configured: its
/// oldest index is deleted as a whole.
const MIN_ROLLOVER_AGE: Duration = Duration::from_secs(3600);
const MAX_ROLLOVER_AGE: Duration = Duration::from_secs(30 * 86_400);
const GENERATIONS_OF_RETENTION: u32 = 10;
const ROLLOVER_BYTES: u64 = 50 << 30;

/// Where a store keeps policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    /// Index Lifecycle Management of Elasticsearch.
    Ilm,
    /// Index State Management of OpenSearch.
    Ism,
}

impl Manager {
    const ALL: [Self; 2] = [Self::Ilm, Self::Ism];

    fn path(self, name: &str) -> String {
        match self {
            Self::Ilm => format!("/_ilm/policy/{name}"),
            Self::Ism => format!("/_plugins/_ism/policies/{name}"),
        }
    }
}

/// Whether a lifecycle is configured.
pub(crate) fn is_wanted(config: &ElasticsearchConfig) -> bool {
    config.retention.is_some() || config.rollover_age.is_some() || config.rollover_size.is_some()
}

/// How a template attaches the lifecycle to new indices.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// It is that of data streams, and not of indices.
    pub(crate) data_streams: bool,
    /// Settings of new indices.
    pub(crate) settings: Map<String, Value>,
    /// The lifecycle that a store has which keeps it in the data stream itself.
    pub(crate) own: Option<Value>,
    /// An alias is rolled over, which is that of the default index.
    rolls_alias: bool,
}

impl Lifecycle {
    /// The names that the template matches: those of the pattern, and of the indices behind an alias
    /// that is rolled over.
    pub(crate) fn patterns(&self, client: &Client) -> Vec<String> {
        let mut patterns = client.exact_patterns(self.data_streams);
        if self.rolls_alias {
            // Those of routes stay.
            let own = index_pattern::exact(client.default_indices().text());
            patterns.retain(|pattern| !own.contains(pattern));
            patterns.push(generations(client));
        }
        patterns
    }
}

/// Installs the policy of indices, and the first index behind an alias that is to be rolled over; or
/// the policy of data streams. Returns how the template attaches it.
pub(crate) async fn install(client: &Client, config: &ElasticsearchConfig, data_streams: bool) -> Lifecycle {
    let mut lifecycle = Lifecycle {
        data_streams,
        ..Lifecycle::default()
    };
    if !is_wanted(config) {
        return lifecycle;
    }
    let default_is_stream = client.destinations.get(DestinationId::DEFAULT).is_data_stream;
    let rolls = config.rollover_age.is_some() || config.rollover_size.is_some();
    let rolls_alias = rolls && !data_streams && !default_is_stream;
    let has_date = client.default_indices().has_date();
    if rolls_alias && has_date {
        tracing::warn!(
            "elasticsearch.rollover_age and rollover_size have no effect: elasticsearch.index has a date, which begins a new index already"
        );
    }
    let rolls_alias = rolls_alias && !has_date;
    let Some(name) = policy_name(client, data_streams) else {
        return lifecycle;
    };
    let policy = Policy {
        // The newest index of a data stream is never deleted, so it has to be rolled over.
        rolls: rolls_alias || data_streams,
        patterns: if rolls_alias {
            vec![generations(client)]
        } else {
            client.exact_patterns(data_streams)
        },
        data_streams,
    };
    let settings = &mut lifecycle.settings;
    match put_policy(client, config, &name, &policy).await {
        Ok(manager) => {
            let alias_setting = match manager {
                Manager::Ilm => "index.lifecycle.rollover_alias",
                Manager::Ism => "index.plugins.index_state_management.rollover_alias",
            };
            if manager == Manager::Ilm {
                settings.insert("index.lifecycle.name".into(), name.into());
            }
            if rolls_alias {
                settings.insert(alias_setting.into(), alias(client).into());
            }
        }
        Err(NoPolicy::NoManager(reason)) if data_streams => {
            tracing::info!(
                %reason,
                "the store has no lifecycle policies; the lifecycle of the data stream itself is used, and the store decides \
                 when to roll over"
            );
            let mut own = Map::new();
            if let Some(retention) = config.retention {
                own.insert("data_retention".into(), time(retention).into());
            }
            lifecycle.own = Some(Value::Object(own));
        }
        Err(NoPolicy::NoManager(reason) | NoPolicy::Refused(reason)) => {
            tracing::error!(policy = %name, %reason, "the lifecycle of indices cannot be set up");
        }
    }
    if rolls_alias {
        lifecycle.rolls_alias = !lifecycle.settings.is_empty();
        create_first_index(client, &lifecycle.settings).await;
    }
    lifecycle
}

/// The names of the indices behind an alias that is rolled over.
fn generations(client: &Client) -> String {
    format!("{}-0*", alias(client))
}

/// [`install`] where the template is the operator's: it must attach the policy.
pub(crate) async fn install_without_template(client: &Client, config: &ElasticsearchConfig) {
    if !is_wanted(config) {
        return;
    }
    for data_streams in [false, true] {
        if client.exact_patterns(data_streams).is_empty() {
            continue;
        }
        let Lifecycle { settings, own, .. } = install(client, config, data_streams).await;
        tracing::warn!(
            ?settings,
            lifecycle = ?own,
            "elasticsearch.template is false: your own template has to attach the lifecycle to new indices"
        );
    }
}

/// The name of the policy of indices or of data streams, after the first of them.
fn policy_name(client: &Client, data_streams: bool) -> Option<String> {
    let names = client.destinations.all_wildcards(data_streams);
    let wildcard = index_pattern::wildcard(names.first()?);
    let name: String = wildcard
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    Some(format!("windrow-{}", name.trim_matches(['-', '_'])))
}

fn alias(client: &Client) -> String {
    client.default_indices().day(0).index.to_string()
}

/// What a policy does besides deleting.
struct Policy {
    rolls: bool,
    /// Names to which ISM attaches it.
    patterns: Vec<String>,
    data_streams: bool,
}

/// Why there is no policy.
enum NoPolicy {
    /// The store has none of the managers.
    NoManager(String),
    Refused(String),
}

/// Installs the policy with the manager that the store has.
async fn put_policy(
    client: &Client,
    config: &ElasticsearchConfig,
    name: &str,
    policy: &Policy,
) -> Result<Manager, NoPolicy> {
    let mut last = String::new();
    let mut is_denied = false;
    for manager in Manager::ALL {
        let path = manager.path(name);
        let found = client.ask(&Request::json(Method::GET, path.clone(), "")).await;
        let found = match found {
            Ok(Response {
                status: 404, body, ..
            }) => {
                // A policy that does not exist; an API that does not is a 400 or 405.
                drop(body);
                None
            }
            Ok(response) => match response.success() {
                Ok(body) => serde_json::from_slice::<Value>(&body).ok(),
                Err(error) => {
                    is_denied |= matches!(error, RequestError::Denied(_));
                    last = error.reason().to_owned();
                    continue;
                }
            },
            Err(error) => return Err(NoPolicy::Refused(error.reason().to_owned())),
        };
        let mut path = path;
        if let Some(found) = &found {
            if !found.to_string().contains(MADE_BY) {
                return Err(NoPolicy::Refused(format!(
                    "the store has a policy of this name that Windrow did not make; it is not changed ({})",
                    manager.path(name)
                )));
            }
            // ISM replaces a policy only at the version that was read.
            if let (Manager::Ism, Some(seq_no), Some(term)) = (
                manager,
                found["_seq_no"].as_u64(),
                found["_primary_term"].as_u64(),
            ) {
                path = format!("{path}?if_seq_no={seq_no}&if_primary_term={term}");
            }
        }
        let body = match manager {
            Manager::Ilm => ilm_policy(config, policy),
            Manager::Ism => ism_policy(config, policy),
        };
        let put = client
            .ask(&Request::json(Method::PUT, path, body.to_string()))
            .await;
        match put.and_then(Response::success) {
            Ok(_) => {
                tracing::info!(policy = name, manager = ?manager, "lifecycle policy installed");
                return Ok(manager);
            }
            Err(
                error @ (RequestError::Denied(_) | RequestError::Malformed(_) | RequestError::Unexpected(_)),
            ) => {
                is_denied |= matches!(error, RequestError::Denied(_)) || found.is_some();
                error.reason().clone_into(&mut last);
            }
            Err(error) => return Err(NoPolicy::Refused(error.reason().to_owned())),
        }
    }
    let reason = format!("neither ILM nor ISM takes it: {last}");
    Err(if is_denied {
        NoPolicy::Refused(reason)
    } else {
        NoPolicy::NoManager(reason)
    })
}

/// Age and size at which an index is rolled over. A data stream is, whatever is configured.
fn rollover(config: &ElasticsearchConfig, policy: &Policy) -> (Option<Duration>, Option<u64>) {
    let (age, size) = (config.rollover_age, config.rollover_size);
    if policy.data_streams && age.is_none() && size.is_none() {
        let age = config.retention.map_or(MAX_ROLLOVER_AGE, |retention| {
            (retention / GENERATIONS_OF_RETENTION).clamp(MIN_ROLLOVER_AGE, MAX_ROLLOVER_AGE)
        });
        return (Some(age), Some(ROLLOVER_BYTES));
    }
    (age, size)
}

/// Mark of a policy that Windrow made.
const MADE_BY: &str = "made by Windrow";

fn ilm_policy(config: &ElasticsearchConfig, policy: &Policy) -> Value {
    let mut phases = Map::new();
    let mut hot = Map::new();
    if policy.rolls {
        let (age, size) = rollover(config, policy);
        let mut rollover = Map::new();
        if let Some(age) = age {
            rollover.insert("max_age".into(), time(age).into());
        }
        if let Some(size) = size {
            rollover.insert("max_primary_shard_size".into(), format!("{size}b").into());
        }
        hot.insert("rollover".into(), Value::Object(rollover));
    }
    phases.insert("hot".into(), json!({"actions": hot}));
    if let Some(retention) = config.retention {
        phases.insert(
            "delete".into(),
            json!({"min_age": time(retention), "actions": {"delete": {}}}),
        );
    }
    json!({"policy": {"phases": phases, "_meta": {"description": MADE_BY}}})
}

fn ism_policy(config: &ElasticsearchConfig, policy: &Policy) -> Value {
    let mut hot = Vec::new();
    if policy.rolls {
        let (age, size) = rollover(config, policy);
        let mut rollover = Map::new();
        if let Some(age) = age {
            rollover.insert("min_index_age".into(), time(age).into());
        }
        if let Some(size) = size {
            rollover.insert("min_primary_shard_size".into(), format!("{size}b").into());
        }
        hot.push(json!({"rollover": rollover}));
    }
    let mut transitions = Vec::new();
    let mut states = Vec::new();
    if let Some(retention) = config.retention {
        transitions.push(json!({"state_name": "delete", "conditions": {"min_index_age": time(retention)}}));
        states.push(json!({"name": "delete", "actions": [{"delete": {}}], "transitions": []}));
    }
    states.insert(
        0,
        json!({"name": "hot", "actions": hot, "transitions": transitions}),
    );
    json!({"policy": {
        "description": MADE_BY,
        "default_state": "hot",
        "states": states,
        "ism_template": [{"index_patterns": policy.patterns, "priority": 200}],
    }})
}

/// A duration in whole minutes as both stores read it.
fn time(duration: Duration) -> String {
    format!("{}m", duration.as_secs().div_ceil(60))
}

/// Creates the first index behind an alias, unless the name is taken.
async fn create_first_index(client: &Client, settings: &Map<String, Value>) {
    let alias = alias(client);
    let exists = client
        .ask(&Request::json(Method::HEAD, format!("/{alias}"), ""))
        .await;
    if !matches!(exists, Ok(Response { status: 404, .. })) {
        return;
    }
    let index = format!("{alias}-000001");
    let aliases = json!({&alias: {"is_write_index": true}});
    let body = json!({"aliases": aliases, "settings": settings});
    let created = client
        .ask(&Request::json(Method::PUT, format!("/{index}"), body.to_string()))
        .await;
    match created.and_then(Response::success) {
        Ok(_) => tracing::info!(%alias, %index, "created the first index behind the alias"),
        Err(error) => {
            tracing::error!(%alias, reason = error.reason(), "the first index behind the alias cannot be created");
        }
    }
}
