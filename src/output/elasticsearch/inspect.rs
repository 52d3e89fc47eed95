//! Inspection of the store for `windrow check --connect`: version, privileges, target, template,
//! disk, clock. Changes nothing.

use std::collections::HashMap;
use std::fmt;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Client;
use super::http::{Request, Response};
use super::install::{Simulation, example, simulate, stream_template};
use super::target::{NO_TEMPLATE, Target, look};
use super::{Elasticsearch, lifecycle};
use crate::config::{ElasticsearchConfig, OnConflict};

/// Clocks that differ by more are reported.
const MAX_CLOCK_DIFFERENCE_MS: i64 = 2_000;

/// Share of a disk that must be free: at 10 % Elasticsearch moves shards away, at 5 % it stops
/// writes.
const MIN_FREE_PERCENT: u64 = 15;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// As it should be.
    Good(String),
    /// It works, but not as wanted.
    Warning(String),
    /// Documents are not written like this.
    Problem(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good(text) => write!(f, "ok       {text}"),
            Self::Warning(text) => write!(f, "warning  {text}"),
            Self::Problem(text) => write!(f, "problem  {text}"),
        }
    }
}

impl Elasticsearch {
    /// Looks at the configured store.
    pub async fn inspect(&self) -> Vec<Finding> {
        let client = &self.upserter.client;
        let mut findings = match client.ask(&Request::json(Method::GET, "/", "")).await {
            Ok(answer) => vec![version(answer)],
            Err(error) => vec![unusable(error.reason())],
        };
        if let [Finding::Problem(_)] = findings[..] {
            return findings;
        }
        findings.extend(targets(client).await);
        findings.extend(templates(client, &self.config).await);
        findings.extend(privileges(client, &self.config).await);
        findings.extend(nodes(client).await);
        findings
    }
}

fn unusable(reason: &str) -> Finding {
    Finding::Problem(format!("the store cannot be used: {reason}"))
}

/// What the root of the store says about itself.
fn version(answer: Response) -> Finding {
    let status = answer.status;
    let is_json = serde_json::from_slice::<Value>(&answer.body).is_ok();
    match answer.success() {
        Ok(body) => match serde_json::from_slice(&body) {
            Ok(answer) => product(&answer),
            Err(_) => unusable("it answers something that is not Elasticsearch or OpenSearch"),
        },
        // Some may write without seeing the version.
        Err(_) if is_json && matches!(status, 403 | 405) => {
            Finding::Warning("the version of the store cannot be seen (privilege monitor)".into())
        }
        Err(error) => unusable(error.reason()),
    }
}

async fn get(client: &Client, path: &str) -> Result<Value, String> {
    let response = client.ask(&Request::json(Method::GET, path, "")).await;
    let body = response
        .and_then(Response::success)
        .map_err(|error| error.reason().to_owned())?;
    serde_json::from_slice(&body)
        .map_err(|_| "it answers something that is not Elasticsearch or OpenSearch".to_owned())
}

fn product(answer: &Value) -> Finding {
    let text = |path: &str| answer.pointer(path).and_then(Value::as_str);
    let Some(number) = text("/version/number") else {
        return Finding::Problem("it answers, but names no version: not Elasticsearch or OpenSearch".into());
    };
    let name = match text("/version/distribution") {
        Some("opensearch") => "OpenSearch",
        _ => "Elasticsearch",
    };
    let cluster = text("/cluster_name").unwrap_or("?");
    let said = format!("{name} {number}, cluster {cluster:?}");
    let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let oldest = if name == "OpenSearch" { (1, 0) } else { (7, 10) };
    if version < oldest {
        Finding::Warning(format!("{said}: older than what Windrow is tested with"))
    } else {
        Finding::Good(said)
    }
}

/// What the configured names stand for: those of indices and those of data streams.
async fn targets(client: &Client) -> Vec<Finding> {
    let mut findings = Vec::new();
    for data_streams in [false, true] {
        if let Some(name) = example(client, data_streams) {
            findings.push(target(client, &name, data_streams).await);
        }
    }
    findings
}

async fn target(client: &Client, name: &str, is_data_stream: bool) -> Finding {
    match look(client, name, is_data_stream).await {
        Some(Target::Index) => {
            let path = format!("/{name}?filter_path=*.settings.index.blocks,*.aliases");
            match get(client, &path).await {
                Ok(found) if found.pointer(&format!("/{name}/settings/index/blocks")).is_some() => {
                    Finding::Problem(format!("index {name} has a block: it takes no documents"))
                }
                Ok(_) => Finding::Good(format!("index {name} exists")),
                Err(_) => Finding::Good(format!("index {name} is made by the first document")),
            }
        }
        Some(Target::Missing) if is_data_stream => {
            Finding::Good(format!("data stream {name} is made by the first document"))
        }
        Some(Target::Missing) => Finding::Good(format!("index {name} is made by the first document")),
        Some(Target::Generations(all)) => Finding::Good(format!(
            "{name} is {} of {} indices, over which traces are joined; documents go to {}",
            if is_data_stream {
                "a data stream"
            } else {
                "an alias or data stream"
            },
            all.len(),
            all.newest().unwrap_or("none of them"),
        )),
        // Windrow's own template is installed at the start.
        Some(Target::Unusable(reason)) if is_data_stream && reason.starts_with(NO_TEMPLATE) => {
            Finding::Warning(reason.to_string())
        }
        Some(Target::Unusable(reason)) => Finding::Problem(reason.to_string()),
        None if is_data_stream => Finding::Problem(format!(
            "what {name} consists of cannot be seen (privilege view_index_metadata), without which a trace could become several \
             documents"
        )),
        None => Finding::Warning(format!(
            "what {name} stands for cannot be seen (privilege view_index_metadata): it counts as an index"
        )),
    }
}

async fn templates(client: &Client, config: &ElasticsearchConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for data_streams in [false, true] {
        if let Some(name) = example(client, data_streams) {
            findings.extend(template(client, config, &name, data_streams).await);
        }
    }
    findings
}

async fn template(
    client: &Client,
    config: &ElasticsearchConfig,
    example: &str,
    data_streams: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(simulation) = simulate(client, example).await else {
        return vec![Finding::Warning(
            "what mapping new indices get cannot be seen (privilege manage_index_templates)".into(),
        )];
    };
    let own = config.template.as_ref().map(|template| {
        if data_streams {
            stream_template(&template.name)
        } else {
            template.name.clone()
        }
    });
    findings.push(match (&own, simulation.is_fit()) {
        (_, true) => Finding::Good("new indices get a mapping with what Windrow needs".into()),
        (Some(name), false) => Finding::Good(format!(
            "new indices get no mapping of Windrow yet; template {name:?} for {} is installed at the start",
            client.exact_patterns(data_streams).join(", ")
        )),
        (None, false) => Finding::Warning(
            "new indices get no mapping of Windrow, and elasticsearch.template is false: refused fields and \
             windrow.state are indexed as text"
                .into(),
        ),
    });
    findings.extend(overlapping(own.as_deref(), &simulation));
    findings
}

fn overlapping(own: Option<&str>, simulation: &Simulation) -> Option<Finding> {
    let others: Vec<&str> = simulation
        .overlapping
        .iter()
        .map(|overlap| overlap.name.as_str())
        .filter(|name| Some(*name) != own)
        .collect();
    (!others.is_empty()).then(|| {
        Finding::Warning(format!(
            "other templates match the same names; the one with the highest priority wins: {}",
            others.join(", ")
        ))
    })
}

/// The privileges that the configured features need: of the cluster, and of the indices.
fn needed(config: &ElasticsearchConfig) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut cluster = vec!["monitor"];
    if config.template.is_some() {
        cluster.push("manage_index_templates");
    }
    if lifecycle::is_wanted(config) {
        cluster.push("manage_ilm");
    }
    let mut index = vec![
        "create_index",
        "create",
        "index",
        "read",
        "delete",
        "view_index_metadata",
    ];
    if config.on_conflict == OnConflict::Unmapped
        || config.rollover_age.is_some()
        || config.rollover_size.is_some()
    {
        index.push("manage");
    }
    (cluster, index)
}

async fn privileges(client: &Client, config: &ElasticsearchConfig) -> Vec<Finding> {
    let (cluster, index) = needed(config);
    let names = [client.exact_patterns(false), client.exact_patterns(true)].concat();
    let body = json!({"cluster": cluster, "index": [{"names": names, "privileges": index}]});
    let request = Request::json(Method::POST, "/_security/user/_has_privileges", body.to_string());
    let answer = match client.ask(&request).await.and_then(Response::success) {
        Ok(answer) => serde_json::from_slice::<Value>(&answer).unwrap_or_default(),
        Err(_) => {
            return vec![Finding::Good(
                "privileges are not checked: the store has no security, or another one".into(),
            )];
        }
    };
    if answer["has_all_requested"] == true {
        return vec![Finding::Good("all privileges are there".into())];
    }
    let lacking = |object: Option<&Value>| -> Vec<String> {
        let pairs = object.and_then(Value::as_object).into_iter().flatten();
        pairs
            .filter(|(_, has)| **has == false)
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut missing: Vec<String> = lacking(answer.get("cluster"));
    let indices = answer
        .get("index")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    for (_, privileges) in indices {
        missing.extend(lacking(Some(privileges)));
    }
    missing.sort();
    missing.dedup();
    let needed_to_write = ["create", "index", "read", "delete"];
    let (needed, wanted): (Vec<String>, Vec<String>) = missing
        .into_iter()
        .partition(|name| needed_to_write.contains(&name.as_str()));
    let mut findings = Vec::new();
    if !needed.is_empty() {
        findings.push(Finding::Problem(format!(
            "privileges are missing that every document needs: {}",
            needed.join(", ")
        )));
    }
    if !wanted.is_empty() {
        findings.push(Finding::Warning(format!(
            "privileges are missing that a feature needs (docs/elasticsearch.md): {}",
            wanted.join(", ")
        )));
    }
    findings
}

#[derive(Deserialize)]
struct NodesWire {
    #[serde(default)]
    nodes: HashMap<String, NodeWire>,
}

#[derive(Deserialize)]
struct NodeWire {
    #[serde(default)]
    name: String,
    #[serde(default)]
    timestamp: i64,
    fs: Option<FsWire>,
}

#[derive(Deserialize)]
struct FsWire {
    total: Option<FsTotalWire>,
}

#[derive(Deserialize)]
struct FsTotalWire {
    #[serde(default)]
    total_in_bytes: u64,
    #[serde(default)]
    available_in_bytes: u64,
}

async fn nodes(client: &Client) -> Vec<Finding> {
    let path = "/_nodes/stats/fs?filter_path=nodes.*.name,nodes.*.timestamp,nodes.*.fs.total";
    let asked = Timestamp::now().as_millisecond();
    let Ok(answer) = get(client, path).await else {
        return vec![Finding::Warning(
            "disks and clocks of the nodes cannot be seen (privilege monitor)".into(),
        )];
    };
    let answered = Timestamp::now().as_millisecond();
    let wire: NodesWire = match serde_json::from_value(answer) {
        Ok(wire) => wire,
        Err(error) => {
            return vec![Finding::Warning(format!(
                "the answer about nodes cannot be read: {error}"
            ))];
        }
    };
    let mut findings = Vec::new();
    for node in wire.nodes.values() {
        let name = &node.name;
        if let Some(total) = node.fs.as_ref().and_then(|fs| fs.total.as_ref())
            && let Some(percent) = (100 * total.available_in_bytes).checked_div(total.total_in_bytes)
        {
            let said = format!(
                "node {name}: {percent} % of its disk is free, {} of {} GiB",
                total.available_in_bytes >> 30,
                total.total_in_bytes >> 30
            );
            findings.push(if percent < MIN_FREE_PERCENT {
                Finding::Warning(format!("{said}; Elasticsearch stops writes when 5 % are left"))
            } else {
                Finding::Good(said)
            });
        }
        if node.timestamp > 0 {
            // Its clock was read between question and answer.
            let difference = (asked - node.timestamp).max(node.timestamp - answered).max(0);
            findings.push(if difference > MAX_CLOCK_DIFFERENCE_MS {
                Finding::Warning(format!(
                    "node {name}: its clock differs from this machine's by {difference} ms"
                ))
            } else {
                Finding::Good(format!("node {name}: its clock agrees with this machine's"))
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_named() {
        let elasticsearch = json!({"cluster_name": "c", "version": {"number": "8.18.8"}});
        assert_eq!(
            product(&elasticsearch),
            Finding::Good("Elasticsearch 8.18.8, cluster \"c\"".into())
        );
        let opensearch = json!({"version": {"number": "2.19.5", "distribution": "opensearch"}});
        assert!(matches!(product(&opensearch), Finding::Good(said) if said.contains("OpenSearch 2.19.5")));
        assert!(matches!(product(&json!({"hello": 1})), Finding::Problem(_)));
        let old = json!({"version": {"number": "6.8.0"}});
        assert!(matches!(product(&old), Finding::Warning(_)));
    }
}
