//! Every configuration in `fluent-bit/`, with a real Fluent Bit when there is one: `--dry-run`, and
//! real log lines through it to a Forward listener (a second Fluent Bit). Without one their syntax
//! is checked, and `SKIPPED` is printed.
//!
//! `FLUENT_BIT` names the program; else it is looked for on the PATH.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;

use serde_json::{Value, json};
use windrow_testkit::certificates::Certificates;

mod fluent_bit;
use fluent_bit::{Place, fluent_bit, folder};

const CONFIGURATIONS: [&str; 14] = [
    "tail-forward.conf",
    "tail-forward.yaml",
    "sidecar.conf",
    "sidecar.yaml",
    "secure.conf",
    "secure.yaml",
    "http.conf",
    "http.yaml",
    "opentelemetry.conf",
    "opentelemetry.yaml",
    "kubernetes/fluent-bit.conf",
    "kubernetes/fluent-bit.yaml",
    "lua-aggregation/fluent-bit.conf",
    "lua-aggregation/fluent-bit.yaml",
];

const LINES: &str = concat!(
    r#"{"time":"2026-11-21T09:20:00.123456Z","level":"info","traceId":"abc","message":"handler finished"}"#,
    "\n",
    r#"{"time":"2026-11-21T10:20:00.175+01:00","level":"info","traceId":"abc","message":"request completed","status":200}"#,
    "\n"
);

#[test]
fn fluent_bit_accepts_every_configuration() {
    let Some(program) = fluent_bit("dry run of the configurations") else {
        return;
    };
    let place = Place::new();
    for configuration in CONFIGURATIONS {
        let run = |name: &str| {
            let mut dry = place.start(&program, &["--dry-run", "-c", name], "dry-run");
            let status = dry.child.wait().unwrap();
            (
                status.success() && dry.text().contains("configuration test is successful"),
                dry.text(),
            )
        };
        let (accepted, text) = run(configuration);
        assert!(accepted, "{configuration}:\n{text}");
        assert!(!text.contains("[error]"), "{configuration}:\n{text}");
        // That the check can fail: a property that does not exist.
        place.edit(configuration, |text| {
            text.replace("forward\n", "forward\n    Nonsense on\n")
                .replace("name: forward\n", "name: forward\n      nonsense: on\n")
                .replace("   http\n", "   http\n    Nonsense on\n")
                .replace("name: http\n", "name: http\n      nonsense: on\n")
                .replace("   opentelemetry\n", "   opentelemetry\n    Nonsense on\n")
                .replace(
                    "name: opentelemetry\n",
                    "name: opentelemetry\n      nonsense: on\n",
                )
                .replace(
                    "    Name                       es\n",
                    "    Name                       es\n    Nonsense on\n",
                )
                .replace("name: es\n", "name: es\n      nonsense: on\n")
        });
        assert!(
            !run(configuration).0,
            "{configuration}: a wrong property was not noticed"
        );
    }
}

#[test]
fn lines_of_a_file_arrive_with_their_times_and_labels() {
    let Some(program) = fluent_bit("tail-forward and sidecar") else {
        return;
    };
    for configuration in [
        "tail-forward.conf",
        "tail-forward.yaml",
        "sidecar.conf",
        "sidecar.yaml",
    ] {
        let place = Place::new();
        fs::write(place.path("app.log"), LINES).unwrap();
        let listener = place.listener(&program, &[]);
        let sender = place.start(&program, &["-c", configuration], "sender");
        let records = listener.wait_for(2, Some(&sender));
        assert_eq!(records.len(), 2, "{configuration}");
        assert_eq!(records[0]["message"], "handler finished");
        assert_eq!(records[1]["status"], 200);
        for (record, time) in records.iter().zip([1_795_252_800.123_456, 1_795_252_800.175]) {
            assert!(
                (record["date"].as_f64().unwrap() - time).abs() < 1e-6,
                "{configuration}: {record}"
            );
            assert_eq!(record["traceId"], "abc");
            let labels = (&record["service_name"], &record["environment"]);
            if configuration.starts_with("sidecar") {
                assert_eq!(labels, (&json!("order"), &json!("demo")), "{configuration}");
            } else {
                assert_eq!(labels, (&Value::Null, &Value::Null), "{configuration}");
            }
        }
    }
}

#[test]
fn lines_arrive_over_tls_with_a_shared_key() {
    let Some(program) = fluent_bit("secure") else {
        return;
    };
    for configuration in ["secure.conf", "secure.yaml"] {
        let place = Place::new();
        let certificates = Certificates::make();
        let (certificate, key) = certificates.server();
        fs::copy(certificates.authority(), place.path("ca.pem")).unwrap();
        fs::write(place.path("app.log"), LINES).unwrap();
        let certificate = format!("tls.crt_file={}", certificate.display());
        let key = format!("tls.key_file={}", key.display());
        let listener = place.listener(
            &program,
            &[
                "tls=on",
                &certificate,
                &key,
                "shared_key=secret",
                "self_hostname=server",
            ],
        );
        let sender = place.start(&program, &["-c", configuration], "sender");
        let records = listener.wait_for(2, Some(&sender));
        assert_eq!(records[1]["message"], "request completed", "{configuration}");
    }
}

const CONTAINER: &str = "\
2026-11-21T09:20:00.123456789+00:00 stdout F {\"level\":\"info\",\"traceId\":\"abc\",\"message\":\"handler finished\"}
2026-11-21T09:20:00.223456789Z stdout P {\"level\":\"info\",\"traceId\":\"abc\",
2026-11-21T09:20:00.223456789Z stdout F \"message\":\"request completed\"}
2026-11-21T09:20:01.000000000Z stderr F java.lang.IllegalStateException: no
2026-11-21T09:20:01.000000001Z stderr F \tat shop.Order.main(Order.java:3)
2026-11-21T09:20:01.000000002Z stderr F Caused by: java.io.IOException: disk
2026-11-21T09:20:01.000000003Z stderr F \t... 1 more
2026-11-21T09:20:02.000000000Z stderr F Traceback (most recent call last):
2026-11-21T09:20:02.000000001Z stderr F   File \"a.py\", line 1, in <module>
2026-11-21T09:20:02.000000002Z stderr F     boom()
2026-11-21T09:20:02.000000003Z stderr F ValueError: no
2026-11-21T09:20:03.000000000Z stdout F 2026-11-21T09:20:03.000Z INFO [abc] order: plain
2026-11-21T09:20:03.000000001Z stdout F and its second line
2026-11-21T09:20:04.000000001Z stdout F {\"traceId\":\"abc\",\"message\":\"the end\"}
";

#[test]
fn container_logs_are_joined_parsed_and_labelled() {
    let Some(program) = fluent_bit("kubernetes") else {
        return;
    };
    for configuration in ["kubernetes/fluent-bit.conf", "kubernetes/fluent-bit.yaml"] {
        let place = Place::new();
        let id = "a".repeat(64);
        let containers = place.path("var/log/containers");
        fs::write(containers.join(format!("order-1_shop_order-{id}.log")), CONTAINER).unwrap();
        let docker = r#"{"log":"{\"traceId\":\"abc\",\"message\":\"from docker\"}\n","stream":"stdout","time":"2026-11-21T09:20:00.5Z"}"#;
        fs::write(
            containers.join(format!("user-1_shop_user-{id}.log")),
            format!("{docker}\n"),
        )
        .unwrap();
        fs::write(
            containers.join(format!("fluent-bit-1_logging_fluent-bit-{id}.log")),
            CONTAINER,
        )
        .unwrap();
        // There is no API server here to ask for the pods.
        place.edit(configuration, |text| {
            text.replace(
                "Buffer_Size                0",
                "Buffer_Size                0\n    Dummy_Meta on",
            )
            .replace("buffer_size: 0", "buffer_size: 0\n      dummy_meta: on")
        });
        let listener = place.listener(&program, &[]);
        let sender = place.start(&program, &["-c", configuration], "sender");
        let records = listener.wait_for(7, Some(&sender));
        let text = |record: &Value| {
            record
                .get("message")
                .or_else(|| record.get("log"))
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        let mut texts: Vec<String> = records.iter().map(text).collect();
        texts.sort();
        assert_eq!(
            texts,
            [
                "2026-11-21T09:20:03.000Z INFO [abc] order: plain\nand its second line",
                "Traceback (most recent call last):\n  File \"a.py\", line 1, in <module>\n    boom()\nValueError: no",
                "from docker",
                "handler finished",
                "java.lang.IllegalStateException: no\n\tat shop.Order.main(Order.java:3)\n\
                 Caused by: java.io.IOException: disk\n\t... 1 more",
                "request completed",
                "the end",
            ],
            "{configuration}"
        );
        for record in &records {
            assert_eq!(
                (&record["cluster"], &record["node"]),
                (&json!("blue"), &json!("node-1"))
            );
            assert!(record.get("kubernetes").is_some(), "{record}");
            assert!(
                record.get("time").is_none() && record.get("_p").is_none(),
                "{record}"
            );
        }
    }
}

#[test]
fn the_parsers_understand_their_formats() {
    let Some(program) = fluent_bit("parsers") else {
        return;
    };
    let cases = [
        (
            "nginx",
            r#"10.0.0.7 - - [21/Nov/2026:10:20:00 +0100] "GET /hello?a=b HTTP/1.1" 200 612 "-" "curl/8" "abc""#,
            json!({"date": 1_795_252_800.0, "remote": "10.0.0.7", "host": "-", "user": "-", "method": "GET",
                   "path": "/hello?a=b", "status": 200, "size": 612, "referer": "-", "agent": "curl/8", "traceId": "abc"}),
        ),
        (
            "application",
            "2026-11-21T09:20:00.5Z WARN  [abc] order: slow [1]",
            json!({"date": 1_795_252_800.5, "level": "WARN", "traceId": "abc", "message": "order: slow [1]"}),
        ),
        (
            "cri",
            "2026-11-21T09:20:00.5Z stderr F the line",
            json!({"date": 1_795_252_800.5, "stream": "stderr", "logtag": "F", "log": "the line"}),
        ),
        (
            "docker",
            r#"{"log":"the line\n","stream":"stdout","time":"2026-11-21T09:20:00.5Z"}"#,
            json!({"date": 1_795_252_800.5, "stream": "stdout", "log": "the line\n"}),
        ),
    ];
    for parsers in ["parsers.conf", "parsers.yaml"] {
        for (parser, line, expected) in &cases {
            let place = Place::new();
            fs::write(place.path("app.log"), format!("{line}\n")).unwrap();
            let path = format!("path={}", place.path("app.log").display());
            let parser_is = format!("parser={parser}");
            let arguments = [
                "-q",
                "-f",
                "0.2",
                "-R",
                parsers,
                "-i",
                "tail",
                "-p",
                &path,
                "-p",
                "read_from_head=on",
            ];
            let rest = [
                "-p",
                &parser_is,
                "-o",
                "stdout",
                "-p",
                "format=json_lines",
                "-m",
                "*",
            ];
            let running = place.start(&program, &[&arguments[..], &rest[..]].concat(), "parsed");
            assert_eq!(&running.wait_for(1, None)[0], expected, "{parsers} {parser}");
        }
    }
}

#[test]
fn the_lua_comparison_gathers_a_trace() {
    let Some(program) = fluent_bit("lua-aggregation") else {
        return;
    };
    let place = Place::new();
    fs::write(place.path("app.log"), LINES).unwrap();
    for (configuration, output, stdout) in [
        (
            "lua-aggregation/fluent-bit.conf",
            "[OUTPUT]",
            "[OUTPUT]\n    Name stdout\n    Match *\n    Format json_lines\n",
        ),
        (
            "lua-aggregation/fluent-bit.yaml",
            "  outputs:",
            "  outputs:\n    - name: stdout\n      match: '*'\n      format: json_lines\n",
        ),
    ] {
        place.edit(configuration, |text| {
            let (before, _) = text.split_once(output).unwrap();
            format!("{before}{stdout}")
        });
        fs::remove_dir_all(place.path("state")).unwrap();
        fs::create_dir(place.path("state")).unwrap();
        let running = place.start(&program, &["-c", configuration], "lua");
        let records = running.wait_for(1, None);
        assert_eq!(
            records[0]["message"], "handler finished\nrequest completed",
            "{configuration}"
        );
        assert_eq!(records[0]["status"], 200, "{configuration}");
    }
}

/// Few builds have the input for the journal of the host, so its syntax is what can be checked
/// everywhere.
#[test]
fn the_logs_of_the_host_are_whole_sections() {
    let text = fs::read_to_string(folder().join("kubernetes/host-logs.conf")).unwrap();
    let sections = classic_sections(&text);
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["INPUT", "FILTER"]);
    assert_eq!(sections[0].1["name"], "systemd");
    assert_eq!(sections[0].1["tag"], sections[1].1["match"]);
    let main = fs::read_to_string(folder().join("kubernetes/fluent-bit.conf")).unwrap();
    assert!(main.contains("@INCLUDE host-logs.conf"));
}

/// Needs no Fluent Bit: sections and properties, and what every way to Windrow must have.
#[test]
fn every_configuration_forwards_with_acknowledgements_and_never_gives_up() {
    for configuration in CONFIGURATIONS {
        let text = fs::read_to_string(folder().join(configuration)).unwrap();
        let output = if configuration.ends_with(".yaml") {
            yaml_output(&text)
        } else {
            classic_output(&text)
        };
        if configuration.starts_with("lua") {
            assert_eq!(
                output.get("name").map(String::as_str),
                Some("es"),
                "{configuration}"
            );
            continue;
        }
        // The other ways in confirm by their status.
        if configuration.starts_with("http") || configuration.starts_with("opentelemetry") {
            assert_eq!(
                output.get("retry_limit").map(String::as_str),
                Some("no_limits"),
                "{configuration}"
            );
            continue;
        }
        for (name, value) in [
            ("name", "forward"),
            ("host", "${WINDROW_HOST}"),
            ("port", "${WINDROW_PORT}"),
            ("require_ack_response", "true"),
            ("retry_limit", "no_limits"),
            ("net.keepalive_max_recycle", "100"),
        ] {
            assert_eq!(
                output.get(name).map(String::as_str),
                Some(value),
                "{configuration}: {name}"
            );
        }
    }
}

type Properties = std::collections::BTreeMap<String, String>;

/// The sections of a classic configuration; checks that each line is a comment, a section or a
/// property of one.
fn classic_sections(text: &str) -> Vec<(&str, Properties)> {
    let mut sections: Vec<(&str, Properties)> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[') {
            sections.push((
                name.strip_suffix(']').expect("a section ends with ]"),
                Properties::new(),
            ));
        } else {
            assert!(
                line.starts_with("    ") && !line.starts_with("     "),
                "indentation: {line}"
            );
            let (name, value) = line
                .trim()
                .split_once(char::is_whitespace)
                .expect("a property has a value");
            let section = sections.last_mut().expect("a property belongs to a section");
            section.1.insert(name.to_lowercase(), value.trim().to_owned());
        }
    }
    sections
}

/// The only output of a classic configuration.
fn classic_output(text: &str) -> Properties {
    let sections = classic_sections(text);
    assert_eq!(sections[0].0, "SERVICE");
    let mut outputs: Vec<Properties> = sections
        .into_iter()
        .filter(|(name, _)| *name == "OUTPUT")
        .map(|(_, properties)| properties)
        .collect();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

fn yaml_output(text: &str) -> Properties {
    let document: Value = serde_yaml_ng::from_str(text).unwrap();
    assert!(document["service"].is_object() && document["pipeline"]["inputs"].is_array());
    let outputs = document["pipeline"]["outputs"].as_array().unwrap();
    assert_eq!(outputs.len(), 1);
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    outputs[0]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), plain(value)))
        .collect()
}

#[test]
fn the_yaml_parsers_are_those_of_the_classic_form() {
    let yaml: Value =
        serde_yaml_ng::from_str(&fs::read_to_string(folder().join("parsers.yaml")).unwrap()).unwrap();
    let classic = fs::read_to_string(folder().join("parsers.conf")).unwrap();
    let parsers = yaml["parsers"]
        .as_array()
        .unwrap()
        .iter()
        .chain(yaml["multiline_parsers"].as_array().unwrap());
    let mut count = 0;
    for parser in parsers {
        count += 1;
        assert!(
            classic.contains(&format!(" {}\n", parser["name"].as_str().unwrap())),
            "{parser}"
        );
        for key in ["regex", "time_format"] {
            if let Some(value) = parser[key].as_str() {
                assert!(classic.contains(value), "{key} {value} is not in parsers.conf");
            }
        }
        for rule in parser["rules"].as_array().into_iter().flatten() {
            assert!(
                classic.contains(rule["regex"].as_str().unwrap()),
                "{rule} is not in parsers.conf"
            );
        }
    }
    assert_eq!(count, classic.matches("PARSER]\n").count());
}
