//! Tests of the embedded search: it follows the store, and its answers are those of the evaluator.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};
use windrow_query::{Document, Query};

use super::*;
use crate::output::sqlite::SqliteWriter;
use crate::search::{Cursor, FacetValue, Sort, level_name};

const BASE_MS: i64 = 1_795_000_000_000;

/// A store, written by hand, with an index that is filled step by step.
struct Store {
    folder: tempfile::TempDir,
    connection: Connection,
    indexer: Indexer,
    search: EmbeddedSearch,
    runtime: tokio::runtime::Runtime,
}

fn config_of(folder: &Path) -> (crate::config::SqliteConfig, IndexConfig) {
    let mut sqlite = crate::config::Config::default().sqlite;
    sqlite.path = folder.join("windrow.db");
    let index = IndexConfig {
        store: sqlite.path.clone(),
        names: Names::default(),
        buffer_bytes: IndexConfig::MAX_BUFFER_BYTES,
    };
    (sqlite, index)
}

impl Store {
    fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap())
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        let (sqlite, config) = config_of(folder.path());
        drop(SqliteWriter::open(sqlite.clone(), 16 << 20).unwrap());
        let progress = Arc::<IndexProgress>::default();
        let reader = Arc::new(SqliteReader::open(&sqlite.path).unwrap());
        Self {
            connection: Connection::open(&sqlite.path).unwrap(),
            indexer: Indexer::open(config.clone(), Arc::clone(&progress)).unwrap(),
            search: EmbeddedSearch::new(&config, reader, progress),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
            folder,
        }
    }

    fn insert(&self, id: &str, document: &Value) {
        self.connection
            .execute(
                "INSERT INTO documents (written, first, id, document) VALUES (0, 0, ?1, ?2)",
                (id, document.to_string()),
            )
            .unwrap();
    }

    /// Replaces a document as a merge does.
    fn merge(&self, id: &str, document: &Value) {
        self.connection
            .execute(
                "UPDATE documents SET document = ?2 WHERE id = ?1",
                (id, document.to_string()),
            )
            .unwrap();
        self.connection
            .execute(
                "INSERT INTO merged (document) SELECT rowid FROM documents WHERE id = ?1",
                [id],
            )
            .unwrap();
    }

    fn index(&mut self) {
        while self.indexer.step(&false.into()).unwrap() {}
        assert_eq!(self.search.progress().lag(), 0);
    }

    fn page(&self, query: &str, sort: Sort, limit: usize, after: Option<&str>) -> Page {
        let request = PageRequest {
            selection: Selection::new(Query::parse(query, 0).unwrap(), None, None),
            sort,
            limit,
            after: after.map(|text| Cursor::decode(text, sort).unwrap()),
        };
        self.runtime.block_on(self.search.page(request)).unwrap()
    }

    /// All ids that a query finds, page by page.
    fn find(&self, query: &str, sort: Sort) -> Vec<String> {
        let mut ids = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = self.page(query, sort, 3, next.as_deref());
            ids.extend(page.traces.into_iter().map(|trace| trace.key));
            next = page.next;
            if next.is_none() {
                return ids;
            }
        }
    }
}

fn document(time_ms: i64, text: &str, level: Option<&str>, services: &[&str], duration: i64) -> Value {
    let time = crate::search::summary::rfc3339(time_ms * 1_000_000);
    let mut document = json!({
        "@timestamp": time, "traceId": "t", "message": text,
        "windrow": {"reason": "idle", "lines": 1, "last": time, "durationMs": duration, "tags": ["app"], "late": 0, "services": services},
    });
    if let Some(level) = level {
        document["windrow"]["level"] = level.into();
    }
    document
}

#[test]
fn it_finds_what_the_shared_set_says() {
    let mut store = Store::new();
    let mut all = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/windrow-query/testdata");
    for line in std::fs::read_to_string(folder.join("documents.ndjson"))
        .unwrap()
        .lines()
    {
        let line: Value = serde_json::from_str(line).unwrap();
        all.push(line["_id"].as_str().unwrap().to_owned());
        store.insert(line["_id"].as_str().unwrap(), &line["document"]);
    }
    store.index();
    for line in std::fs::read_to_string(folder.join("queries.txt"))
        .unwrap()
        .lines()
    {
        let (query, wanted) = line.split_once('\t').unwrap();
        let mut wanted: Vec<_> = if wanted == "*" {
            all.clone()
        } else {
            wanted.split_whitespace().map(str::to_owned).collect()
        };
        wanted.sort();
        for (_, sort) in Sort::ALL {
            let mut found = store.find(query, sort);
            found.sort();
            assert_eq!(found, wanted, "{query} {sort:?}");
        }
    }
}

#[test]
fn it_follows_merges_and_retention() {
    let mut store = Store::new();
    for n in 0..10 {
        let document = document(BASE_MS + n, &format!("number{n} common"), Some("info"), &["a"], 0);
        store.insert(&format!("d{n}"), &document);
    }
    store.index();
    assert_eq!(store.find("number3", Sort::Newest), ["d3"]);
    store.merge(
        "d3",
        &document(BASE_MS - 60_000, "earlier words", Some("error"), &["a", "b"], 0),
    );
    // Merged before it is indexed, and twice.
    store.insert("d10", &document(BASE_MS + 10, "first", None, &[], 0));
    store.merge("d10", &document(BASE_MS + 10, "second", None, &[], 0));
    store.merge("d10", &document(BASE_MS + 10, "third common", None, &[], 0));
    store.index();
    assert!(store.find("number3 OR first OR second", Sort::Newest).is_empty());
    assert_eq!(store.find("third OR words", Sort::Oldest), ["d3", "d10"]);
    let facets = store.runtime.block_on(store.search.facets(everything())).unwrap();
    let value = |value: &str, count| FacetValue {
        value: value.into(),
        count,
    };
    assert_eq!(
        facets.levels,
        [value("info", 9), value("error", 1), value("none", 1)]
    );
    assert_eq!(facets.services, [value("a", 10), value("b", 1)]);
    store
        .connection
        .execute("DELETE FROM documents WHERE rowid <= 9", [])
        .unwrap();
    store.index();
    assert_eq!(store.find("*", Sort::Newest), ["d10", "d9"]);
    assert_eq!(store.find("common", Sort::Newest), ["d10", "d9"]);
    let facets = store.runtime.block_on(store.search.facets(everything())).unwrap();
    assert_eq!(facets.services, [value("a", 1)]);
    // The store begins again with the first row.
    store.connection.execute("DELETE FROM documents", []).unwrap();
    store.index();
    assert!(store.find("*", Sort::Newest).is_empty());
    store.insert("new", &document(BASE_MS, "fresh", None, &[], 0));
    store.index();
    assert_eq!(store.find("fresh", Sort::Worst), ["new"]);
}

fn everything() -> Selection {
    Selection::new(Query::parse("", 0).unwrap(), None, None)
}

#[test]
fn it_is_made_again_when_it_is_damaged_missing_or_of_another_store() {
    let mut store = Store::new();
    store.insert("a", &document(BASE_MS, "words", None, &[], 0));
    store.index();
    let path = index_path(&store.folder.path().join("windrow.db"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        store.find("words", Sort::Newest),
        Vec::<String>::new(),
        "no index, no answer, no error"
    );
    store.index();
    assert_eq!(store.find("words", Sort::Newest), ["a"]);

    // Between two runs: something else stands in its place.
    let folder = store.folder;
    drop((store.indexer, store.search, store.connection));
    std::fs::write(
        &path,
        "no database, but long enough to have a header of a hundred bytes or more ".repeat(9),
    )
    .unwrap();
    for suffix in ["-wal", "-shm"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).ok();
    }
    let mut store = Store::in_folder(folder);
    store.index();
    assert_eq!(store.find("words", Sort::Newest), ["a"]);

    // The same row number, another document.
    store.connection.execute("DELETE FROM documents", []).unwrap();
    store.insert("b", &document(BASE_MS, "others", None, &[], 0));
    store.index();
    assert_eq!(store.search.progress().rebuilds(), 1);
    assert_eq!(store.find("others OR words", Sort::Newest), ["b"]);
}

/// In every order, while some arrive before and some behind the place where one is.
#[test]
fn pages_stay_the_same_while_documents_arrive() {
    for (name, sort) in Sort::ALL {
        let mut store = Store::new();
        let levels = [Some("error"), None, Some("info")];
        for n in 0..40_i64 {
            // Four begin in one millisecond.
            let document = document(BASE_MS + n / 4, "word", levels[n as usize % 3], &[], n * 7 % 10);
            store.insert(&format!("d{n:02}"), &document);
        }
        store.index();
        let wanted = store.find("word", sort);
        assert_eq!(wanted.len(), 40);
        let (mut keys, mut next, mut new) = (Vec::new(), None::<String>, 0);
        loop {
            let page = store.page("word", sort, 7, next.as_deref());
            keys.extend(page.traces.into_iter().map(|trace| trace.key));
            let Some(cursor) = page.next else { break };
            next = Some(cursor);
            if new < 15 {
                for time in [BASE_MS - 1000, BASE_MS + 5, BASE_MS + 1000] {
                    let document = document(time + new, "word", Some("warn"), &[], new);
                    store.insert(&format!("new{new}"), &document);
                    new += 1;
                }
                store.index();
            }
        }
        let is_new = |key: &&String| key.starts_with("new");
        let mut some: Vec<_> = keys.iter().filter(is_new).collect();
        some.sort();
        some.dedup();
        assert_eq!(
            some.len(),
            keys.iter().filter(is_new).count(),
            "{name}: one twice"
        );
        keys.retain(|key| !is_new(&key));
        assert_eq!(keys, wanted, "{name}");
    }
}

/// A list does not read a document of megabytes.
#[test]
fn long_documents_have_a_kept_summary() {
    let mut store = Store::new();
    let text = format!("start of it\n{}needle", "filler ".repeat(20_000));
    store.insert("long", &document(BASE_MS, &text, Some("warn"), &["s"], 7));
    store.index();
    let page = store.page("needle", Sort::Newest, 10, None);
    let trace = &page.traces[0];
    assert_eq!((trace.key.as_str(), trace.text.as_str()), ("long", "start of it"));
    assert_eq!((trace.level.as_deref(), trace.duration_ms), (Some("warn"), 7.0));
}

#[derive(Debug, Clone)]
struct Case {
    documents: Vec<Value>,
    query: String,
    from: Option<i64>,
    to: Option<i64>,
    count: i64,
}

fn cases() -> impl Strategy<Value = Case> {
    // Around a minute, several minutes, and hours.
    let offset = || prop_oneof![-5i64..5, 59_995..60_005i64, 0..600_000i64, 0..40_000_000i64];
    let level = prop::option::of(prop::sample::select(vec!["info", "warn", "error"]));
    let services = prop::sample::subsequence(vec!["a", "b", "c"], 0..3);
    let one = (offset(), "[ab]( [ab])?", level, services, 0i64..4).prop_map(
        |(offset, text, level, services, duration)| {
            document(BASE_MS + offset, &text, level, &services, duration)
        },
    );
    let query = prop::sample::select(vec![
        "",
        "a",
        "b -a",
        "service:a",
        "level:>=warn",
        "nothing",
        "duration:>1",
    ]);
    let bound = move || prop::option::of(offset().prop_map(|offset| BASE_MS + offset));
    (
        prop::collection::vec(one, 0..12),
        query,
        bound(),
        bound(),
        1i64..80,
    )
        .prop_map(|(documents, query, from, to, count)| Case {
            documents,
            query: query.to_owned(),
            from,
            to,
            count,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counts_and_orders_are_those_of_the_evaluator(case in cases()) {
        let mut store = Store::new();
        for (n, document) in case.documents.iter().enumerate() {
            store.insert(&format!("d{n}"), document);
        }
        store.index();
        let selection = Selection::new(Query::parse(&case.query, 0).unwrap(), case.from, case.to);
        let names = Names::default();
        let matching: Vec<_> = case
            .documents
            .iter()
            .enumerate()
            .map(|(n, document)| Document::parse(&format!("d{n}"), document.to_string().as_bytes(), &names).unwrap())
            .filter(|document| selection.query.matches(document))
            .filter(|document| (selection.from_ms..=selection.to_ms).contains(&document.time_ms()))
            .collect();

        let from = case.from.unwrap_or(BASE_MS - 10);
        let to = case.to.unwrap_or(BASE_MS + 50_000_000);
        let buckets = Buckets::covering(from, to, case.count);
        let narrowed = Selection { from_ms: from, to_ms: to, ..selection.clone() };
        let histogram = store.runtime.block_on(store.search.histogram(narrowed, buckets)).unwrap();
        let mut counts: BTreeMap<i64, BTreeMap<&str, u64>> = BTreeMap::new();
        for document in &matching {
            let start = buckets.start_of(document.time_ms());
            *counts.entry(start).or_default().entry(level_name(document.level())).or_default() += 1;
        }
        prop_assert_eq!(histogram.counts, counts);

        let facets = store.runtime.block_on(store.search.facets(selection.clone())).unwrap();
        let count = |values: Vec<&str>| {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            values.into_iter().for_each(|value| *counts.entry(value.to_owned()).or_default() += 1);
            FacetValue::top(counts)
        };
        prop_assert_eq!(facets.levels, count(matching.iter().map(|document| level_name(document.level())).collect()));
        prop_assert_eq!(facets.services, count(matching.iter().flat_map(Document::services).collect()));
        prop_assert_eq!(facets.tags, count(matching.iter().flat_map(Document::tags).collect()));

        for (_, sort) in Sort::ALL {
            let mut keys = Vec::new();
            let mut after = None;
            loop {
                let request = PageRequest { selection: selection.clone(), sort, limit: 4, after };
                let page = store.runtime.block_on(store.search.page(request)).unwrap();
                keys.extend(page.traces.into_iter().map(|trace| trace.key));
                let Some(next) = page.next else { break };
                after = Some(Cursor::decode(&next, sort).unwrap());
            }
            let key = |id: &String| {
                let document = matching.iter().find(|document| document.id() == id).unwrap();
                let time = document.time_ms();
                match sort {
                    Sort::Newest => (0, -time),
                    Sort::Oldest => (0, time),
                    Sort::Slowest => (-(document.number("durationMs").unwrap() as i64), -time),
                    Sort::Worst => (document.level().map_or(1, |level| -(level as i64)), -time),
                }
            };
            prop_assert_eq!(keys.len(), matching.len(), "{:?}", sort);
            prop_assert!(keys.iter().map(key).is_sorted(), "{:?}: {:?}", sort, keys);
        }
    }
}
