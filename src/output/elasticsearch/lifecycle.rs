//! Lifecycle of indices: a policy that deletes old ones and rolls an alias over, with what the
//! store has: ILM of Elasticsearch or ISM of OpenSearch.
//!
//! Never changes a policy that Windrow did not make.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::http::{Request, Response};
use super::index_pattern;
use super::outcome::RequestError;
use crate::config::{ElasticsearchConfig, IndexTemplate};

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

/// Installs the policy, and the first index behind an alias that is to be rolled over. Returns the
/// settings of the template that attach the policy to new indices.
pub(crate) async fn install(client: &Client, config: &ElasticsearchConfig) -> Map<String, Value> {
    let mut settings = Map::new();
    if !is_wanted(config) {
        return settings;
    }
    let name = policy_name(client);
    let rolls = config.rollover_age.is_some() || config.rollover_size.is_some();
    if rolls && client.default_indices().has_date() {
        tracing::warn!(
            "elasticsearch.rollover_age and rollover_size have no effect: elasticsearch.index has a date, which begins a new index already"
        );
    }
    let rolls = rolls && !client.default_indices().has_date();
    match put_policy(client, config, &name, rolls).await {
        Ok(Manager::Ilm) => {
            settings.insert("index.lifecycle.name".into(), name.into());
            if rolls {
                settings.insert("index.lifecycle.rollover_alias".into(), alias(client).into());
            }
        }
        Ok(Manager::Ism) if rolls => {
            settings.insert(
                "index.plugins.index_state_management.rollover_alias".into(),
                alias(client).into(),
            );
        }
        Ok(Manager::Ism) => {}
        Err(reason) => tracing::error!(policy = %name, %reason, "the lifecycle of indices cannot be set up"),
    }
    if rolls {
        create_first_index(client, &settings).await;
    }
    settings
}

/// The names that the template matches: those of the pattern, and of the indices behind an alias
/// that is rolled over.
pub(crate) fn patterns(client: &Client, template: &IndexTemplate) -> Vec<String> {
    let mut patterns = client.exact_patterns();
    if template
        .lifecycle
        .keys()
        .any(|setting| setting.ends_with("rollover_alias"))
    {
        // Those of routes stay.
        let own = index_pattern::exact(client.default_indices().text());
        patterns.retain(|pattern| !own.contains(pattern));
        patterns.push(generations(client));
    }
    patterns
}

/// The names of the indices behind an alias that is rolled over.
fn generations(client: &Client) -> String {
    format!("{}-0*", alias(client))
}

/// [`install`] where the template is the operator's: it must attach the policy.
pub(crate) async fn install_without_template(client: &Client, config: &ElasticsearchConfig) {
    if is_wanted(config) {
        let settings = install(client, config).await;
        tracing::warn!(
            ?settings,
            "elasticsearch.template is false: your own template has to attach the lifecycle policy to new indices"
        );
    }
}

fn policy_name(client: &Client) -> String {
    let wildcard = client.default_wildcard();
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
    format!("windrow-{}", name.trim_matches(['-', '_']))
}

fn alias(client: &Client) -> String {
    client.default_indices().day(0).index.to_string()
}

/// Installs the policy with the manager that the store has.
async fn put_policy(
    client: &Client,
    config: &ElasticsearchConfig,
    name: &str,
    rolls: bool,
) -> Result<Manager, String> {
    let mut last = String::new();
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
                    last = error.reason().to_owned();
                    continue;
                }
            },
            Err(error) => return Err(error.reason().to_owned()),
        };
        let mut path = path;
        if let Some(found) = &found {
            if !found.to_string().contains(MADE_BY) {
                return Err(format!(
                    "the store has a policy of this name that Windrow did not make; it is not changed ({})",
                    manager.path(name)
                ));
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
            Manager::Ilm => ilm_policy(config, rolls),
            Manager::Ism if rolls => ism_policy(config, rolls, &[generations(client)]),
            Manager::Ism => ism_policy(config, rolls, &client.exact_patterns()),
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
                error.reason().clone_into(&mut last);
            }
            Err(error) => return Err(error.reason().to_owned()),
        }
    }
    Err(format!("neither ILM nor ISM takes it: {last}"))
}

/// Mark of a policy that Windrow made.
const MADE_BY: &str = "made by Windrow";

fn ilm_policy(config: &ElasticsearchConfig, rolls: bool) -> Value {
    let mut phases = Map::new();
    let mut hot = Map::new();
    if rolls {
        let mut rollover = Map::new();
        if let Some(age) = config.rollover_age {
            rollover.insert("max_age".into(), time(age).into());
        }
        if let Some(size) = config.rollover_size {
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

fn ism_policy(config: &ElasticsearchConfig, rolls: bool, patterns: &[String]) -> Value {
    let mut hot = Vec::new();
    if rolls {
        let mut rollover = Map::new();
        if let Some(age) = config.rollover_age {
            rollover.insert("min_index_age".into(), time(age).into());
        }
        if let Some(size) = config.rollover_size {
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
        "ism_template": [{"index_patterns": patterns, "priority": 200}],
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
