//! Lines in parts, as container runtimes split them: one line, also when the server is killed
//! between the parts, when chunks are sent again, and through a real Fluent Bit without a filter.

use serde_json::{Value, json};
use windrow_testkit::client::Client;
use windrow_testkit::server::Server;
use windrow_testkit::{fluent_bit, need, wait};

use crate::{SOON, windrow};

const PARTS: usize = 3;

/// A line that names its trace only as a whole.
fn line(trace: &str) -> String {
    json!({"message": format!("request completed {trace} {}", "0123456789".repeat(30)), "traceId": trace})
        .to_string()
}

/// Part `number` of the line of `trace`, as Docker's log driver sends it, or as CRI.
fn part(trace: &str, number: usize, docker: bool) -> Value {
    let line = line(trace);
    let size = line.len().div_ceil(PARTS);
    let text = &line[number * size..line.len().min((number + 1) * size)];
    let is_last = number + 1 == PARTS;
    if docker {
        json!({"container_id": "7d", "container_name": "/web", "source": "stdout", "log": text, "partial_message": "true",
            "partial_id": trace, "partial_ordinal": (number + 1).to_string(), "partial_last": is_last.to_string()})
    } else {
        json!({"stream": "stdout", "logtag": if is_last { "F" } else { "P" }, "log": text,
            "kubernetes": {"pod_name": format!("pod-{trace}")}})
    }
}

/// Waits until exactly these traces are stored, each with its whole line, besides `others`.
#[track_caller]
fn assert_lines(server: &Server, traces: &[String], others: usize) {
    let of_lines = format!("{} lines and {others} others", traces.len());
    wait::until(&of_lines, SOON, || {
        let stored = server.stored();
        let is_whole = |trace: &&String| {
            let expected = serde_json::from_str::<Value>(&line(trace)).unwrap()["message"].clone();
            stored
                .iter()
                .any(|stored| stored.source["traceId"] == ***trace && stored.source["message"] == expected)
        };
        let whole = traces.iter().filter(is_whole).count();
        if (whole, stored.len()) == (traces.len(), traces.len() + others) {
            return Ok(());
        }
        Err(format!("{whole} whole lines among {} documents", stored.len()))
    });
}

#[test]
fn a_kill_between_the_parts_changes_nothing() {
    let mut server = windrow().sqlite().arg("--idle-timeout", "10m").start();
    let mut traces = Vec::new();
    let mut others = 0;
    let mut chunks: Vec<(String, Value, Value)> = Vec::new();
    for round in 0..4 {
        let (docker, cri) = (format!("docker-{round}"), format!("cri-{round}"));
        for number in 0..PARTS {
            let mut client = Client::connect(server.forward());
            // Traces beside the parts, some of which stay open, so that chunks stay in the journal.
            let words = if number == round % PARTS {
                "step"
            } else {
                "request completed"
            };
            let beside = json!({"traceId": format!("beside-{round}-{number}"), "message": words});
            let parts = [part(&docker, number, true), part(&cri, number, false)];
            let chunk = format!("{round}-{number}");
            client.send(
                "app",
                &chunk,
                &[
                    (1_790_000_000, 0, parts[0].clone()),
                    (1_790_000_000, 1, beside.clone()),
                    (1_790_000_000, 2, parts[1].clone()),
                ],
            );
            others += 1;
            let [one, two] = parts;
            chunks.push((chunk, one, two));
            if round > 0 {
                std::thread::sleep(std::time::Duration::from_millis(40 * number as u64));
                server.crash();
            }
        }
        traces.extend([docker, cri]);
    }
    // After everything that can be stored is stored, too.
    wait::until_true("the lines", SOON, || server.stored().len() >= traces.len());
    server.crash();
    assert!(server.terminate(SOON).success());
    server.start_again();
    assert!(server.terminate(SOON).success());
    let mut again = server;
    again.start_again();
    let open = others / PARTS;
    assert_lines(&again, &traces, others - open);
    assert!(again.terminate(SOON).success());
}

#[test]
fn chunks_that_are_sent_again_change_nothing() {
    let mut server = windrow().sqlite().start();
    let traces: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    for round in 0..2 {
        for number in 0..PARTS {
            let mut client = Client::connect(server.forward());
            for (n, trace) in traces.iter().enumerate() {
                let event = (1_790_000_000, 0, part(trace, number, n % 2 == 0));
                client.send("app", &format!("{trace}-{number}"), &[event]);
            }
        }
        assert_lines(&server, &traces, 0);
        if round == 0 {
            server.crash();
        }
    }
    assert_eq!(server.metric("windrow_audit_difference"), 0.0);
    assert!(server.terminate(SOON).success());
}

#[test]
fn a_part_that_stays_alone_is_written_after_the_idle_timeout() {
    let server = windrow().sqlite().arg("--idle-timeout", "300ms").start();
    let mut client = Client::connect(server.forward());
    let alone = part("t", 0, true);
    client.send("app", "1", &[(1_790_000_000, 0, alone.clone())]);
    wait::until_true("the part", SOON, || server.stored().len() == 1);
    let stored = &server.stored()[0].source;
    assert_eq!(
        (&stored["log"], &stored["partial_id"]),
        (&alone["log"], &alone["partial_id"])
    );
    wait::until_true("the audit", SOON, || {
        server.metric("windrow_records_delivered_total") == 1.0
    });
    assert_eq!(server.metric("windrow_audit_difference"), 0.0);
}

/// Files of containers as Docker and CRI write them, tailed without a multiline parser.
#[test]
fn files_of_containers_through_a_real_fluent_bit() {
    let fluent_bit = need!(fluent_bit::find());
    let server = windrow().sqlite().start();
    let line = |trace: &str| {
        json!({"traceId": trace, "message": format!("request completed {}", "0123456789".repeat(3600))})
            .to_string()
    };
    let cut = |line: &str| -> Vec<String> {
        let bytes = line.as_bytes().chunks(16 << 10);
        bytes
            .map(|piece| String::from_utf8(piece.to_vec()).unwrap())
            .collect()
    };
    let (mut docker, mut cri) = (String::new(), String::new());
    for piece in cut(&(line("docker") + "\n")) {
        let record = json!({"log": piece, "stream": "stdout", "time": "2026-09-21T14:13:00.5Z"});
        docker += &format!("{record}\n");
    }
    let pieces = cut(&line("cri"));
    for (number, piece) in pieces.iter().enumerate() {
        let tag = if number + 1 == pieces.len() { "F" } else { "P" };
        cri += &format!("2026-09-21T14:13:00.500000000Z stdout {tag} {piece}\n");
    }
    assert_eq!((docker.lines().count(), cri.lines().count()), (3, 3));
    let configuration = format!(
        r"[SERVICE]
    Flush 0.2
    Parsers_File @FOLDER@/parsers.conf
[INPUT]
    Name tail
    Path @FOLDER@/docker.log
    Tag docker
    Parser docker
    Buffer_Max_Size 1M
    Read_from_Head On
[INPUT]
    Name tail
    Path @FOLDER@/cri.log
    Tag cri
    Parser cri
    Buffer_Max_Size 1M
    Read_from_Head On
[OUTPUT]
    Name forward
    Match *
    Host 127.0.0.1
    Port {}
",
        server.forward().port()
    );
    let parsers = r"[PARSER]
    Name docker
    Format json
    Time_Key time
    Time_Format %Y-%m-%dT%H:%M:%S.%LZ
[PARSER]
    Name cri
    Format regex
    Regex ^(?<time>[^ ]+) (?<stream>stdout|stderr) (?<logtag>[^ ]*) (?<log>.*)$
    Time_Key time
    Time_Format %Y-%m-%dT%H:%M:%S.%LZ
";
    let running = fluent_bit.start_with(
        &configuration,
        &[
            ("parsers.conf", parsers),
            ("docker.log", &docker),
            ("cri.log", &cri),
        ],
    );
    wait::until("two whole lines", SOON, || {
        let stored = server.stored();
        let is_whole = |trace: &str| {
            let expected = serde_json::from_str::<Value>(&line(trace)).unwrap()["message"].clone();
            stored
                .iter()
                .any(|stored| stored.source["traceId"] == trace && stored.source["message"] == expected)
        };
        if stored.len() == 2 && is_whole("docker") && is_whole("cri") {
            return Ok(());
        }
        Err(format!(
            "{} documents; Fluent Bit says:\n{}",
            stored.len(),
            running.log()
        ))
    });
}
