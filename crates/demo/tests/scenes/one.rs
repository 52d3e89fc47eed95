//! Scene 1: server, client, real Fluent Bit with the configuration that users copy, Windrow, real
//! Elasticsearch.

use serde_json::{Value, json};
use windrow_testkit::{elasticsearch, need};

use crate::{
    fluent_bit::{self, Place},
    stage::{self, App, SOON, answered, client},
};

#[test]
fn twenty_requests_are_twenty_documents_in_elasticsearch() {
    let Some(setup) = stage::windrow("scene 1") else {
        return;
    };
    let Some(fluent_bit) = fluent_bit::fluent_bit("scene 1") else {
        return;
    };
    let node = need!(elasticsearch::shared());
    let elasticsearch = node.client();
    let windrow = setup.elasticsearch(&node.url(), "requests").start();
    let place = Place::towards(windrow.forward().port());
    let mut server = App::server(place.folder.path());
    let place = place.with("LOG_PATH", server.log.to_str().unwrap());
    let agent = place.start(&fluent_bit, &["-c", "tail-forward.conf"], "fluent-bit.out");

    let target = format!("{}hello", server.url);
    let mut client = client(&target, 20, &["--concurrency", "3", "--interval", "100ms"]);
    let status = client.wait(SOON);
    assert!(status.success(), "{}", client.last_words(30));
    let traces = answered(&client);
    assert_eq!(traces.len(), 20, "{}", client.last_words(30));

    let logged = stage::logged(place.folder.path());
    stage::assert_stored(&logged, || elasticsearch.documents("requests-*"));
    for trace in &traces {
        let found = elasticsearch.term("requests-*", "traceId.keyword", trace);
        assert_eq!(found.len(), 1, "{trace}: {found:?}\n{}", agent.text());
        let document = &found[0].source;
        assert_eq!(document["message"], "handler finished\nrequest completed");
        assert_eq!(
            (&document["method"], &document["path"], &document["status"]),
            (&json!("GET"), &json!("/hello"), &json!(200))
        );
        assert!(document["latencyMs"].is_number(), "{document}");
        let day = &document["@timestamp"].as_str().unwrap()[..10];
        assert_eq!(found[0].index, format!("requests-{day}"));
    }
    assert_eq!(elasticsearch.count("requests-*"), 20, "and nothing else");

    let query = json!({"size": 5, "sort": [{"@timestamp": "desc"}]});
    let newest = elasticsearch
        .request("POST", "requests-*/_search", Some(&query))
        .unwrap()
        .json();
    let times = |documents: &[Value]| -> Vec<String> {
        let time = |hit: &Value| hit["_source"]["@timestamp"].as_str().unwrap().to_owned();
        documents.iter().map(time).collect()
    };
    let newest = times(newest["hits"]["hits"].as_array().unwrap());
    let mut all: Vec<String> = elasticsearch
        .documents("requests-*")
        .iter()
        .map(|stored| stored.source["@timestamp"].as_str().unwrap().to_owned())
        .collect();
    all.sort_unstable_by(|one, two| two.cmp(one));
    assert_eq!(newest, all[..5]);
    stage::stop(&mut server.process);
}
