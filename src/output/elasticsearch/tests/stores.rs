//! What other shippers stumbled over, on real nodes: fields that a mapping refuses, closed and red
//! indices, rollover aliases, data streams, stores that rebuild documents.
//!
//! One test per store, because a node takes longer to start than all cases together.

mod fields;
mod proxy;
mod streams;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use reqwest::Method;
use windrow_testkit::{elasticsearch as testkit, need};

use super::documents::{REAL, rendered, rendered_with};
use super::real::request;
use super::*;

/// A running output with an index of its own.
struct Case {
    config: ElasticsearchConfig,
    running: Running,
    given: usize,
}

impl Case {
    fn start(config: ElasticsearchConfig) -> Self {
        let running = Running::start_format(config.clone(), dead_letter::LIMIT_BYTES, REAL);
        Self {
            config,
            running,
            given: 0,
        }
    }

    /// Gives a document, and waits until it is confirmed.
    async fn write(&mut self, id: &str, json: &[u8], first_ns: i64) {
        self.give(id, json, first_ns).await;
        let (confirmed, given) = (self.running.confirmed.clone(), self.given);
        until(&format!("{id} is confirmed"), || confirmed.count() == given).await;
    }

    async fn give(&mut self, id: &str, json: &[u8], first_ns: i64) {
        self.given += 1;
        let json: Box<RawValue> = serde_json::from_slice(json).unwrap();
        let part = self.given.to_string();
        let sealed = self.running.sealed_text(id, &part, first_ns, json.get(), true);
        self.running.give(vec![sealed]).await;
    }

    async fn request(&self, method: Method, path: &str, body: Value) -> Value {
        request(&self.config, method, path, body).await
    }

    /// Whether there is a document. A shard that begins to work has none yet.
    async fn has(&self, path: &str) -> bool {
        let client = &self.running.output.upserter.client;
        let answer = client.ask(&http::Request::json(Method::GET, path, "")).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    fn wildcard(&self) -> String {
        self.config.index.replace("%Y-%m-%d", "*")
    }

    fn index(&self, day: &str) -> String {
        self.config.index.replace("%Y-%m-%d", day)
    }

    /// Documents by id, each in one index.
    async fn documents(&self) -> BTreeMap<String, (String, Value)> {
        self.documents_in(&self.wildcard()).await
    }

    /// Documents of the indices that `all` names.
    async fn documents_in(&self, all: &str) -> BTreeMap<String, (String, Value)> {
        self.request(Method::POST, &format!("/{all}/_refresh"), Value::Null)
            .await;
        let found = self
            .request(Method::POST, &format!("/{all}/_search"), json!({"size": 10_000}))
            .await;
        let mut documents = BTreeMap::new();
        for hit in found["hits"]["hits"].as_array().unwrap() {
            let (index, id) = (hit["_index"].as_str().unwrap(), hit["_id"].as_str().unwrap());
            let other = documents.insert(id.to_owned(), (index.to_owned(), hit["_source"].clone()));
            assert!(other.is_none(), "{id} is in {index} and in {other:?}");
        }
        documents
    }

    /// Ends the output and removes what it made.
    async fn end(self) -> u64 {
        let dead = self.running.dead_letter.usage().entries;
        let Self { config, running, .. } = self;
        running.finish().await;
        let all = config.index.replace("%Y-%m-%d", "*");
        if config.data_stream {
            // Not every node has the request.
            let path = format!("/_data_stream/{all}");
            request(&config, Method::DELETE, &path, Value::Null).await;
        }
        let found = request(
            &config,
            Method::GET,
            &format!("/{all}?expand_wildcards=all"),
            Value::Null,
        )
        .await;
        for index in found.as_object().unwrap().keys() {
            request(&config, Method::DELETE, &format!("/{index}"), Value::Null).await;
        }
        let name = config.template.as_ref().map_or("", |template| &template.name);
        for name in [
            name.to_owned(),
            format!("{name}-user"),
            format!("{name}-data-streams"),
        ] {
            let path = format!("/_index_template/{name}");
            request(&config, Method::DELETE, &path, Value::Null).await;
        }
        dead
    }
}

fn config(url: &str, name: &str) -> ElasticsearchConfig {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let own = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    ElasticsearchConfig {
        index: format!("{own}-%Y-%m-%d"),
        template: Some(IndexTemplate {
            name: own,
            shards: Some(1),
            replicas: Some(0),
            trace_id_keyword: true,
            ..Default::default()
        }),
        ..quick(url)
    }
}

/// Today's documents are stored while yesterday's index is closed and another is red.
async fn others_do_not_wait(url: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut case = Case::start(ElasticsearchConfig {
        deferred_dir: Some(folder.path().join("deferred")),
        deferred_limit: 1 << 30,
        ..config(url, "waits")
    });
    let (day, first) = (86_400_000_000_000, NOON);
    let (closed, red) = (case.index("2026-11-20"), case.index("2026-11-19"));
    case.request(
        Method::PUT,
        &format!("/{closed}"),
        json!({"settings": {"number_of_replicas": 0}}),
    )
    .await;
    case.request(Method::POST, &format!("/{closed}/_close"), Value::Null)
        .await;
    let nowhere =
        json!({"settings": {"number_of_replicas": 0, "index.routing.allocation.require.box": "nowhere"}});
    case.request(
        Method::PUT,
        &format!("/{red}?wait_for_active_shards=0&timeout=1s"),
        nowhere,
    )
    .await;
    let document = |id: &str, first_ns| rendered(id, 1, first_ns, &[json!({"traceId": id, "message": "x"})]);
    for n in 0..20 {
        for (name, first_ns) in [
            ("today", first),
            ("closed", first - day),
            ("red", first - 2 * day),
        ] {
            let id = format!("{name}{n}");
            case.give(&id, &document(&id, first_ns), first_ns).await;
        }
        let id = format!("today{n}");
        let stored = format!("/{}/_doc/{id}", case.index("2026-11-21"));
        until_async("today's document is stored", async || case.has(&stored).await).await;
    }
    // All are durable: in the store or on disk.
    let confirmed = case.running.confirmed.clone();
    until("all are confirmed", || confirmed.count() == 60).await;
    let health = case.running.output.health().clone();
    let notes = health.notes().join("\n");
    assert!(notes.contains(&closed) && notes.contains(&red), "{notes}");
    case.request(Method::POST, &format!("/{closed}/_open"), Value::Null)
        .await;
    let here = json!({"index.routing.allocation.require.box": null});
    case.request(Method::PUT, &format!("/{red}/_settings"), here)
        .await;
    until("nothing waits any more", || health.notes().is_empty()).await;
    assert_eq!(case.documents().await.len(), 60);
    assert_eq!(case.end().await, 0);
}

/// One document per trace over the indices of a rollover alias.
async fn a_trace_is_one_document_over_rollovers(url: &str) {
    let config = config(url, "roll");
    let alias = config.index.replace("-%Y-%m-%d", "");
    let config = ElasticsearchConfig {
        index: alias.clone(),
        template: None,
        ..config
    };
    let first = json!({"settings": {"number_of_replicas": 0}, "aliases": {&alias: {"is_write_index": true}}});
    request(&config, Method::PUT, &format!("/{alias}-000001"), first).await;
    let mut case = Case::start(config);
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let line = |id: &str, part, text: &str| {
        rendered(
            id,
            part,
            now + i64::from(part) * 1_000_000,
            &[json!({"traceId": id, "message": text})],
        )
    };
    case.write("t1", &line("t1", 1, "one"), now).await;
    case.write("t1", &line("t1", 2, "late"), now).await;
    for generation in 2..=4_u8 {
        let settings = json!({"settings": {"number_of_replicas": 0}});
        let rolled = case
            .request(Method::POST, &format!("/{alias}/_rollover"), settings)
            .await;
        assert_eq!(rolled["rolled_over"], true, "{rolled}");
        case.write("t1", &line("t1", 10 + generation, "after a rollover"), now)
            .await;
        let own = format!("g{generation}");
        case.write(&own, &line(&own, 1, "one"), now).await;
        case.write(&own, &line(&own, 2, "late"), now).await;
        // The same again, as after a restart.
        case.write(&own, &line(&own, 2, "late"), now).await;
    }
    let documents = case.documents_in(&format!("{alias}-*")).await;
    assert_eq!(documents.len(), 4, "{:?}", documents.keys());
    assert_eq!(documents["t1"].1["windrow"]["parts"], 5);
    assert_eq!(documents["t1"].0, format!("{alias}-000001"));
    for generation in 2..=4 {
        assert_eq!(documents[&format!("g{generation}")].1["message"], "one\nlate");
    }
    assert_eq!(case.end().await, 0);
}

/// Documents of an index that rebuilds its sources are read and joined.
async fn rebuilt_sources_are_joined(url: &str) {
    for settings in [
        // Its usual codec needs a native library that a test node has not.
        json!({"index.mode": "logsdb", "index.codec": "default", "number_of_replicas": 0}),
        json!({"index.mapping.source.mode": "synthetic", "number_of_replicas": 0}),
    ] {
        let mut case = Case::start(config(url, "rebuilt"));
        let name = &case.config.template.as_ref().unwrap().name;
        let user =
            json!({"index_patterns": [case.wildcard()], "priority": 500, "template": {"settings": settings}});
        let made = case
            .request(Method::PUT, &format!("/_index_template/{name}-user"), user)
            .await;
        assert_eq!(made["acknowledged"], true, "{made}");
        let first = json!({"traceId": "a", "message": "one", "status": 200, "ratio": 1.0, "list": ["b"],
            "user": {"name": "joe", "roles": ["x"]}, "k8s.pod": "p1", "nil": null, "esc": "a\"\n\u{2028}"});
        let second = json!({"traceId": "a", "message": "request completed", "status": 201});
        case.write("a", &rendered("a", 1, NOON, &[first, second]), NOON)
            .await;
        let late = json!({"traceId": "a", "message": "late", "extra": 1});
        case.write(
            "a",
            &rendered("a", 2, NOON + 9_000_000_000, &[late]),
            NOON + 9_000_000_000,
        )
        .await;
        let early = json!({"traceId": "a", "message": "early, and late", "extra": 0});
        case.write(
            "a",
            &rendered("a", 3, NOON - 9_000_000_000, &[early]),
            NOON - 9_000_000_000,
        )
        .await;
        let documents = case.documents().await;
        let (_, stored) = &documents["a"];
        assert_eq!(
            stored["message"], "early, and late\none\nrequest completed\nlate",
            "{settings}: {stored}"
        );
        assert_eq!(
            (&stored["status"], &stored["extra"]),
            (&json!(201), &json!(1)),
            "{stored}"
        );
        assert_eq!(case.end().await, 0, "{settings}");
    }
}

/// The template matches only Windrow's names, and a user's template that fits is left alone.
async fn the_template_keeps_to_itself(url: &str) {
    let mut case = Case::start(config(url, "logs"));
    case.write(
        "a",
        &rendered("a", 1, NOON, &[json!({"traceId": "a", "message": "x"})]),
        NOON,
    )
    .await;
    let name = case.config.template.as_ref().unwrap().name.clone();
    let found = case
        .request(Method::GET, &format!("/_index_template/{name}"), Value::Null)
        .await;
    let own = &found["index_templates"][0]["index_template"];
    assert_eq!(
        own["index_patterns"],
        json!([format!("{name}-19*-*-*"), format!("{name}-20*-*-*")])
    );
    let mapping = case
        .request(
            Method::GET,
            &format!("/{}/_mapping", case.index("2026-11-21")),
            Value::Null,
        )
        .await;
    let windrow = &mapping[&case.index("2026-11-21")]["mappings"]["properties"]["windrow"]["properties"];
    assert_eq!(windrow["metadata"]["enabled"], false, "{windrow}");
    assert!(
        ["flattened", "flat_object"]
            .map(|kind| json!(kind))
            .contains(&windrow["unmapped"]["type"]),
        "{windrow}"
    );
    let config = case.config.clone();
    // The user takes it over under another name.
    let mut fitting = own.clone();
    fitting["priority"] = json!(300);
    fitting["_meta"] = json!({"description": "ours"});
    case.request(Method::PUT, &format!("/_index_template/{name}-user"), fitting)
        .await;
    case.request(Method::DELETE, &format!("/_index_template/{name}"), Value::Null)
        .await;
    let client = &case.running.output.upserter.client;
    let said = install::install(client, config.template.as_ref().unwrap(), &Default::default()).await;
    assert!(
        matches!(&said, install::InstallResult::Done(said) if said[0].contains("is not installed")),
        "{said:?}"
    );
    case.end().await;
}

/// `windrow check --connect` sees what there is.
async fn the_store_is_inspected(url: &str) {
    let config = config(url, "inspected");
    let index = config.index.replace(
        "%Y-%m-%d",
        &jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
    );
    let output = Elasticsearch::open(config.clone(), REAL).unwrap();
    let said = async || {
        let findings = output.inspect().await;
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        text.join("\n")
    };
    let before = said().await;
    for part in [
        "is made by the first document",
        "is installed at the start",
        "of its disk is free",
        "clock agrees",
    ] {
        assert!(before.contains(part), "{part}: {before}");
    }
    assert!(!before.contains("problem"), "{before}");
    let blocked = json!({"settings": {"number_of_replicas": 0, "index.blocks.write": true}});
    request(&config, Method::PUT, &format!("/{index}"), blocked).await;
    let after = said().await;
    assert!(
        after.contains("problem") && after.contains("has a block"),
        "{after}"
    );
    request(&config, Method::DELETE, &format!("/{index}"), Value::Null).await;
    let nobody = ElasticsearchConfig {
        urls: vec!["http://127.0.0.1:1".into()],
        ..config
    };
    let findings = Elasticsearch::open(nobody, REAL).unwrap().inspect().await;
    assert!(
        matches!(&findings[..], [Finding::Problem(said)] if said.contains("cannot be used")),
        "{findings:?}"
    );
}

/// Major version of the Java that nodes run on; 0 without one.
fn java_version() -> u32 {
    let java =
        std::env::var("JAVA_HOME").map_or_else(|_| "java".to_owned(), |home| format!("{home}/bin/java"));
    let output = std::process::Command::new(java).arg("--version").output();
    let text = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    let number = text
        .split_whitespace()
        .nth(1)
        .and_then(|version| version.split('.').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn everything(url: &str) {
    the_store_is_inspected(url).await;
    fields::fields_are_stored(url).await;
    others_do_not_wait(url).await;
    a_trace_is_one_document_over_rollovers(url).await;
    the_template_keeps_to_itself(url).await;
    streams::data_streams(url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_troubles_elasticsearch_8() {
    let node = need!(testkit::shared());
    everything(&node.url()).await;
    rebuilt_sources_are_joined(&node.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_troubles_elasticsearch_9() {
    // Elasticsearch 9 does not run on the Java that 8 and OpenSearch need.
    if java_version() < 21 {
        eprintln!("SKIPPED: Elasticsearch 9 needs JAVA_HOME with Java 21 or later");
        return;
    }
    let node = need!(testkit::Node::start(testkit::Kind::ELASTICSEARCH_9));
    everything(&node.url()).await;
    rebuilt_sources_are_joined(&node.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_troubles_opensearch() {
    let node = need!(testkit::Node::start(testkit::Kind::OPENSEARCH));
    everything(&node.url()).await;
}
