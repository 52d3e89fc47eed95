//! Targets: what the name of an index stands for, and which indices behind it can hold a trace.
//!
//! An index needs nothing more. Behind a rollover alias are several indices, its *generations*: new
//! documents go to the newest, and a part of the same trace may be in an older one. A data stream accepts no changes of documents and is refused.
//!
//! Resolved before the first write to a name and again every minute, since an operator may change
//! it. Without the privilege to look, a name counts as an index.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use super::client::Client;
use super::http::Request;

/// How long a resolved target is believed.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Clocks of shippers and of the cluster may differ by this much.
const CLOCK_MARGIN_MS: i64 = 60_000;

/// Names that are remembered.
const MAX_NAMES: usize = 512;

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// An index, or nothing yet.
    Index,
    /// An alias, and its indices, the oldest first.
    Generations(Arc<[Generation]>),
    /// Nothing that documents can be merged in; what to do about it.
    Unusable(Arc<str>),
}

/// One index behind a rollover alias.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) index: Box<str>,
    /// When it was created, Unix ms; then the one before it was rolled over.
    created_ms: i64,
}

/// Resolved targets.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    known: Mutex<HashMap<Box<str>, (Target, Instant)>>,
    generations: AtomicBool,
}

impl Target {
    /// The generations that can hold a part of a trace whose part in hand begins at `first_ns`: the
    /// one that was the newest when the trace may have begun, and all after it.
    pub(crate) fn candidates(&self, first_ns: i64, life: Duration) -> Vec<&str> {
        let Self::Generations(all) = self else {
            return Vec::new();
        };
        let life_ms = i64::try_from(life.as_millis()).unwrap_or(i64::MAX);
        let begin_ms = (first_ns / 1_000_000)
            .saturating_sub(life_ms)
            .saturating_sub(CLOCK_MARGIN_MS);
        let later = all
            .iter()
            .filter(|generation| generation.created_ms > begin_ms)
            .count();
        let start = all.len().saturating_sub(later + 1);
        all[start..].iter().map(|generation| &*generation.index).collect()
    }
}

impl Targets {
    /// What a name stands for, as far as it is known.
    pub(crate) fn known(&self, name: &str) -> Target {
        let targets = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        targets
            .get(name)
            .map_or(Target::Index, |(target, _)| target.clone())
    }

    /// Whether any name stands for several indices.
    pub(crate) fn any_generations(&self) -> bool {
        self.generations.load(Relaxed)
    }

    /// A write has surprised: the name is resolved again before the next one.
    pub(crate) fn doubt(&self, name: &str) {
        let mut targets = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, until)) = targets.get_mut(name) {
            *until = Instant::now();
        }
    }

    /// Resolves a name unless that was done in the last minute.
    pub(crate) async fn resolve(&self, client: &Client, name: &str) -> Target {
        {
            let mut targets = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            match targets.get_mut(name) {
                Some((target, until)) if *until > Instant::now() => return target.clone(),
                // Requests that are sent meanwhile use the old one.
                Some((_, until)) => *until = Instant::now() + MAX_AGE,
                None => {}
            }
        }
        let target = look(client, name).await.unwrap_or_else(|| self.known(name));
        let mut targets = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.len() >= MAX_NAMES {
            targets.clear();
        }
        let before = targets.insert(name.into(), (target.clone(), Instant::now() + MAX_AGE));
        if before.map(|(before, _)| before) != Some(target.clone()) {
            match &target {
                Target::Index => {}
                Target::Generations(all) => {
                    self.generations.store(true, Relaxed);
                    tracing::info!(
                        alias = name,
                        indices = all.len(),
                        "writing to an alias; traces are joined over its indices"
                    );
                }
                Target::Unusable(reason) => {
                    tracing::error!(index = name, %reason, "documents cannot be written");
                }
            }
        }
        target
    }
}

/// Asks the store; `None` if it does not say.
pub(crate) async fn look(client: &Client, name: &str) -> Option<Target> {
    let path = format!("/_resolve/index/{name}?expand_wildcards=all");
    let answer = client
        .ask(&Request::json(Method::GET, path, Bytes::new()))
        .await
        .ok()?;
    if answer.status == 404 {
        return Some(Target::Index);
    }
    let resolved: Resolved = serde_json::from_slice(&answer.success().ok()?).ok()?;
    if resolved.data_streams.iter().any(|stream| stream.name == name) {
        return Some(Target::Unusable(
            format!(
                "{name} is a data stream, which accepts no changes of documents, and late lines change them; \
                 set elasticsearch.index to an index, or remove the stream and the template with \"data_stream\""
            )
            .into(),
        ));
    }
    let Some(alias) = resolved.aliases.into_iter().find(|alias| alias.name == name) else {
        return Some(Target::Index);
    };
    let aliases: HashMap<String, IndexAliases> = get(client, format!("/_alias/{name}")).await?;
    let writes = |index: &String| {
        let own = aliases.get(index).and_then(|index| index.aliases.get(name));
        own.is_some_and(|alias| alias.is_write_index)
    };
    // The only index of an alias takes writes unless it says otherwise.
    if alias.indices.len() > 1 && !alias.indices.iter().any(writes) {
        return Some(Target::Unusable(
            format!(
                "{name} is an alias of {} indices without a write index; set is_write_index for the newest of them",
                alias.indices.len()
            )
            .into(),
        ));
    }
    let settings: HashMap<String, IndexSettings> = get(
        client,
        format!("/{name}/_settings/index.creation_date?expand_wildcards=all"),
    )
    .await?;
    let mut all: Vec<(bool, Generation)> = alias
        .indices
        .iter()
        .map(|index| {
            let date = settings
                .get(index)
                .map(|settings| &settings.settings.index.creation_date);
            let created_ms = date.and_then(|date| date.parse().ok()).unwrap_or(0);
            let index = Box::from(index.as_str());
            (writes(&String::from(&*index)), Generation { index, created_ms })
        })
        .collect();
    // The write index is the newest, whatever its age: an operator may have restored an old one.
    all.sort_by(|(a_writes, a), (b_writes, b)| {
        (a_writes, a.created_ms, &a.index).cmp(&(b_writes, b.created_ms, &b.index))
    });
    Some(Target::Generations(
        all.into_iter().map(|(_, generation)| generation).collect(),
    ))
}

/// The answer to a request that may fail for want of privileges.
async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: String) -> Option<T> {
    let response = client
        .ask(&Request::json(Method::GET, path, Bytes::new()))
        .await
        .ok()?;
    serde_json::from_slice(&response.success().ok()?).ok()
}

#[derive(Deserialize)]
struct Resolved {
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
    settings: IndexSettingsInner,
}

#[derive(Deserialize)]
struct IndexSettingsInner {
    index: CreationDate,
}

#[derive(Deserialize)]
struct CreationDate {
    creation_date: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_can_be_in_the_generation_of_its_begin_and_in_all_after_it() {
        let hour = 3_600_000;
        let all: Vec<_> = (0..4)
            .map(|n| Generation {
                index: format!("g{n}").into(),
                created_ms: n * 10 * hour,
            })
            .collect();
        let target = Target::Generations(all.into());
        let life = Duration::from_secs(3600);
        let at = |hours: i64| target.candidates(hours * hour * 1_000_000, life);
        assert_eq!(at(45), ["g3"]);
        assert_eq!(at(31), ["g2", "g3"], "within a trace's life of the rollover");
        assert_eq!(at(15), ["g1", "g2", "g3"], "a late line");
        assert_eq!(at(0), ["g0", "g1", "g2", "g3"]);
        assert!(Target::Index.candidates(0, life).is_empty());
    }
}
