//! Tests of the Elasticsearch output, against a fake cluster with faults and against a real one.

mod any_names;
mod completed;
mod connection;
mod copies;
mod documents;
mod fake;
mod faults;
mod lifecycle;
mod line_counters;
mod merge;
mod midnight;
mod real;
mod real_search;
mod rendered;
mod stores;
mod tls;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::claim::RecordClaim;
use crate::config::{Auth, ClientCert, IndexTemplate, Secret};
use crate::output::dead_letter::{self, DeadLetter};
use crate::output::{
    Batch, BatchBuffer, DocumentMeta, DocumentSpan, LineCounters, MemoryCharge, SealedDocument,
};
use windrow_trace::{BoundedUnion, Union, UnionError};

/// 2026-11-21T09:20:00Z
const NOON: i64 = 20_778 * 86_400_000_000_000 + 33_600_000_000_000;
/// 2026-11-21T00:00:00Z
const MIDNIGHT: i64 = 20_778 * 86_400_000_000_000;
const TODAY: &str = "requests-2026-11-21";
const YESTERDAY: &str = "requests-2026-11-20";

/// A bound on every wait; a test that needs it fails.
const LONG: Duration = Duration::from_secs(60);

/// A merge rule of the tests' own: a document holds parts by name, the union holds all of both.
fn union(existing: &[u8], ours: &[u8], _id: &str, _max_bytes: usize) -> Result<BoundedUnion, UnionError> {
    let not_ours = || UnionError {
        which: "existing",
        why: "it has no parts".into(),
    };
    let (mut existing, ours): (Value, Value) = (
        serde_json::from_slice(existing).unwrap(),
        serde_json::from_slice(ours).unwrap(),
    );
    let parts = existing
        .get_mut("parts")
        .and_then(Value::as_object_mut)
        .ok_or_else(not_ours)?;
    let before = parts.len();
    for (id, part) in ours["parts"].as_object().ok_or_else(not_ours)? {
        parts.insert(id.clone(), part.clone());
    }
    let new_lines = (parts.len() - before) as u32;
    if new_lines == 0 {
        Ok(BoundedUnion::without_continuations(Union::Unchanged))
    } else {
        Ok(BoundedUnion::without_continuations(Union::Merged {
            document: existing.to_string().into_bytes(),
            new_lines,
        }))
    }
}

fn part_ids(json: &[u8]) -> Vec<String> {
    let document: Value = serde_json::from_slice(json).unwrap();
    document["parts"]
        .as_object()
        .map_or(Vec::new(), |parts| parts.keys().cloned().collect())
}

const RULES: DocumentFormat = DocumentFormat {
    union,
    part_ids,
    max_bytes: usize::MAX,
    unmap: windrow_trace::unmap,
};

/// A configuration with short delays.
fn quick(url: &str) -> ElasticsearchConfig {
    ElasticsearchConfig {
        urls: vec![url.into()],
        bulk_delay: Duration::from_millis(5),
        backoff_base: Duration::from_millis(2),
        retry_max_wait: Duration::from_millis(50),
        blocked_retry: Duration::from_millis(60),
        request_timeout: Duration::from_secs(30),
        trace_life: Duration::from_secs(600),
        rollover_settle: Duration::from_millis(300),
        ..Default::default()
    }
}

/// Which documents were confirmed, and how often.
#[derive(Clone, Default)]
struct Confirmed(Arc<Mutex<BTreeMap<String, u32>>>);

impl Confirmed {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
    fn has(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains_key(name)
    }
}

/// A running output.
struct Running {
    output: Elasticsearch,
    sender: Option<mpsc::Sender<Batch>>,
    task: JoinHandle<()>,
    stop: CancellationToken,
    confirmed: Confirmed,
    dead_letter: Arc<DeadLetter>,
    account: Arc<LineCounters>,
    _folder: tempfile::TempDir,
}

impl Running {
    fn start(config: ElasticsearchConfig) -> Self {
        Self::start_with(config, dead_letter::LIMIT_BYTES)
    }

    fn start_with(config: ElasticsearchConfig, dead_letter_limit: u64) -> Self {
        Self::start_format(config, dead_letter_limit, RULES)
    }

    fn start_format(config: ElasticsearchConfig, dead_letter_limit: u64, format: DocumentFormat) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dead_letter = Arc::new(
            DeadLetter::open(folder.path().join("dead-letter"), 1 << 20, dead_letter_limit).unwrap(),
        );
        let output = Elasticsearch::open(config, format).unwrap();
        let (sender, receiver) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let run = output
            .clone()
            .run(OutputId(0), receiver, dead_letter.clone(), stop.clone());
        let task = tokio::spawn(run);
        let confirmed = Confirmed::default();
        Self {
            output,
            sender: Some(sender),
            task,
            stop,
            confirmed,
            dead_letter,
            account: Arc::default(),
            _folder: folder,
        }
    }

    /// A document of one part; it is confirmed under the name `id/part`.
    fn sealed(&self, id: &str, part: &str, first_ns: i64, json: &Value, is_trace: bool) -> SealedDocument {
        self.sealed_text(id, part, first_ns, &json.to_string(), is_trace)
    }

    /// [`Self::sealed`], of a document as text.
    fn sealed_text(&self, id: &str, part: &str, first_ns: i64, json: &str, is_trace: bool) -> SealedDocument {
        let name = format!("{id}/{part}");
        let confirmed = self.confirmed.clone();
        let release = move |_| *confirmed.0.lock().unwrap().entry(name.clone()).or_default() += 1;
        let json = json.to_owned();
        let row = DocumentMeta::new(
            0..id.len(),
            is_trace,
            first_ns,
            1,
            DocumentSpan::new(0, 0, json.len()),
        );
        let claims = vec![RecordClaim::new(1, 1, Arc::new(release))];
        let charge = MemoryCharge::new(0, &Arc::default());
        self.account.in_flight.fetch_add(1, Relaxed);
        let buffer = BatchBuffer::new(json.into(), id.into(), vec![row]);
        let batch = Batch::new(buffer, false, claims, charge, &self.account, 1);
        batch.documents().next().unwrap()
    }

    fn part(&self, id: &str, part: &str, first_ns: i64) -> SealedDocument {
        self.sealed(
            id,
            part,
            first_ns,
            &json!({"traceId": id, "parts": {part: first_ns}}),
            true,
        )
    }

    async fn give(&self, documents: Vec<SealedDocument>) {
        for document in documents {
            let sent = self.sender.as_ref().unwrap().send(document.batch());
            tokio::time::timeout(LONG, sent).await.unwrap().unwrap();
        }
    }

    /// Closes the channel, waits until all is confirmed, each document once.
    async fn finish(mut self) -> (BTreeMap<String, u32>, Arc<Stats>) {
        self.sender = None;
        tokio::time::timeout(LONG, &mut self.task)
            .await
            .expect("the output ends")
            .unwrap();
        let confirmed = self.confirmed.0.lock().unwrap().clone();
        assert!(
            confirmed.values().all(|&times| times == 1),
            "each document is confirmed once: {confirmed:?}"
        );
        (confirmed, self.output.stats().clone())
    }
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let all = tokio::time::timeout(LONG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(all.await.is_ok(), "never happened: {what}");
}

/// [`until`] for a condition that does something.
async fn until_async(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let all = tokio::time::timeout(LONG, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(all.await.is_ok(), "never happened: {what}");
}

/// Waits until the health reports this reason.
async fn reported(health: &OutputHealth, wanted: WaitReason) {
    until("waiting is reported", || {
        health.reasons().iter().any(|(cause, ..)| *cause == wanted)
    })
    .await;
}

fn part_names(document: &Value) -> HashSet<&str> {
    document["parts"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

fn key(index: &str, id: &str) -> (String, String) {
    (index.into(), id.into())
}

/// One destination: that of `config`.
fn destinations(config: &ElasticsearchConfig) -> Arc<Destinations> {
    Arc::new(Destinations::single(&config.index, config.data_stream).unwrap())
}
