//! Gathering with routes: a trace is one document for each destination, and what is dropped counts.

use std::collections::BTreeSet;

use super::*;
use crate::config::Config;
use crate::gather::router::tests::config;
use crate::output::{DestinationId, Destinations};

const ROUTES: &str = r#"
output = ["sqlite", "stdout"]
[elasticsearch]
index = "logs-{kubernetes.namespace_name|none}-%Y.%m.%d"
[[route]]
when = { "kubernetes.namespace_name" = "kube-system", level = { exists = false } }
drop = true
[[route]]
when = { level = { at_least = "error" } }
index = "errors-%Y.%m.%d"
output = ["stdout"]
"#;

/// Entries of one chunk: every combination of two traces and none, namespaces and levels.
fn entries() -> Vec<Value> {
    let mut records = Vec::new();
    for namespace in [Some("shop"), Some("billing"), Some("kube-system"), None] {
        for id in [Some("a"), Some("b"), None] {
            for level in [Some("info"), Some("error"), None] {
                let mut record = json!({"log": format!("{namespace:?} {id:?} {level:?}")});
                if let Some(namespace) = namespace {
                    record["kubernetes"] = json!({"pod_name": "p", "namespace_name": namespace});
                }
                if let Some(id) = id {
                    record["traceId"] = json!(id);
                }
                if let Some(level) = level {
                    record["level"] = json!(level);
                }
                records.push(record);
            }
        }
    }
    records
}

fn chunk(records: &[Value]) -> Bytes {
    let mut bytes = Vec::new();
    for (time, record) in (0..).zip(records) {
        write_entry(&mut bytes, time, None, &rmp_serde::to_vec(record).unwrap());
    }
    let (count, bytes) = (records.len() as u32, &bytes[..]);
    let mut message = Vec::new();
    let id = ChunkId::from_random([records.len() as u8; 16]);
    write_packed(&mut message, b"kube.app", EntryStream { bytes, count }, Some(&id));
    message.into()
}

/// The name of a destination and the lines of its document of each id.
type Found = BTreeSet<(String, Option<String>, Vec<String>)>;

fn gather(config: &Config, chunks: &[Bytes], long: bool) -> (Found, u64, bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_routes(folder.path(), config);
    let (account, destinations) = (
        Arc::clone(&scene.gatherer.account),
        scene.gatherer.router.as_ref().unwrap().destinations(),
    );
    if long {
        // Many other traces, so that records pass through the pipeline.
        let filler: Vec<_> = (0..120)
            .map(|n| json!({"traceId": format!("filler-{n}"), "log": "x".repeat(20_000)}))
            .collect();
        scene.gather(10, chunk(&filler));
    }
    for (number, payload) in chunks.iter().enumerate() {
        scene.gather(number, payload.clone());
    }
    let mut found = Found::new();
    let mut partial = false;
    for sealed in scene.seal() {
        let document: Value = serde_json::from_slice(sealed.json()).unwrap();
        let text = document["log"].as_str().unwrap();
        if sealed.id().starts_with("filler") {
            continue;
        }
        let name = destinations.indices(sealed.destination()).text().to_owned();
        let id = sealed.is_trace().then(|| sealed.id().to_owned());
        assert_eq!(
            document["traceId"].as_str(),
            id.as_deref(),
            "the destination is no part of the id"
        );
        partial |= sealed.batch().is_partial();
        found.insert((name, id, text.lines().map(str::to_owned).collect()));
    }
    (found, account.dropped.load(Ordering::Relaxed), partial)
}

/// The same from the records, one by one.
fn expected(records: &[Value]) -> (Found, u64) {
    let mut lines = BTreeMap::<(String, Option<String>), Vec<String>>::new();
    let mut found = Found::new();
    let mut dropped = 0;
    for record in records {
        let namespace = record["kubernetes"]["namespace_name"].as_str();
        let level = record["level"].as_str();
        let name = match (namespace, level) {
            (Some("kube-system"), None) => {
                dropped += 1;
                continue;
            }
            (_, Some("error")) => "errors-%Y.%m.%d".to_owned(),
            (namespace, _) => format!("logs-{}-%Y.%m.%d", namespace.unwrap_or("none")),
        };
        let text = record["log"].as_str().unwrap().to_owned();
        match record["traceId"].as_str() {
            Some(id) => lines.entry((name, Some(id.to_owned()))).or_default().push(text),
            None => _ = found.insert((name, None, vec![text])),
        }
    }
    found.extend(lines.into_iter().map(|((name, id), lines)| (name, id, lines)));
    (found, dropped)
}

#[test]
fn a_trace_is_one_document_for_each_destination() {
    let config = config(ROUTES);
    let mut records = entries();
    // Shapes are learned when they repeat.
    records.extend(entries());
    let (want, dropped) = expected(&records);
    for long in [false, true] {
        let found = gather(&config, &[chunk(&records)], long);
        assert_eq!((&found.0, found.1), (&want, dropped), "long: {long}");
        assert!(found.2, "one route has an output of its own");
    }
    // Another order of records of other shapes.
    records.reverse();
    let (want, dropped) = expected(&records);
    let found = gather(&config, &[chunk(&records)], false);
    assert_eq!((found.0, found.1), (want, dropped));
}

#[test]
fn what_a_text_means_is_routed_by_its_own_fields() {
    let config = config(ROUTES);
    let inside = json!({"traceId": "a", "log": "inner", "level": "error"}).to_string();
    let outer = json!({"log": inside, "kubernetes": {"namespace_name": "shop"}});
    let (found, dropped, _) = gather(&config, &[chunk(&[outer])], false);
    let errors = (
        "errors-%Y.%m.%d".to_owned(),
        Some("a".to_owned()),
        vec!["inner".to_owned()],
    );
    assert_eq!((found, dropped), ([errors].into(), 0));
}

#[test]
fn a_number_of_destinations_is_not_exceeded_and_the_others_are_counted() {
    let config = config("[elasticsearch]\nindex = \"logs-{ns}\"\nmax_destinations = 2\n");
    let records: Vec<_> = (0..5)
        .map(|n| json!({"traceId": "t", "log": n.to_string(), "ns": n.to_string()}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_routes(folder.path(), &config);
    let metrics = Arc::clone(&scene.gatherer.metrics);
    scene.gather(0, chunk(&records));
    let sealed = scene.seal();
    let lines: Vec<_> = sealed
        .iter()
        .map(|sealed| (sealed.destination(), sealed.lines()))
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.contains(&(DestinationId::DEFAULT, 3)), "{lines:?}");
    assert_eq!(metrics.destinations_fallback_records.get(), 3);
    drop(Destinations::of(&config).unwrap());
}
