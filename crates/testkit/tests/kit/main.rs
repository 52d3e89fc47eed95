//! Tests of the test kit: a check that finds no fault, or a load that sends nothing, would make
//! every other test worthless.

#![expect(clippy::unwrap_used, reason = "a test")]

mod loggers;

use std::time::Duration;

use serde_json::{Value, json};
use windrow_testkit::capture::Capture;
use windrow_testkit::check::{Stored, compare};
use windrow_testkit::elasticsearch::{self, Client};
use windrow_testkit::fake_elasticsearch::{FakeElasticsearch, Faults};
use windrow_testkit::load::{Entries, Ids, Ledger, Load, Mode, Time};
use windrow_testkit::{http, need};

fn small(capture: &Capture, mode: Mode) -> Load {
    Load {
        traces: 7,
        lines: 3,
        open: 4,
        chunk_records: 5,
        mode,
        ..Load::new(capture.address(), "kit")
    }
}

/// The entries of a captured message, decompressed: (time, metadata if v2, record).
fn entries(message: &rmpv::Value) -> Vec<rmpv::Value> {
    let parts = message.as_array().unwrap();
    match &parts[1] {
        rmpv::Value::Array(entries) => entries.clone(),
        rmpv::Value::Binary(bytes) => {
            let options = parts[2].as_map().unwrap();
            let gzip = options
                .iter()
                .any(|(key, value)| key.as_str() == Some("compressed") && value.as_str() == Some("gzip"));
            let mut plain = Vec::new();
            if gzip {
                std::io::copy(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain).unwrap();
            } else {
                plain.extend_from_slice(bytes);
            }
            let mut rest = &plain[..];
            let mut found = Vec::new();
            while !rest.is_empty() {
                found.push(rmpv::decode::read_value(&mut rest).unwrap());
            }
            found
        }
        time => vec![rmpv::Value::Array(vec![time.clone(), parts[2].clone()])],
    }
}

fn field<'a>(record: &'a rmpv::Value, name: &str) -> Option<&'a rmpv::Value> {
    record
        .as_map()?
        .iter()
        .find(|(key, _)| key.as_str() == Some(name))
        .map(|(_, value)| value)
}

#[test]
fn every_mode_sends_every_record_once_and_learns_of_every_ack() {
    for mode in [
        Mode::Message,
        Mode::Forward,
        Mode::Packed,
        Mode::Gzip,
        Mode::GzipMembers,
    ] {
        for shape in [Entries::V1, Entries::V2] {
            let capture = Capture::start();
            let report = Load {
                entries: shape,
                window: 3,
                reconnect: 2,
                ..small(&capture, mode)
            }
            .run();
            assert_eq!(report.ledger.acknowledged(), 21, "{mode:?}");
            let mut texts = Vec::new();
            for message in capture.messages() {
                for entry in entries(&message) {
                    let head = &entry.as_array().unwrap()[0];
                    let v2 = shape == Entries::V2 && mode != Mode::Message;
                    assert_eq!(head.is_array(), v2, "{mode:?}");
                    let record = &entry.as_array().unwrap()[1];
                    texts.push(field(record, "message").unwrap().as_str().unwrap().to_owned());
                }
            }
            texts.sort();
            let load = report.ledger.load();
            let mut wanted: Vec<String> = (0..7)
                .flat_map(|trace| (0..3).map(move |line| load.text(trace, line)))
                .collect();
            wanted.sort();
            assert_eq!(texts, wanted, "{mode:?}");
        }
    }
}

#[test]
fn event_times_ascend_within_a_trace_and_are_those_on_the_wire() {
    for time in [Time::EventTime, Time::Integer, Time::Float] {
        let capture = Capture::start();
        let report = Load {
            time,
            connections: 1,
            per_second: 3,
            ..small(&capture, Mode::Forward)
        }
        .run();
        let load = report.ledger.load();
        let mut sent = Vec::new();
        for entry in capture.messages().iter().flat_map(entries) {
            let parts = entry.as_array().unwrap();
            let ns = match &parts[0] {
                rmpv::Value::Ext(0, bytes) => {
                    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
                    i64::from(number(0)) * 1_000_000_000 + i64::from(number(4))
                }
                rmpv::Value::F64(seconds) => (seconds * 1e6).round() as i64 * 1000,
                integer => integer.as_i64().unwrap() * 1_000_000_000,
            };
            sent.push((
                field(&parts[1], "message").unwrap().as_str().unwrap().to_owned(),
                ns,
            ));
        }
        for trace in 0..load.traces {
            let mut before = 0;
            for line in 0..load.lines {
                let ns = sent
                    .iter()
                    .find(|(text, _)| *text == load.text(trace, line))
                    .unwrap()
                    .1;
                assert!((ns - load.time_ns(trace, line)).abs() < 1000, "{time:?} {ns}");
                assert!(ns >= before);
                before = ns;
            }
        }
    }
}

#[test]
fn repeats_are_the_same_bytes_and_counted_ids_meet() {
    let capture = Capture::start();
    Load {
        repeat: 2,
        ids: Ids::Counting,
        ..small(&capture, Mode::Packed)
    }
    .run();
    let messages = capture.messages();
    assert_eq!(messages.len(), 10, "three and two chunks, each twice");
    let firsts = messages
        .iter()
        .filter(|message| message[2]["chunk"].as_str() == Some("1"))
        .count();
    assert_eq!(firsts, 4, "two connections, each twice");
    for message in &messages {
        assert_eq!(messages.iter().filter(|other| *other == message).count(), 2);
    }
}

/// What a faultless server would store for a ledger.
fn ideal(ledger: &Ledger) -> Vec<Stored> {
    let load = ledger.load();
    (0..load.traces)
        .map(|trace| {
            let text: Vec<String> = (0..load.lines).map(|line| load.text(trace, line)).collect();
            let time = jiff::Timestamp::from_nanosecond(load.time_ns(trace, 0).into()).unwrap();
            let last = load.lines - 1;
            Stored {
                index: "requests-1".to_owned(),
                id: load.trace_id(trace),
                source: json!({"@timestamp": format!("{time:.3}"), "traceId": load.trace_id(trace),
                    "message": text.join("\n"), "method": if trace % 3 == 0 { "POST" } else { "GET" },
                    "path": "/api/v1/orders", "status": 200, "latencyMs": f64::from(last) * 1.5 + 0.25, "level": "info",
                    "service_name": "order-service", "opened_by": "first line",
                    "context": {"line": -i64::from(last), "list": [true, null]},
                    "windrow": {"lines": load.lines}}),
            }
        })
        .collect()
}

#[test]
fn the_check_passes_what_is_right_and_names_what_is_wrong() {
    let capture = Capture::start();
    let report = small(&capture, Mode::Packed).run();
    let ledger = &report.ledger;
    let good = ideal(ledger);
    compare(ledger, &good).assert_clean();

    let with = |change: &dyn Fn(&mut Vec<Stored>)| {
        let mut documents = good.clone();
        change(&mut documents);
        compare(ledger, &documents)
    };
    let text = |stored: &Stored| stored.source["message"].as_str().unwrap().to_owned();
    assert_eq!(with(&|all| drop(all.pop())).lost.count, 3);
    assert_eq!(
        with(&|all| all.push(all[2].clone())).twice.count,
        4,
        "one document and three lines"
    );
    let swapped = with(&|all| {
        let text = text(&all[0]);
        let lines: Vec<&str> = text.split('\n').rev().collect();
        all[0].source["message"] = lines.join("\n").into();
    });
    assert_eq!(swapped.out_of_order.count, 1);
    let cut = with(&|all| all[1].source["message"] = text(&all[1]).replace("quoted", "quted").into());
    assert_eq!((cut.damaged.count, cut.lost.count), (3, 3));
    let twice = with(&|all| {
        let text = text(&all[1]);
        all[1].source["message"] = format!("{text}\n{}", text.split('\n').next_back().unwrap()).into();
    });
    assert_eq!((twice.twice.count, twice.fields_wrong.count), (1, 1), "{twice}");
    for (name, value) in [
        ("status", json!(102)),
        ("opened_by", Value::Null),
        ("@timestamp", json!("2020-01-01T00:00:00Z")),
        ("windrow", json!({"lines": 4})),
    ] {
        let verdict = with(&|all| all[3].source[name] = value.clone());
        assert_eq!(verdict.fields_wrong.count, 1, "{name}");
        assert!(!verdict.is_clean());
    }
}

/// One `_bulk` request; the items' statuses, or the error.
fn bulk(client: &Client, lines: &[Value]) -> Result<Vec<u64>, String> {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let url = client.url_of("_bulk");
    let answer = http::request("POST", &url, Some(("application/x-ndjson", body.as_bytes())))?;
    if answer.status != 200 {
        return Err(answer.status.to_string());
    }
    let answer: Value = serde_json::from_str(&answer.text).map_err(|error| error.to_string())?;
    let items = answer["items"].as_array().unwrap();
    Ok(items
        .iter()
        .map(|item| {
            item.as_object().unwrap().values().next().unwrap()["status"]
                .as_u64()
                .unwrap()
        })
        .collect())
}

/// The same requests to the fake and to the real one get the same answers, as far as a bulk writer
/// looks.
fn store_rules(client: &Client, index: &str) {
    let create = json!({"create": {"_index": index, "_id": "a"}});
    assert_eq!(
        bulk(
            client,
            &[create.clone(), json!({"n": 1}), create, json!({"n": 2})]
        ),
        Ok(vec![201, 409])
    );
    let wanted = json!({"docs": [{"_index": index, "_id": "a"}, {"_index": index, "_id": "b"},
        {"_index": format!("{index}-none"), "_id": "a"}]});
    let found = client.request("POST", "_mget", Some(&wanted)).unwrap().json();
    assert_eq!(found["docs"][0]["_source"], json!({"n": 1}));
    assert_eq!(found["docs"][1]["found"], false);
    assert_eq!(found["docs"][2]["error"]["type"], "index_not_found_exception");
    let (seq, term) = (&found["docs"][0]["_seq_no"], &found["docs"][0]["_primary_term"]);
    let write = json!({"index": {"_index": index, "_id": "a", "if_seq_no": seq, "if_primary_term": term}});
    assert_eq!(
        bulk(client, &[write.clone(), json!({"n": 3}), write, json!({"n": 4})]),
        Ok(vec![200, 409])
    );
    let delete = json!({"delete": {"_index": index, "_id": "a"}});
    assert_eq!(
        client.term(&format!("{index}*"), "n", "3").len(),
        usize::from(index.starts_with("real"))
    );
    assert_eq!(bulk(client, &[delete.clone(), delete]), Ok(vec![200, 404]));
    assert_eq!(client.count(&format!("{index}*")), 0);
}

#[test]
fn the_fake_keeps_the_rules_of_the_real_elasticsearch() {
    store_rules(&FakeElasticsearch::start().client(), "fake");
    let node = need!(elasticsearch::shared());
    store_rules(&node.client(), "real");
}

#[test]
fn the_fake_plays_its_faults() {
    let mut fake = FakeElasticsearch::start();
    let client = fake.client();
    let one = |id: &str| {
        [
            json!({"create": {"_index": "f", "_id": id}}),
            json!({"text": format!("is {id}")}),
        ]
    };
    fake.set(Faults {
        refuse_every: 2,
        ..Faults::default()
    });
    assert_eq!(bulk(&client, &one("a")), Ok(vec![201]));
    assert_eq!(bulk(&client, &one("b")), Err("429".to_owned()));
    fake.set(Faults {
        lose_answer_every: 1,
        ..Faults::default()
    });
    assert!(bulk(&client, &one("lost")).is_err());
    fake.set(Faults {
        drop_before_every: 1,
        ..Faults::default()
    });
    assert!(bulk(&client, &one("dropped")).is_err());
    fake.set(Faults {
        cut_answer_every: 1,
        ..Faults::default()
    });
    assert!(bulk(&client, &one("cut")).is_err());
    fake.set(Faults {
        item_429_every: 2,
        poison: Some("is bad".to_owned()),
        ..Faults::default()
    });
    let three = [one("good"), one("full"), one("bad")].concat();
    assert_eq!(bulk(&client, &three), Ok(vec![201, 429, 400]));
    fake.stop();
    assert!(bulk(&client, &one("gone")).is_err());
    fake.start_again();
    let ids: Vec<String> = fake.documents("f").into_iter().map(|stored| stored.id).collect();
    assert_eq!(ids, ["a", "cut", "good", "lost"]);
}

#[test]
fn a_real_node_comes_back_after_a_kill_with_what_it_had() {
    let mut node = need!(elasticsearch::Node::start(elasticsearch::Kind::ELASTICSEARCH));
    let client = node.client();
    let lines: Vec<Value> = (0..12_000)
        .flat_map(|n| {
            [
                json!({"create": {"_index": "many", "_id": n.to_string()}}),
                json!({"n": n}),
            ]
        })
        .collect();
    assert!(bulk(&client, &lines).unwrap().iter().all(|status| *status == 201));
    node.kill();
    assert!(client.request("GET", "_cluster/health", None).is_err());
    node.start_again();
    windrow_testkit::wait::until("the recovered index", Duration::from_secs(60), || {
        let health = client.request(
            "GET",
            "_cluster/health/many?wait_for_status=yellow&timeout=1s",
            None,
        )?;
        if health.status == 200 {
            Ok(())
        } else {
            Err(health.text)
        }
    });
    assert_eq!(client.count("many"), 12_000);
    let mut numbers: Vec<u64> = client
        .documents("many*")
        .iter()
        .map(|stored| stored.source["n"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..12_000), "every document once");
    client.delete("many*");
    assert!(client.indices("many*").is_empty());
}

#[test]
fn the_client_sends_single_messages() {
    use windrow_testkit::client::Client;
    let capture = Capture::start();
    let mut client = Client::connect(capture.address());
    client.send(
        "app",
        "one",
        &[(5, 6, json!({"a": [1, -2, 0.5, null, true], "b": {"c": "d"}}))],
    );
    let messages = capture.messages();
    assert_eq!(messages[0][2]["chunk"].as_str(), Some("one"));
    let entry = &messages[0][1][0];
    assert_eq!(entry[0], rmpv::Value::Ext(0, vec![0, 0, 0, 5, 0, 0, 0, 6]));
    assert_eq!(
        entry[1].to_string(),
        r#"{"a": [1, -2, 0.5, nil, true], "b": {"c": "d"}}"#
    );
}

#[test]
fn opensearch_starts_and_keeps_the_same_rules() {
    let node = need!(elasticsearch::Node::start(elasticsearch::Kind::OPENSEARCH));
    store_rules(&node.client(), "real");
}
