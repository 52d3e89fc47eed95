//! Copies and destinations on a real node: a copy is the whole document, whichever instance saw the
//! line that it is made for, and documents of two destinations never meet.

use bytes::Bytes;
use reqwest::Method;
use windrow_testkit::need;

use super::documents::{REAL, rendered};
use super::real::{node, request};
use super::*;
use crate::gather::router_test_config;
use crate::output::DestinationId;
use crate::output::elasticsearch::bulk::BulkDocument;
use crate::output::elasticsearch::outcome::{DocumentOutcome, StoreResult};
use crate::output::elasticsearch::upsert::WriteResult;

const DAY_NS: i64 = 86_400_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

struct Part {
    id: String,
    first_ns: i64,
    destination: DestinationId,
    json: Bytes,
}

impl BulkDocument for Part {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_trace(&self) -> bool {
        true
    }
    fn first_ns(&self) -> i64 {
        self.first_ns
    }
    fn destination(&self) -> DestinationId {
        self.destination
    }
    fn json(&self) -> &[u8] {
        &self.json
    }
}

fn part(id: &str, number: u8, first_ns: i64, failed: bool) -> Part {
    let text = format!("part {number}");
    let record = if failed {
        json!({"message": text, "failed": true})
    } else {
        json!({"message": text})
    };
    Part {
        id: id.to_owned(),
        first_ns,
        destination: DestinationId::DEFAULT,
        json: rendered(id, number, first_ns, &[record]).into(),
    }
}

/// An instance with these routes and copies.
fn instance(config: &ElasticsearchConfig, text: &str) -> Upserter {
    let mut whole = router_test_config(text);
    whole.elasticsearch = config.clone();
    let destinations = Arc::new(Destinations::of(&whole).unwrap());
    Upserter::open(config, REAL, destinations, Arc::default()).unwrap()
}

async fn write(instance: &Upserter, documents: &[Part]) -> Vec<DocumentOutcome> {
    for _ in 0..20 {
        match instance.write(documents).await {
            WriteResult::AllCreated => panic!("copies are looked at"),
            WriteResult::PerDocument(outcomes, None, _)
                if !outcomes
                    .iter()
                    .any(|outcome| matches!(outcome, DocumentOutcome::Retry(_))) =>
            {
                return outcomes;
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("contended for long");
}

/// The documents of a pattern by index and id: text, and whether it failed.
async fn found(config: &ElasticsearchConfig, pattern: &str) -> BTreeMap<(String, String), (String, bool)> {
    request(config, Method::POST, &format!("/{pattern}/_refresh"), Value::Null).await;
    let all = request(
        config,
        Method::POST,
        &format!("/{pattern}/_search"),
        json!({"size": 1000}),
    )
    .await;
    let hits = all["hits"]["hits"].as_array().unwrap();
    let one = |hit: &Value| {
        let text = |name: &str| hit[name].as_str().unwrap().to_owned();
        let source = &hit["_source"];
        let lines = source["message"].as_str().unwrap().to_owned();
        ((text("_index"), text("_id")), (lines, source["failed"] == true))
    };
    hits.iter().map(one).collect()
}

async fn remove(config: &ElasticsearchConfig, patterns: &[&str]) {
    for pattern in patterns {
        let indices: HashSet<String> = found(config, pattern)
            .await
            .into_keys()
            .map(|(index, _)| index)
            .collect();
        for index in indices {
            request(config, Method::DELETE, &format!("/{index}"), Value::Null).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_copies_are_whole_whichever_instance_saw_the_error() {
    let config = need!(node("copied"));
    let main = config.index.replace("%Y-%m-%d", "");
    let text = format!(
        "[[copy]]\nwhen = {{ failed = true }}\nindex = \"copy-of-{}\"\n",
        config.index
    );
    let instances = [(); 2].map(|()| instance(&config, &text));
    let [one, other] = &instances;
    let (noon, midnight) = (NOON, NOON.div_euclid(DAY_NS) * DAY_NS);
    // The error comes first, last, never; both at once; before and after midnight.
    write(one, &[part("first", 1, noon, true)]).await;
    write(other, &[part("first", 2, noon + 1, false)]).await;
    write(one, &[part("last", 1, noon, false)]).await;
    write(other, &[part("last", 2, noon + 1, true)]).await;
    write(one, &[part("never", 1, noon, false)]).await;
    write(other, &[part("never", 2, noon + 1, false)]).await;
    for round in 0..10 {
        let id = format!("both-{round}");
        let (a, b) = (
            [part(&id, 1, noon, round % 2 == 0)],
            [part(&id, 2, noon + 1, round % 2 == 1)],
        );
        tokio::join!(write(one, &a), write(other, &b));
        let id = format!("midnight-{round}");
        let (a, b) = (
            [part(&id, 1, midnight - SECOND_NS, round % 2 == 0)],
            [part(&id, 2, midnight + SECOND_NS, round % 2 == 1)],
        );
        tokio::join!(write(one, &a), write(other, &b));
    }
    let copies = format!("copy-of-{main}*");
    let check = async || {
        let (documents, copies) = (
            found(&config, &format!("{main}*")).await,
            found(&config, &copies).await,
        );
        assert_eq!(documents.len(), 23);
        let mut expected = BTreeMap::new();
        for ((index, id), content) in documents {
            assert_eq!(content.0, "part 1\npart 2", "{id}");
            if id != "never" {
                assert!(content.1, "{id}");
                expected.insert((format!("copy-of-{index}"), id), content);
            }
        }
        assert_eq!(copies, expected);
    };
    check().await;
    // All of it again.
    for id in ["first", "last"] {
        let again = [
            part(id, 1, noon, id == "first"),
            part(id, 2, noon + 1, id == "last"),
        ];
        let stored = DocumentOutcome::Stored(StoreResult::Unchanged);
        assert_eq!(write(other, &again).await, [stored.clone(), stored]);
    }
    check().await;
    remove(&config, &[&format!("{main}*"), &copies]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_a_document_is_not_stored_before_its_copy() {
    let config = need!(node("copyblock"));
    let main = config.index.replace("%Y-%m-%d", "");
    let text = "[[copy]]\nwhen = { failed = true }\nindex = \"blocked-copies\"\n";
    let one = instance(&config, text);
    let settings = json!({"settings": {"index.blocks.write": true, "number_of_replicas": 0}});
    request(&config, Method::PUT, "/blocked-copies", settings).await;
    let documents = [part("a", 1, NOON, true), part("b", 2, NOON, false)];
    let outcomes = write(&one, &documents).await;
    assert!(matches!(outcomes[0], DocumentOutcome::Blocked(_)), "{outcomes:?}");
    assert!(matches!(outcomes[1], DocumentOutcome::Stored(_)), "{outcomes:?}");
    let open = json!({"index.blocks.write": false});
    request(&config, Method::PUT, "/blocked-copies/_settings", open).await;
    let outcomes = write(&one, &documents).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, DocumentOutcome::Stored(_))),
        "{outcomes:?}"
    );
    let copies = found(&config, "blocked-copies").await;
    assert_eq!(copies.len(), 1);
    remove(&config, &[&format!("{main}*"), "blocked-copies"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_documents_of_two_destinations_never_meet() {
    let config = need!(node("apart"));
    let main = config.index.replace("%Y-%m-%d", "");
    let route = format!("other-{}", config.index);
    let text = format!(
        "[[route]]\nwhen = {{ tag = \"x\" }}\nindex = \"{route}\"\n[[copy]]\nwhen = {{ failed = true }}\nindex = \"unused-{}\"\n",
        config.index
    );
    let one = instance(&config, &text);
    let midnight = NOON.div_euclid(DAY_NS) * DAY_NS;
    let to = |mut part: Part, destination| {
        part.destination = DestinationId(destination);
        part
    };
    for round in 0..2 {
        for (number, offset) in [(1, -SECOND_NS), (2, SECOND_NS)] {
            let documents = [0, 1].map(|destination| {
                let number = number + 10 * destination as u8;
                to(part("t", number, midnight + offset, false), destination)
            });
            let outcomes = write(&one, &documents).await;
            assert!(
                outcomes
                    .iter()
                    .all(|outcome| matches!(outcome, DocumentOutcome::Stored(_))),
                "round {round}: {outcomes:?}"
            );
        }
    }
    for (pattern, text) in [
        (format!("{main}*"), "part 1\npart 2"),
        (format!("other-{main}*"), "part 11\npart 12"),
    ] {
        let documents = found(&config, &pattern).await;
        assert_eq!(documents.len(), 1, "{documents:?}");
        assert!(
            documents.values().all(|(found, _)| found == text),
            "{documents:?}"
        );
    }
    remove(&config, &[&format!("{main}*"), &format!("other-{main}*")]).await;
}
