//! Targets: what the name of an index stands for.
//!
//! An index needs nothing more. Behind a rollover alias and behind a data stream are several
//! indices, their *generations*: see [`super::generations`].
//!
//! Resolved before the first write to a name and again every minute, since an operator may change
//! it, and at once when a document is in an index that is not known. Without the privilege to look,
//! the name of an index counts as an index; that of a data stream cannot be written to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::client::Client;
use super::generations::{Generation, Generations};
use super::http::{Request, Response};
use super::install::{makes_data_stream, simulate};

/// How long a resolved target is believed.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The same for a name that stands for nothing: the first write gives it a meaning.
const MAX_AGE_MISSING: Duration = Duration::from_secs(1);

/// Names that are remembered.
const MAX_NAMES: usize = 512;

/// Settings that are read of each generation.
const SETTINGS: &str =
    "index.creation_date,index.mode,index.disable_sequence_numbers,index.logsdb.route_on_sort_fields";

/// Beginning of what is said of an absent data stream that would be an index.
pub(crate) const NO_TEMPLATE: &str = "no template of the store makes a data stream of";

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// An index.
    Index,
    /// Nothing yet: an index or a data stream, as the templates of the store say.
    Missing,
    /// An alias or a data stream, and its indices.
    Generations(Arc<Generations>),
    /// Nothing that documents can be merged in; what to do about it.
    Unusable(Arc<str>),
}

/// Resolved targets.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    known: Mutex<HashMap<Box<str>, (Target, Instant)>>,
    generations: AtomicBool,
    unsettled: AtomicBool,
}

impl Target {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Index, Self::Index) | (Self::Missing, Self::Missing) => true,
            (Self::Generations(a), Self::Generations(b)) => a.is_same(b),
            (Self::Unusable(a), Self::Unusable(b)) => a == b,
            _ => false,
        }
    }
}

impl Targets {
    /// What a name stands for, as far as it is known.
    pub(crate) fn known(&self, name: &str) -> Target {
        self.lock()
            .get(name)
            .map_or(Target::Index, |(target, _)| target.clone())
    }

    /// Whether any name stands for several indices, or may do so.
    pub(crate) fn any_generations(&self) -> bool {
        self.generations.load(Relaxed)
    }

    /// Whether a rollover was seen that may be recent.
    pub(crate) fn any_unsettled(&self) -> bool {
        self.unsettled.load(Relaxed)
    }

    /// A write has surprised: the name is resolved again before the next one.
    pub(crate) fn doubt(&self, name: &str) {
        if let Some((_, until)) = self.lock().get_mut(name) {
            *until = Instant::now();
        }
    }

    /// Resolves a name unless that was done in the last minute.
    pub(crate) async fn resolve(&self, client: &Client, name: &str, is_data_stream: bool) -> Target {
        {
            let mut targets = self.lock();
            match targets.get_mut(name) {
                Some((target, until)) if *until > Instant::now() => return target.clone(),
                // Requests that are sent meanwhile use the old one.
                Some((_, until)) => *until = Instant::now() + MAX_AGE,
                None => {}
            }
        }
        self.refresh(client, name, is_data_stream).await
    }

    /// Resolves a name if it is not known to have this index.
    pub(crate) async fn learn(&self, client: &Client, name: &str, is_data_stream: bool, index: &str) {
        let is_known = match self.known(name) {
            Target::Generations(all) => all.contains(index),
            Target::Index | Target::Missing => name == index,
            Target::Unusable(_) => true,
        };
        if !is_known {
            self.refresh(client, name, is_data_stream).await;
        }
    }

    /// Resolves a name.
    pub(crate) async fn refresh(&self, client: &Client, name: &str, is_data_stream: bool) -> Target {
        let target = look(client, name, is_data_stream).await;
        let target = target.unwrap_or_else(|| self.unseen(name, is_data_stream));
        let mut targets = self.lock();
        if targets.len() >= MAX_NAMES && !targets.contains_key(name) {
            targets.clear();
        }
        let before = targets.get(name).map(|(before, _)| before.clone());
        let target = match (target, &before) {
            (Target::Generations(new), Some(Target::Generations(old))) => {
                Target::Generations(Arc::new(new.after(old, Instant::now())))
            }
            (target, _) => target,
        };
        let age = match target {
            Target::Missing => MAX_AGE_MISSING,
            _ => MAX_AGE,
        };
        targets.insert(name.into(), (target.clone(), Instant::now() + age));
        drop(targets);
        if is_data_stream || matches!(target, Target::Generations(_)) {
            self.generations.store(true, Relaxed);
        }
        if let Target::Generations(all) = &target
            && all
                .newest()
                .is_some_and(|newest| all.unsettled_until(newest, Instant::now()).is_some())
        {
            self.unsettled.store(true, Relaxed);
        }
        if before.is_none_or(|before| !before.is_same(&target)) {
            match &target {
                Target::Index | Target::Missing => {}
                Target::Generations(all) => tracing::info!(
                    name,
                    indices = all.len(),
                    newest = all.newest(),
                    "writing to an alias or data stream; traces are joined over its indices"
                ),
                Target::Unusable(reason) => {
                    tracing::error!(index = name, %reason, "documents cannot be written");
                }
            }
        }
        target
    }

    /// What a name counts as that the store does not resolve.
    fn unseen(&self, name: &str, is_data_stream: bool) -> Target {
        let known = self.lock().get(name).map(|(target, _)| target.clone());
        known.unwrap_or_else(|| {
            if is_data_stream {
                Target::Unusable(
                    format!(
                        "what the data stream {name} consists of cannot be seen, and without that a trace could become \
                         several documents; give the user the index privilege view_index_metadata"
                    )
                    .into(),
                )
            } else {
                Target::Index
            }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, (Target, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the store; `None` if it does not say.
pub(crate) async fn look(client: &Client, name: &str, is_data_stream: bool) -> Option<Target> {
    let path = format!("/_resolve/index/{name}?expand_wildcards=all");
    let answer = client.ask(&Request::json(Method::GET, path, Bytes::new())).await;
    let answer = answer.ok()?;
    let resolved: Resolved = if answer.status == 404 {
        // Of a store without this request as well.
        let is_missing = serde_json::from_slice::<Value>(&answer.body)
            .is_ok_and(|answer| answer["error"]["type"] == "index_not_found_exception");
        if !is_missing {
            return Some(Target::Index);
        }
        Resolved {
            indices: Some(Vec::new()),
            ..Resolved::default()
        }
    } else {
        serde_json::from_slice(&answer.success().ok()?).ok()?
    };
    let mut streams = resolved.data_streams.into_iter();
    if let Some(stream) = streams.find(|stream| stream.name == name) {
        return data_stream(client, stream).await;
    }
    let mut aliases = resolved.aliases.into_iter();
    if let Some(alias) = aliases.find(|alias| alias.name == name) {
        if is_data_stream {
            return Some(not_a_stream(name, "an alias"));
        }
        return self::alias(client, alias).await;
    }
    let is_missing = resolved.indices.is_some_and(|indices| indices.is_empty());
    match (is_missing, is_data_stream) {
        (true, true) => Some(absent_stream(client, name).await),
        (true, false) => Some(Target::Missing),
        (false, true) => Some(not_a_stream(name, "an index")),
        (false, false) => Some(Target::Index),
    }
}

fn not_a_stream(name: &str, what: &str) -> Target {
    Target::Unusable(
        format!(
            "{name} is {what}, and elasticsearch.data_stream names it; remove it so that the data stream can be made, or name it \
             in elasticsearch.index"
        )
        .into(),
    )
}

/// A data stream that is to be made by the first write, by a template.
async fn absent_stream(client: &Client, name: &str) -> Target {
    let Some(simulation) = simulate(client, name).await else {
        return Target::Missing;
    };
    if let Some(what) = simulation.settings().and_then(unfit) {
        return Target::Unusable(
            format!("a template of the store would make {name} with {what}; change it, or raise the priority of Windrow's own")
                .into(),
        );
    }
    if makes_data_stream(client, name, &simulation).await {
        Target::Missing
    } else {
        Target::Unusable(
            format!(
                "{NO_TEMPLATE} {name}; let Windrow install its own (elasticsearch.template, \
                 privilege manage_index_templates), or make one with \"data_stream\": {{}}"
            )
            .into(),
        )
    }
}

async fn data_stream(client: &Client, stream: ResolvedStream) -> Option<Target> {
    let ResolvedStream {
        name,
        backing_indices,
    } = stream;
    let settings = settings(client, &name).await?;
    if let Some(newest) = backing_indices.last()
        && let Some(what) = settings.get(newest).and_then(|index| unfit(&index.settings))
    {
        return Some(Target::Unusable(
            format!(
                "the data stream {name} has {what}; change its template and roll it over, or name another data stream"
            )
            .into(),
        ));
    }
    // The store names the oldest first. Older ones that are unfit have no documents of Windrow.
    let all = backing_indices.into_iter().filter_map(|index| {
        let found = settings.get(&index);
        found
            .is_none_or(|found| unfit(&found.settings).is_none())
            .then(|| generation(index, found))
    });
    let all = Generations::new(all.collect(), None, client.rollover_settle, Instant::now());
    Some(Target::Generations(Arc::new(all)))
}

async fn alias(client: &Client, alias: ResolvedAlias) -> Option<Target> {
    let ResolvedAlias { name, indices } = alias;
    let aliases: HashMap<String, IndexAliases> = get(client, format!("/_alias/{name}")).await?;
    let writes = |index: &str| {
        let own = aliases.get(index).and_then(|index| index.aliases.get(&name));
        own.is_some_and(|alias| alias.is_write_index)
    };
    // The only index of an alias takes writes unless it says otherwise.
    if indices.len() > 1 && !indices.iter().any(|index| writes(index)) {
        return Some(Target::Unusable(
            format!(
                "{name} is an alias of {} indices without a write index; set is_write_index for the newest of them",
                indices.len()
            )
            .into(),
        ));
    }
    let settings = settings(client, &name).await?;
    let mut all: Vec<Generation> = indices
        .into_iter()
        .map(|index| {
            let found = settings.get(&index);
            generation(index, found)
        })
        .collect();
    // The write index is the newest, whatever its age: an operator may have restored an old one.
    all.sort_by(|a, b| {
        (writes(&a.index), a.created_ms, &a.index).cmp(&(writes(&b.index), b.created_ms, &b.index))
    });
    let all = Generations::new(all, None, client.rollover_settle, Instant::now());
    Some(Target::Generations(Arc::new(all)))
}

fn generation(index: String, found: Option<&IndexSettings>) -> Generation {
    let date = found.and_then(|found| found.settings.pointer("/index/creation_date"));
    let created_ms = date.and_then(Value::as_str).and_then(|date| date.parse().ok());
    Generation {
        index: index.into(),
        created_ms: created_ms.unwrap_or(0),
    }
}

/// Why indices with these settings cannot hold one document per trace.
pub(crate) fn unfit(settings: &Value) -> Option<&'static str> {
    let is = |path: &str, wanted: &str| {
        let value = settings.pointer(path);
        // A boolean of a setting may come back as a string.
        value.is_some_and(|value| value == wanted || wanted == "true" && *value == Value::Bool(true))
    };
    if is("/index/mode", "time_series") {
        return Some(
            "index.mode \"time_series\" (TSDB), where the store makes ids of dimensions and times, so that a trace has none",
        );
    }
    if is("/index/disable_sequence_numbers", "true") {
        return Some(
            "index.disable_sequence_numbers, without which parts of a trace cannot be joined safely",
        );
    }
    if is("/index/logsdb/route_on_sort_fields", "true") {
        return Some(
            "index.logsdb.route_on_sort_fields, where the store makes ids of sort fields, so that a trace has none",
        );
    }
    None
}

async fn settings(client: &Client, name: &str) -> Option<HashMap<String, IndexSettings>> {
    get(
        client,
        format!("/{name}/_settings/{SETTINGS}?expand_wildcards=all"),
    )
    .await
}

/// The answer to a request that may fail for want of privileges.
async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: String) -> Option<T> {
    let request = Request::json(Method::GET, path, Bytes::new());
    let answer = client.ask(&request).await.and_then(Response::success);
    serde_json::from_slice(&answer.ok()?).ok()
}

#[derive(Deserialize, Default)]
struct Resolved {
    /// `None` of a store that says nothing.
    indices: Option<Vec<Value>>,
    #[serde(default)]
    aliases: Vec<ResolvedAlias>,
    #[serde(default)]
    data_streams: Vec<ResolvedStream>,
}

#[derive(Deserialize)]
struct ResolvedAlias {
    name: String,
    #[serde(default)]
    indices: Vec<String>,
}

#[derive(Deserialize)]
struct ResolvedStream {
    name: String,
    #[serde(default)]
    backing_indices: Vec<String>,
}

#[derive(Deserialize)]
struct IndexAliases {
    #[serde(default)]
    aliases: HashMap<String, AliasEntry>,
}

#[derive(Deserialize)]
struct AliasEntry {
    #[serde(default)]
    is_write_index: bool,
}

#[derive(Deserialize)]
struct IndexSettings {
    #[serde(default)]
    settings: Value,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_kept_is_named() {
        for (settings, what) in [
            (json!({"index": {"mode": "time_series"}}), Some("TSDB")),
            (
                json!({"index": {"disable_sequence_numbers": "true"}}),
                Some("disable_sequence_numbers"),
            ),
            (
                json!({"index": {"logsdb": {"route_on_sort_fields": true}}}),
                Some("route_on_sort_fields"),
            ),
            (
                json!({"index": {"mode": "logsdb", "logsdb": {"route_on_sort_fields": "false"}}}),
                None,
            ),
            (
                json!({"index": {"mode": "standard", "disable_sequence_numbers": false}}),
                None,
            ),
            (json!({}), None),
        ] {
            match (unfit(&settings), what) {
                (Some(said), Some(what)) => assert!(said.contains(what), "{said}"),
                (said, what) => assert_eq!(said, what, "{settings}"),
            }
        }
    }
}
