//! Any names of fields before a real store: random records, rendered as traces and without a trace
//! id, are all accepted.

use windrow_testkit::need;

use super::real::{node, request};
use super::*;
use crate::output::elasticsearch::client::Client;

/// The document of a record without a trace id, or of a trace with one record.
fn rendered(record: &[u8], is_trace: bool) -> Vec<u8> {
    use windrow_trace::{
        FieldNames, Line, PartId, PartInfo, RecordView, Renderer, SealReason, SealedRecords, ShapeRegistry,
        Span, TraceContent, UntracedRecord,
    };
    let (mut out, names) = (Vec::new(), FieldNames::default());
    if is_trace {
        let mut line = Line {
            time: NOON,
            part: 0,
            position: 0,
            shape: None,
            record: Span::new(0, record.len()),
            metadata: Span::default(),
            text: None,
            level: None,
            service: Span::default(),
            is_partial: false,
        };
        let content = TraceContent {
            id: b"t",
            parts: &[PartInfo {
                id: PartId([1; 12]),
                received: 1,
                total: 1,
            }],
            tags: vec!["app"].into(),
            reason: SealReason::Idle,
            sealed_at: 2,
            records: SealedRecords::Lines {
                buffer: record,
                lines: std::slice::from_mut(&mut line),
            },
        };
        let shapes = ShapeRegistry::new(names.clone(), Vec::new());
        Renderer::default().trace(&mut out, &names, &shapes, content, |_, _| ());
    } else {
        let untraced = UntracedRecord {
            shape: None,
            time: NOON,
            tag: "app",
            record,
            metadata: b"",
            level: None,
            service: None,
        };
        Renderer::default().untraced(&mut out, &RecordView::new(names.clone()), &untraced);
    }
    out
}

/// Names that stores refuse in one way or another, and pieces of such.
const PIECES: [&str; 36] = [
    "a",
    "b",
    "a",
    "b",
    ".",
    ".",
    ".",
    "_",
    "_",
    " ",
    "\t",
    "\u{2003}",
    "\u{a0}",
    "\0",
    "é",
    "\\",
    "\"",
    "*",
    "_id",
    "_source",
    "_ignored_source",
    "_data_stream_timestamp",
    "_tsid",
    "_index_mode",
    "_seq_no",
    "_doc_count",
    "_primary_term",
    "_nested_path",
    "@timestamp",
    "windrow",
    "message",
    "log",
    "traceId",
    "trace_id",
    "labels",
    "annotations",
];

/// Random records: any names, texts as values, at every depth and in lists of objects.
struct Records(u64);

impl Records {
    fn below(&mut self, n: u64) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % n) as usize
    }

    fn name(&mut self, out: &mut Vec<u8>) {
        let mut name = Vec::new();
        for _ in 0..self.below(5) {
            name.extend_from_slice(PIECES[self.below(PIECES.len() as u64)].as_bytes());
        }
        if self.below(16) == 0 {
            name.push(0xfe + self.below(2) as u8);
        }
        // OpenSearch refuses members of its flat fields in the spelling with dots.
        let text = String::from_utf8_lossy(&name);
        if text.contains("labels.") || text.contains("annotations.") {
            name.clear();
        }
        out.extend_from_slice(&[0xd9, name.len() as u8]);
        out.extend_from_slice(&name);
    }

    fn map(&mut self, out: &mut Vec<u8>, depth: u64) {
        let n = self.below(6);
        out.push(0x80 | n as u8);
        for _ in 0..n {
            self.name(out);
            match self.below(8 + depth) {
                0 | 1 if depth < 4 => self.map(out, depth + 1),
                2 if depth < 4 => {
                    let n = self.below(4);
                    out.push(0x90 | n as u8);
                    (0..n).for_each(|_| self.map(out, depth + 1));
                }
                3 => out.push(0xc0),
                4 => out.extend_from_slice(b"\x92\xa1x\xc0"),
                _ => out.extend_from_slice(b"\xa1x"),
            }
        }
    }
}

/// Number of random records.
const RANDOM_RECORDS: usize = 2000;
/// Paths of the documents of one index: below the limit of fields.
const MAX_INDEX_PATHS: usize = 500;
/// Indices that exist at the same time.
const MAX_OPEN_INDICES: usize = 25;

/// Paths of a document, or of the documents of an index: whether each is an object.
type Paths = std::collections::HashMap<String, bool>;

/// Adds the paths of a value under a name, in which dots are levels.
fn add_paths(paths: &mut Paths, path: &str, value: &Value) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| add_paths(paths, path, value)),
        Value::Object(fields) => {
            for (name, value) in fields {
                let full = format!("{path}{}{name}", if path.is_empty() { "" } else { "." });
                for (dot, _) in full.match_indices('.') {
                    paths.insert(full[..dot].into(), true);
                }
                match value {
                    Value::Null => {}
                    value => drop(paths.insert(full.clone(), value.is_object() || has_objects(value))),
                }
                add_paths(paths, &full, value);
            }
        }
        _ => {}
    }
}

fn has_objects(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|values| values.iter().any(Value::is_object))
}

/// An index whose documents agree in what is an object and what a value: what an index has learned
/// from one document is no reason to refuse another.
#[derive(Default)]
struct Index {
    name: String,
    paths: Paths,
    bulk: Vec<u8>,
    sent: Vec<Vec<u8>>,
}

impl Index {
    fn takes(&self, paths: &Paths) -> bool {
        let agrees =
            |(path, is_object): (&String, &bool)| self.paths.get(path).is_none_or(|known| known == is_object);
        self.paths.len() + paths.len() <= MAX_INDEX_PATHS && paths.iter().all(agrees)
    }

    fn add(&mut self, document: Vec<u8>, paths: Paths) {
        let head = json!({"create": {"_index": self.name, "_id": self.sent.len().to_string()}});
        self.bulk.extend_from_slice(format!("{head}\n").as_bytes());
        self.bulk.extend_from_slice(&document);
        self.bulk.push(b'\n');
        self.paths.extend(paths);
        self.sent.push(document);
    }

    /// Sends all documents, of which each must be accepted, and deletes the index.
    async fn send(self, client: &Client, config: &ElasticsearchConfig) -> usize {
        let body = String::from_utf8(self.bulk).unwrap();
        let request_of = http::Request::json(reqwest::Method::POST, "/_bulk", body);
        let reply = client.ask(&request_of).await.unwrap();
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let items = answer["items"].as_array().unwrap();
        assert_eq!(items.len(), self.sent.len());
        for (item, document) in items.iter().zip(&self.sent) {
            let shown = String::from_utf8_lossy(document);
            assert_eq!(item["create"]["status"], 201, "{item}\n{shown}");
        }
        let path = format!("/{}", self.name);
        request(config, reqwest::Method::DELETE, &path, Value::Null).await;
        items.len()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_store_accepts_any_names() {
    use reqwest::Method;
    let config = ElasticsearchConfig {
        request_timeout: Duration::from_secs(300),
        ..need!(node("names"))
    };
    let prefix = config.index.replace("-%Y-%m-%d", "");
    let client = Upserter::open(&config, RULES, destinations(&config), Arc::default())
        .unwrap()
        .client;
    let template = config.template.as_ref().unwrap();
    let installed = install::install(&client, template, &Default::default()).await;
    assert!(
        matches!(installed, install::InstallResult::Done(_)),
        "{installed:?}"
    );
    let mut records = Records(1);
    let mut indices: Vec<Index> = Vec::new();
    let (mut made, mut accepted) = (0, 0);
    for number in 0..RANDOM_RECORDS {
        let mut record = Vec::new();
        records.map(&mut record, 0);
        let document = rendered(&record, number % 2 == 0);
        let mut paths = Paths::new();
        add_paths(&mut paths, "", &serde_json::from_slice(&document).unwrap());
        let fits = indices.iter_mut().find(|index| index.takes(&paths));
        if let Some(index) = fits {
            index.add(document, paths);
            continue;
        }
        if indices.len() == MAX_OPEN_INDICES {
            accepted += indices.remove(0).send(&client, &config).await;
        }
        made += 1;
        let mut index = Index {
            name: format!("{prefix}-2026-01-{made:04}"),
            ..Index::default()
        };
        index.add(document, paths);
        indices.push(index);
    }
    for index in indices {
        accepted += index.send(&client, &config).await;
    }
    println!("{accepted} documents in {made} indices");
    assert_eq!(accepted, RANDOM_RECORDS);
    let name = &template.name;
    request(
        &config,
        Method::DELETE,
        &format!("/_index_template/{name}"),
        Value::Null,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_store_finds_labels_of_which_one_continues_another() {
    use reqwest::Method;
    let config = need!(node("labels"));
    let index = config.index.replace("%Y-%m-%d", "2026-11-21");
    let client = Upserter::open(&config, RULES, destinations(&config), Arc::default())
        .unwrap()
        .client;
    let template = config.template.as_ref().unwrap();
    let installed = install::install(&client, template, &Default::default()).await;
    assert!(
        matches!(installed, install::InstallResult::Done(_)),
        "{installed:?}"
    );
    let records = [
        json!({"id": "one", "kubernetes": {"labels": {"app": "web"}, "pod_name": "p"}}),
        json!({"id": "two", "kubernetes": {"labels": {"app": "shop", "app.kubernetes.io/name": "web"}}}),
        json!({"id": "three", "kubernetes": {"annotations": {"a.b": {"c": 1}, "a": 2}}, "labels": [{"a": 1, "a.b": 2}]}),
    ];
    for record in &records {
        let document = rendered(&rmp_serde::to_vec(record).unwrap(), false);
        let document: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(document["kubernetes"], record["kubernetes"]);
        let answer = request(
            &config,
            Method::POST,
            &format!("/{index}/_doc?refresh=true"),
            document,
        )
        .await;
        assert_eq!(answer["result"], "created", "{answer}");
    }
    for (query, expected) in [
        (json!({"term": {"kubernetes.labels.app": "web"}}), "one"),
        (
            json!({"term": {"kubernetes.labels.app.kubernetes.io/name": "web"}}),
            "two",
        ),
        (json!({"term": {"kubernetes.labels.app": "shop"}}), "two"),
        (json!({"term": {"kubernetes.annotations.a": "2"}}), "three"),
    ] {
        let found = request(
            &config,
            Method::POST,
            &format!("/{index}/_search"),
            json!({"query": query}),
        )
        .await;
        assert_eq!(found["hits"]["total"]["value"], 1, "{query}: {found}");
        assert_eq!(found["hits"]["hits"][0]["_source"]["id"], expected, "{query}");
    }
    request(&config, Method::DELETE, &format!("/{index}"), Value::Null).await;
    let name = &template.name;
    request(
        &config,
        Method::DELETE,
        &format!("/_index_template/{name}"),
        Value::Null,
    )
    .await;
}
