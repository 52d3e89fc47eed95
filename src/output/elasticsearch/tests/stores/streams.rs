//! Data streams on real nodes: made by Windrow's template, one document per trace over rollovers,
//! and what cannot be kept is refused.

use super::proxy::Proxy;
use super::*;
use crate::output::elasticsearch::target::Target;

const MILLISECOND: i64 = 1_000_000;

/// All cases that fit into a run of some seconds.
pub(super) async fn data_streams(url: &str) {
    a_stream_is_made_and_rolls_over(url).await;
    rollovers_at_every_point_leave_one_document(url).await;
    a_create_by_a_stale_node_is_joined(url).await;
    records_without_a_trace_are_not_doubled(url).await;
    deferred_and_copied_documents_are_one(url).await;
    what_cannot_be_kept_is_refused(url).await;
}

fn stream(url: &str, name: &str) -> ElasticsearchConfig {
    let config = config(url, name);
    ElasticsearchConfig {
        index: config.index.replace("-%Y-%m-%d", ""),
        data_stream: true,
        ..config
    }
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

/// A part of one line.
fn line(id: &str, part: u8, first_ns: i64) -> Vec<u8> {
    let text = format!("line {part}");
    rendered(id, part, first_ns, &[json!({"traceId": id, "message": text})])
}

impl Case {
    async fn roll_over(&self) {
        let path = format!("/{}/_rollover", self.config.index);
        let rolled = self.request(Method::POST, &path, Value::Null).await;
        assert_eq!(rolled["rolled_over"], true, "{rolled}");
    }

    /// The indices of the data stream, the oldest first.
    async fn generations(&self) -> Vec<String> {
        let path = format!("/_resolve/index/{}?expand_wildcards=all", self.config.index);
        let found = self.request(Method::GET, &path, Value::Null).await;
        let indices = found["data_streams"][0]["backing_indices"].as_array();
        let indices = indices.unwrap_or_else(|| panic!("{found}"));
        indices
            .iter()
            .map(|index| index.as_str().unwrap().to_owned())
            .collect()
    }

    async fn streamed(&self) -> BTreeMap<String, (String, Value)> {
        self.documents_in(&self.config.index).await
    }
}

/// The stream is made by the first document; a trace whose life spans three generations is one
/// document in the first.
async fn a_stream_is_made_and_rolls_over(url: &str) {
    let config = ElasticsearchConfig {
        retention: Some(Duration::from_secs(30 * 86_400)),
        ..stream(url, "stream")
    };
    let inspected = Elasticsearch::open(config.clone(), REAL).unwrap();
    let findings = async || {
        let findings = inspected.inspect().await;
        findings
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let before = findings().await;
    assert!(!before.contains("problem"), "{before}");
    let mut case = Case::start(config);
    let first = now();
    let write = async |case: &mut Case, id: &str, part: u8| {
        let at = first + i64::from(part) * MILLISECOND;
        case.write(id, &line(id, part, at), at).await;
    };
    write(&mut case, "long", 1).await;
    write(&mut case, "long", 2).await;
    for part in [3, 5] {
        case.roll_over().await;
        let own = format!("own{part}");
        write(&mut case, &own, part).await;
        write(&mut case, "long", part).await;
        write(&mut case, &own, part + 1).await;
        // As after a restart.
        write(&mut case, &own, part).await;
        write(&mut case, "long", part + 1).await;
    }
    let (generations, documents) = (case.generations().await, case.streamed().await);
    assert_eq!(
        (generations.len(), documents.len()),
        (3, 3),
        "{:?}",
        documents.keys()
    );
    for (n, (id, lines)) in [("long", 6), ("own3", 2), ("own5", 2)].into_iter().enumerate() {
        let (index, document) = &documents[id];
        assert_eq!(
            (index, &document["windrow"]["parts"]),
            (&generations[n], &json!(lines)),
            "{id}"
        );
    }
    let after = findings().await;
    assert!(after.contains("is a data stream of 3 indices"), "{after}");
    // With what the store has: none of the test nodes has policies.
    let name = format!("{}-data-streams", case.config.template.as_ref().unwrap().name);
    let template = case
        .request(Method::GET, &format!("/_index_template/{name}"), Value::Null)
        .await;
    let template = &template["index_templates"][0]["index_template"];
    assert_eq!(template["index_patterns"], json!([case.config.index]));
    assert!(template["data_stream"].is_object(), "{template}");
    if template["template"]["settings"]["index"]["mode"] == "standard" {
        assert_eq!(
            template["template"]["lifecycle"]["data_retention"], "43200m",
            "{template}"
        );
    }
    assert_eq!(case.end().await, 0);
}

/// A rollover before each of the requests that two writers send for the parts of one trace.
async fn rollovers_at_every_point_leave_one_document(url: &str) {
    const REQUESTS: u64 = 6;
    let config = stream(url, "point");
    let proxy = Proxy::start(url).await;
    let through = |config: &ElasticsearchConfig| ElasticsearchConfig {
        urls: vec![proxy.url.clone()],
        ..config.clone()
    };
    let mut one = Case::start(through(&config));
    let mut other = Case::start(through(&config));
    let first = now();
    one.write("warm", &line("warm", 1, first), first).await;
    for point in 0..REQUESTS {
        let id = format!("t{point}");
        proxy.roll_over_before(point, &config.index);
        for part in 0..4_u8 {
            let at = first + i64::from(part) * MILLISECOND;
            // Both at once, with lines of their own and one that both have.
            one.give(&id, &line(&id, 10 + part, at), at).await;
            other.give(&id, &line(&id, 20 + part, at), at).await;
            other.give(&id, &line(&id, 10 + part, at), at).await;
        }
        let (confirmed, others) = (one.running.confirmed.clone(), other.running.confirmed.clone());
        let (given, others_given) = (one.given, other.given);
        until(&format!("{id} is confirmed"), || {
            confirmed.count() == given && others.count() == others_given
        })
        .await;
        assert!(!proxy.waits(), "rollover {point} did not happen");
    }
    assert_eq!(one.generations().await.len() as u64, 1 + REQUESTS);
    let documents = one.streamed().await;
    assert_eq!(documents.len() as u64, 1 + REQUESTS, "{:?}", documents.keys());
    for point in 0..REQUESTS {
        let (_, document) = &documents[&format!("t{point}")];
        assert_eq!(document["windrow"]["parts"], 8, "{document}");
    }
    assert_eq!(other.running.dead_letter.usage().entries, 0);
    other.running.finish().await;
    assert_eq!(one.end().await, 0);
}

/// A node that does not know of the rollover creates in the generation before, after others have
/// looked there.
async fn a_create_by_a_stale_node_is_joined(url: &str) {
    let config = ElasticsearchConfig {
        // Longer than the writes of the test take.
        rollover_settle: Duration::from_secs(4),
        ..stream(url, "stale")
    };
    let proxy = Proxy::start(url).await;
    let mut fresh = Case::start(config.clone());
    let mut stale = Case::start(ElasticsearchConfig {
        urls: vec![proxy.url.clone()],
        ..config.clone()
    });
    let first = now();
    fresh.write("warm", &line("warm", 1, first), first).await;
    stale.write("warm", &line("warm", 2, first), first).await;
    let old = fresh.generations().await.pop().unwrap();
    proxy.be_stale(&config.index, &old);
    fresh.roll_over().await;
    let ids: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    for id in &ids {
        fresh.give(id, &line(id, 1, first), first).await;
    }
    // All of them are there, and their writer has looked into the generation before.
    let new = fresh.generations().await.pop().unwrap();
    for id in &ids {
        let path = format!("/{new}/_doc/{id}");
        until_async("it is in the new generation", async || fresh.has(&path).await).await;
    }
    let settling = fresh.running.confirmed.clone();
    assert_eq!(settling.count(), 1, "claims are kept");
    for id in &ids {
        stale.give(id, &line(id, 2, first), first).await;
    }
    for id in &ids {
        let path = format!("/{old}/_doc/{id}");
        until_async("it is in the old generation", async || fresh.has(&path).await).await;
    }
    proxy.be_fresh();
    let (a, b) = (fresh.running.confirmed.clone(), stale.running.confirmed.clone());
    until("all are settled", || a.count() == 21 && b.count() == 21).await;
    let documents = fresh.streamed().await;
    assert_eq!(documents.len(), 21, "{:?}", documents.keys());
    for id in &ids {
        let (index, document) = &documents[id];
        assert_eq!(
            (index, &document["message"]),
            (&old, &json!("line 1\nline 2")),
            "{id}"
        );
    }
    // One that ends before its documents are settled confirms none of them.
    fresh.roll_over().await;
    fresh.give("last", &line("last", 1, first), first).await;
    let path = format!("/{}/_doc/last", fresh.generations().await.pop().unwrap());
    until_async("it is stored", async || fresh.has(&path).await).await;
    let (confirmed, _) = fresh.running.finish().await;
    assert!(!confirmed.contains_key("last/22"), "{confirmed:?}");
    stale.write("last", &line("last", 1, first), first).await;
    assert_eq!(stale.streamed().await["last"].1["message"], "line 1");
    assert_eq!(stale.end().await, 0);
}

/// A record that belongs to no trace and is written again after a rollover is stored once.
async fn records_without_a_trace_are_not_doubled(url: &str) {
    let mut case = Case::start(stream(url, "alone"));
    let first = now();
    let json = line("r", 1, first);
    let json = std::str::from_utf8(&json).unwrap();
    for round in 0..3 {
        let sealed = case
            .running
            .sealed_text("r", &round.to_string(), first, json, false);
        case.given += 1;
        case.running.give(vec![sealed]).await;
        let (confirmed, given) = (case.running.confirmed.clone(), case.given);
        until("it is confirmed", || confirmed.count() == given).await;
        assert_eq!(case.streamed().await.len(), 1);
        case.roll_over().await;
    }
    let generations = case.generations().await;
    assert_eq!(case.streamed().await["r"].0, generations[0]);
    assert_eq!(case.end().await, 0);
}

/// Documents that waited on disk and copies are one over rollovers as well, with a route to a
/// stream.
async fn deferred_and_copied_documents_are_one(url: &str) {
    let config = stream(url, "routed");
    let copies = format!("{}-errors", config.index);
    let text = format!(
        "[elasticsearch]\nindex = \"{0}-%Y-%m-%d\"\n[[route]]\nwhen = {{ level = \"info\" }}\n\
         data_stream = \"{0}\"\n[[copy]]\nwhen = {{ message = {{ contains = \"line 2\" }} }}\ndata_stream = \"{copies}\"\n",
        config.index
    );
    let loaded = crate::gather::router_test_config(&text);
    let destinations = Arc::new(Destinations::of(&loaded).unwrap());
    let routed = destinations.named(&config.index).unwrap();
    let upserter = Upserter::open(&config, REAL, Arc::clone(&destinations), Arc::default()).unwrap();
    let client = &upserter.client;
    let template = config.template.as_ref().unwrap();
    let lifecycle = super::super::super::lifecycle::install(client, &config, true).await;
    let named = IndexTemplate {
        name: format!("{}-data-streams", template.name),
        ..template.clone()
    };
    let installed = install::install(client, &named, &lifecycle).await;
    assert!(
        matches!(installed, install::InstallResult::Done(_)),
        "{installed:?}"
    );
    let first = now();
    let entry = |part: u8| dead_letter::Entry {
        time: jiff::Timestamp::now(),
        source: "elasticsearch".into(),
        status: None,
        kind: "waits".into(),
        reason: String::new(),
        index: Some(config.index.clone()),
        destination: Some(config.index.clone()),
        id: Some("t".into()),
        is_trace: Some(true),
        first_ns: Some(first),
        lines: Some(1),
        parts: Vec::new(),
        content: dead_letter::EntryContent::Document(line("t", part, first).into()),
    };
    let case = Case::start(ElasticsearchConfig {
        // Its own would match fewer names.
        template: None,
        ..config.clone()
    });
    for part in 1..=4 {
        let refusals = dead_letter_replay::Refusals::Final;
        let base = Duration::from_millis(50);
        let entries = [entry(part), entry(1)];
        let outcomes = dead_letter_replay::replay_entries(&upserter, base, &entries, refusals).await;
        assert_eq!(outcomes, vec![crate::output::replay::ReplayOutcome::Written; 2]);
        for name in [&config.index, &copies] {
            let path = format!("/{name}/_rollover");
            case.request(Method::POST, &path, Value::Null).await;
        }
    }
    assert!(matches!(client.targets.known(&copies), Target::Generations(_)));
    assert_eq!(destinations.get(routed).indices.text(), config.index);
    for name in [&config.index, &copies] {
        let documents = case.documents_in(name).await;
        assert_eq!(documents.len(), 1, "{name}");
        assert_eq!(
            documents["t"].1["windrow"]["parts"], 4,
            "{name}: {:?}",
            documents["t"]
        );
    }
    let path = format!("/_data_stream/{copies}");
    case.request(Method::DELETE, &path, Value::Null).await;
    case.end().await;
    let path = format!("/_index_template/{}", named.name);
    request(&config, Method::DELETE, &path, Value::Null).await;
}

/// What cannot be kept is refused with the reason, and nothing is lost.
async fn what_cannot_be_kept_is_refused(url: &str) {
    let dimension = json!({"properties": {"@timestamp": {"type": "date"},
        "host": {"type": "keyword", "time_series_dimension": true}}});
    let time_series = json!({"data_stream": {}, "template": {"mappings": dimension,
        "settings": {"index.mode": "time_series", "index.routing_path": ["host"], "number_of_replicas": 0}}});
    let index_only = json!({"template": {"settings": {"number_of_replicas": 0}}});
    for (mut template, said) in [(time_series, "TSDB"), (index_only, "makes a data stream")] {
        let config = ElasticsearchConfig {
            template: None,
            ..stream(url, "unfit")
        };
        let name = config.index.clone();
        template["index_patterns"] = json!([&name]);
        template["priority"] = json!(500);
        let path = format!("/_index_template/{name}");
        let made = request(&config, Method::PUT, &path, template).await;
        if made["acknowledged"] != true {
            eprintln!("a store without {said}: {made}");
            continue;
        }
        let findings = Elasticsearch::open(config.clone(), REAL).unwrap().inspect().await;
        let findings = findings.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(
            findings.iter().any(|finding| finding.contains(said)),
            "{findings:?}"
        );
        let mut case = Case::start(config.clone());
        let first = now();
        case.give("a", &line("a", 1, first), first).await;
        let health = case.running.output.health().clone();
        reported(&health, WaitReason::Blocked).await;
        let reason = health.reasons()[0].1.clone();
        assert!(reason.contains(said), "{reason}");
        // The operator mends the template: the document is stored.
        let fitting = json!({"index_patterns": [&name], "priority": 500, "data_stream": {},
            "template": {"settings": {"number_of_replicas": 0}}});
        let mended = request(&config, Method::PUT, &path, fitting).await;
        assert_eq!(mended["acknowledged"], true, "{mended}");
        case.running.output.upserter.client.targets.doubt(&name);
        let confirmed = case.running.confirmed.clone();
        until("it is confirmed", || confirmed.count() == 1).await;
        assert_eq!(case.streamed().await.len(), 1);
        case.end().await;
        request(&config, Method::DELETE, &path, Value::Null).await;
    }
}
