//! Tests against a real Elasticsearch: a node that the test starts, or the one (or OpenSearch) at
//! `WINDROW_TEST_ELASTICSEARCH`, such as `http://127.0.0.1:9200`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use windrow_testkit::{elasticsearch as testkit, env::Missing, need};

use super::*;

/// Address of the node, and an index pattern of the test's own.
pub(super) fn node(name: &str) -> Result<ElasticsearchConfig, Missing> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let url = match std::env::var("WINDROW_TEST_ELASTICSEARCH") {
        Ok(url) => url,
        Err(_) => testkit::shared()?.url(),
    };
    let own = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let template = IndexTemplate {
        name: own.clone(),
        shards: Some(1),
        replicas: Some(0),
        trace_id_keyword: true,
        ..Default::default()
    };
    Ok(ElasticsearchConfig {
        index: format!("{own}-%Y-%m-%d"),
        template: Some(template),
        ..quick(&url)
    })
}

pub(super) async fn request(
    config: &ElasticsearchConfig,
    method: reqwest::Method,
    path: &str,
    body: Value,
) -> Value {
    let cluster = Upserter::open(config, RULES, destinations(config), Arc::default()).unwrap();
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut request = http::Request::json(method, path, body);
    request.max_response_bytes = 64 << 20;
    let reply = cluster.client.ask(&request).await.unwrap();
    assert!(
        reply.status < 500,
        "{path}: {}",
        String::from_utf8_lossy(&reply.body)
    );
    serde_json::from_slice(&reply.body).unwrap()
}

fn index(config: &ElasticsearchConfig, day: &str) -> String {
    config.index.replace("%Y-%m-%d", day)
}

/// All documents of the pattern by (index, id).
async fn documents(config: &ElasticsearchConfig) -> BTreeMap<(String, String), Value> {
    use reqwest::Method;
    let all = config.index.replace("%Y-%m-%d", "*");
    request(config, Method::POST, &format!("/{all}/_refresh"), Value::Null).await;
    let found = request(
        config,
        Method::POST,
        &format!("/{all}/_search"),
        json!({"size": 10000}),
    )
    .await;
    let hits = found["hits"]["hits"].as_array().unwrap();
    let one = |hit: &Value| {
        (
            key(hit["_index"].as_str().unwrap(), hit["_id"].as_str().unwrap()),
            hit["_source"].clone(),
        )
    };
    hits.iter().map(one).collect()
}

async fn remove(config: &ElasticsearchConfig) {
    use reqwest::Method;
    for (index, _) in documents(config).await.into_keys().collect::<HashSet<_>>() {
        request(config, Method::DELETE, &format!("/{index}"), Value::Null).await;
    }
    let name = &config.template.as_ref().unwrap().name;
    request(
        config,
        Method::DELETE,
        &format!("/_index_template/{name}"),
        Value::Null,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_documents_merges_and_dead_letters() {
    let config = ElasticsearchConfig {
        on_conflict: crate::config::OnConflict::DeadLetter,
        ..need!(node("merge"))
    };
    let today = index(&config, "2026-11-21");
    let running = Running::start(config.clone());
    running
        .give(
            (0..200)
                .map(|n| running.part(&format!("t{n}"), "p", NOON))
                .collect(),
        )
        .await;
    until("confirmed", || running.confirmed.count() == 200).await;
    // Again in part, with a second part, with a strange id, and with a field that does not
    // fit.
    let mut documents_given: Vec<_> = (0..100)
        .map(|n| running.part(&format!("t{n}"), "q", NOON))
        .collect();
    documents_given.push(running.part("a \"quoted\" \\ id \n é/%2F?", "p", NOON));
    documents_given.push(running.sealed("number", "p", NOON, &json!({"status": 200, "parts": {}}), true));
    running.give(documents_given).await;
    until("confirmed", || running.confirmed.count() == 302).await;
    running
        .give(vec![running.sealed(
            "text",
            "p",
            NOON,
            &json!({"status": "no", "parts": {}}),
            true,
        )])
        .await;
    until("confirmed", || running.confirmed.count() == 303).await;
    let dead_letter = running.dead_letter.clone();
    assert_eq!(dead_letter.usage().entries, 1);
    let entry = std::fs::read_to_string(dead_letter.folder().join("001.ndjson")).unwrap();
    assert!(
        entry.contains("_parsing_exception") && entry.contains("[status]"),
        "{entry}"
    );
    let (_, stats) = running.finish().await;
    assert_eq!(stats.merges.load(Relaxed), 100);
    let stored = documents(&config).await;
    assert_eq!(stored.len(), 202);
    assert_eq!(part_names(&stored[&key(&today, "t5")]), HashSet::from(["p", "q"]));
    assert_eq!(part_names(&stored[&key(&today, "t150")]), HashSet::from(["p"]));
    assert!(stored.contains_key(&key(&today, "a \"quoted\" \\ id \n é/%2F?")));
    remove(&config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_template_and_search() {
    use reqwest::Method;
    let config = need!(node("template"));
    let today = index(&config, "2026-11-21");
    let running = Running::start(config.clone());
    let document = |id: &str, second: i64| {
        json!({"@timestamp": format!("2026-11-21T09:20:{second:02}.123456789Z"), "traceId": id,
            "message": format!("handler finished\nrequest completed {}", "x".repeat(40_000)), "path": "/hello",
            "when": "2026-11-21", "parts": {},
            "windrow": {"reason": "completed", "lines": 2, "last": "2026-11-21T09:20:00.175Z", "durationMs": 52,
                "tags": ["app"], "parts": 1, "late": 0, "state": "A-_".repeat(400_000)}})
    };
    let given: Vec<_> = (0..5)
        .map(|n| {
            running.sealed(
                &format!("abc{n}"),
                "p",
                NOON,
                &document(&format!("abc{n}"), n),
                true,
            )
        })
        .collect();
    running.give(given).await;
    // A string that looked like a date once, and one that does not.
    let later = json!({"traceId": "later", "when": "tomorrow", "parts": {}});
    running
        .give(vec![running.sealed("later", "p", NOON, &later, true)])
        .await;
    let output = running.output.clone();
    let dead_letter = running.dead_letter.clone();
    until("confirmed", || running.confirmed.count() == 6).await;
    assert_eq!(dead_letter.usage().entries, 0);
    assert_eq!(documents(&config).await.len(), 6);

    let mapping = request(&config, Method::GET, &format!("/{today}/_mapping"), Value::Null).await;
    let properties = &mapping[&today]["mappings"]["properties"];
    assert_eq!(properties["traceId"]["type"], "keyword");
    assert_eq!(properties["traceId"]["fields"]["keyword"]["type"], "keyword");
    assert_eq!(properties["message"]["type"], "text");
    assert_eq!(properties["@timestamp"]["type"], "date");
    assert_eq!(properties["windrow"]["properties"]["state"]["enabled"], false);
    assert_eq!(properties["when"]["type"], "text");
    assert_eq!(properties["path"]["fields"]["keyword"]["type"], "keyword");
    for query in [
        json!({"term": {"traceId": "abc2"}}),
        json!({"term": {"traceId.keyword": "abc2"}}),
        json!({"bool": {"filter": [{"match": {"message": "completed"}}, {"ids": {"values": ["abc2"]}}]}}),
    ] {
        let found = request(
            &config,
            Method::POST,
            &format!("/{today}/_search"),
            json!({"query": query}),
        )
        .await;
        assert_eq!(found["hits"]["total"]["value"], 1, "{query}");
    }

    let recent = output.recent(None, 3).await.unwrap();
    let ids = |found: &[Box<RawValue>]| -> Vec<String> {
        let id = |raw: &RawValue| {
            serde_json::from_str::<Value>(raw.get()).unwrap()["traceId"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        found.iter().map(|raw| id(raw)).collect()
    };
    assert_eq!(ids(&recent), ["abc4", "abc3", "abc2"]);
    assert_eq!(ids(&output.recent(Some("abc1"), 10).await.unwrap()), ["abc1"]);
    assert!(output.recent(Some("nobody"), 10).await.unwrap().is_empty());
    running.finish().await;
    remove(&config).await;
    assert!(
        output.recent(None, 10).await.unwrap().is_empty(),
        "no index at all is no error"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_midnight_with_several_writers() {
    let config = need!(node("midnight"));
    let yesterday = index(&config, "2026-11-20");
    let writers: Vec<_> = (0..3)
        .map(|_| {
            Running::start(ElasticsearchConfig {
                bulk_bytes: 2000,
                ..config.clone()
            })
        })
        .collect();
    for part in 0..4 {
        for (w, running) in writers.iter().enumerate() {
            let side = if (w + part) % 2 == 0 {
                -1_000_000_000
            } else {
                1_000_000_000
            };
            let name = format!("w{w}p{part}");
            running
                .give(
                    (0..25)
                        .map(|n| running.part(&format!("t{n}"), &name, MIDNIGHT + side))
                        .collect(),
                )
                .await;
        }
    }
    for running in writers {
        assert_eq!(running.finish().await.0.len(), 100);
    }
    let stored = documents(&config).await;
    assert_eq!(stored.len(), 25, "{:?}", stored.keys());
    for ((index, _), document) in &stored {
        assert_eq!(*index, yesterday);
        assert_eq!(part_names(document).len(), 12);
    }
    remove(&config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_read_only_index_waits_and_goes_on() {
    use reqwest::Method;
    let config = need!(node("blocked"));
    let today = index(&config, "2026-11-21");
    let running = Running::start(config.clone());
    running.give(vec![running.part("a", "p", NOON)]).await;
    until("confirmed", || running.confirmed.count() == 1).await;
    request(
        &config,
        Method::PUT,
        &format!("/{today}/_settings"),
        json!({"index.blocks.write": true}),
    )
    .await;
    running
        .give(vec![running.part("b", "p", NOON), running.part("a", "q", NOON)])
        .await;
    let health = running.output.health().clone();
    reported(&health, WaitReason::Blocked).await;
    assert_eq!(running.confirmed.count(), 1);
    request(
        &config,
        Method::PUT,
        &format!("/{today}/_settings"),
        json!({"index.blocks.write": false}),
    )
    .await;
    until("confirmed", || running.confirmed.count() == 3).await;
    assert_eq!(running.dead_letter.usage().entries, 0);
    running.finish().await;
    assert_eq!(health.state(), OutputState::Ok);
    assert_eq!(documents(&config).await.len(), 2);
    remove(&config).await;
}
