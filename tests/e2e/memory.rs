//! Memory limit: the peak of resident memory stays within it and what the program itself takes,
//! whatever clients send and while an output is away.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use serde_json::json;
use windrow_testkit::client::{Client, forward};
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::{check, process, wait};

use crate::{SOON, windrow};

const LIMIT: u64 = 64 << 20;

/// The program itself, the buffers of connections, the store's cache, and what an allocator keeps.
const BASE: u64 = 64 << 20;

/// The limit holds and nothing is dropped: most traces are written early for lack of memory, and
/// updated when their last line arrives.
///
/// `WINDROW_TEST_OPEN_TRACES=500000` is the long form, a few minutes, with 512 MiB as well.
#[test]
fn open_traces_beyond_the_memory_limit() {
    let asked = std::env::var("WINDROW_TEST_OPEN_TRACES").ok();
    let traces = asked
        .as_ref()
        .map_or(200_000, |text| text.parse().expect("a number of traces"));
    open_traces(LIMIT, traces);
    if asked.is_some() {
        open_traces(512 << 20, traces);
    }
}

fn open_traces(limit: u64, traces: u64) {
    let mut server = windrow()
        .sqlite()
        .arg("--memory-limit", format!("{limit}"))
        .arg("--max-traces", "10000000")
        .arg("--idle-timeout", "1h")
        .start();
    // All first lines before any second one: this many traces are open at once.
    let report = Load {
        traces,
        open: traces,
        lines: 2,
        chunk_records: 1000,
        filler: 20,
        per_second: 1_000_000,
        give_up: 10 * SOON,
        ack_timeout: 10 * SOON,
        ..Load::new(server.forward(), "m")
    }
    .run();
    let evicted = server.metric("windrow_traces_evicted_total");
    assert!(evicted > 0.0, "all fit, so nothing is shown");
    // Counting is quick, looking at every document is not: once, at the end.
    wait::until("all traces to be complete", 10 * SOON, || {
        let [open, delivered, difference] = [
            "windrow_records_open",
            "windrow_records_delivered_total",
            "windrow_audit_difference",
        ]
        .map(|name| server.metric(name));
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52 records")]
        let all = 2.0 * traces as f64;
        if open < 0.5 && (delivered - all).abs() < 0.5 && difference.abs() < 0.5 {
            Ok(())
        } else {
            Err(format!(
                "{open} open, {delivered} of {all} delivered, difference {difference}"
            ))
        }
    });
    check::compare(&report.ledger, &server.stored()).assert_clean();
    assert!(server.metric("windrow_records_dead_letter_total") < 0.5);
    let peak = server.process().peak_resident_bytes().unwrap();
    println!(
        "{traces} traces, {evicted} written early, {} MiB at most of {} MiB",
        peak >> 20,
        limit >> 20
    );
    assert!(peak < limit + BASE, "{} MiB were resident", peak >> 20);
    assert!(server.terminate(SOON).success());
}

/// The store is away while more is sent than the limit; then all of it is written.
///
/// `WINDROW_TEST_OUTAGE=1` is the long form, with 512 MiB as well.
#[test]
fn an_outage_beyond_the_memory_limit() {
    outage(LIMIT, 25_000);
    if std::env::var_os("WINDROW_TEST_OUTAGE").is_some() {
        outage(512 << 20, 200_000);
    }
}

fn outage(limit: u64, traces: u64) {
    let mut sink = FakeElasticsearch::stopped();
    let mut server = windrow()
        .elasticsearch(&sink.url(), "outage")
        .arg("--memory-limit", format!("{limit}"))
        .start();
    let report = Load {
        traces,
        connections: 8,
        chunk_records: 200,
        filler: 1000,
        give_up: 4 * SOON,
        ack_timeout: 4 * SOON,
        ..Load::new(server.forward(), "outage-")
    }
    .run();
    assert_eq!(report.ledger.acknowledged(), 5 * traces, "the journal takes it");
    assert!(server.metric("windrow_journal_bytes") > limit as f64);
    let away = server.process().peak_resident_bytes().unwrap();
    sink.start_again();
    check::eventually(&report.ledger, 4 * SOON, || sink.documents("outage-")).assert_clean();
    let peak = server.process().peak_resident_bytes().unwrap();
    println!(
        "outage: {} MiB, then {} MiB at most of {} MiB",
        away >> 20,
        peak >> 20,
        limit >> 20
    );
    assert!(peak <= limit + BASE, "{} MiB were resident", peak >> 20);
    server.kill();
}

/// More bytes of begun messages than the limit, in sockets or in receive buffers.
#[test]
fn large_messages_of_many_clients_beyond_the_memory_limit() {
    const CLIENTS: usize = 200;
    let mut server = windrow()
        .sqlite()
        .arg("--memory-limit", format!("{LIMIT}"))
        .start();
    let to = server.forward();
    let entries = long_lines(2 << 20);
    let (half, rest) = entries.split_at(entries.len() / 2);
    let begun = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let begun = &begun;
            scope.spawn(move || {
                let id = format!("{number:04}");
                let length = u32::try_from(half.len() + rest.len()).unwrap().to_be_bytes();
                let mut stream = TcpStream::connect(to).unwrap();
                stream
                    .write_all(&[b"\x93\xa4", id.as_bytes(), b"\xc6", &length].concat())
                    .unwrap();
                // What the server does not read fills the socket.
                stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                let sent = write_while_taken(&mut stream, half);
                begun.wait();
                stream.set_write_timeout(Some(2 * SOON)).unwrap();
                stream.set_read_timeout(Some(2 * SOON)).unwrap();
                stream.write_all(&half[sent..]).unwrap();
                stream.write_all(rest).unwrap();
                stream
                    .write_all(&[b"\x81\xa5chunk\xa4", id.as_bytes()].concat())
                    .unwrap();
                let expected = [b"\x81\xa3ack\xa4", id.as_bytes()].concat();
                let mut ack = vec![0; expected.len()];
                stream.read_exact(&mut ack).unwrap();
                assert_eq!(ack, expected);
            });
        }
    });
    let peak = server.process().peak_resident_bytes().unwrap();
    println!("{CLIENTS} clients, {} MiB at most", peak >> 20);
    assert!(peak < LIMIT + BASE, "{} MiB were resident", peak >> 20);
}

/// Writes until the write timeout passes; gives how many bytes were written.
#[expect(clippy::disallowed_methods, reason = "what is written is counted")]
fn write_while_taken(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    sent
}

/// Entries of 16 KiB each, without a trace id.
fn long_lines(bytes: usize) -> Vec<u8> {
    let mut entry = b"\x92\x01\x81\xa7message\xda\x40\x00".to_vec();
    entry.resize(entry.len() + 0x4000, b'x');
    entry.repeat(bytes / entry.len())
}

/// One load against one limit.
type MemoryLoad = (&'static str, fn(&Server));

const LOADS: [MemoryLoad; 7] = [
    ("many small messages", |server| {
        let report = Load {
            traces: 20_000,
            chunk_records: 20,
            give_up: 4 * SOON,
            ..Load::new(server.forward(), "small-")
        }
        .run();
        check::eventually(&report.ledger, 2 * SOON, || server.stored()).assert_clean();
    }),
    ("JSON texts of 12 MB", |server| {
        let record = json!([0, {"message": "y".repeat(900), "n": [1, 2, 3]}]);
        let text = json!(["app", vec![record; 13_000], {"chunk": "json"}]).to_string();
        parallel(8, |_| {
            let mut stream = connect(server);
            stream.write_all(text.as_bytes()).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
        });
    }),
    ("a JSON text of empty arrays", |server| {
        // Each takes a byte of a message, three of a document, and dozens in a tree.
        let arrays = "[],".repeat(2_000_000);
        let arrays = arrays.trim_end_matches(',');
        let text = format!("[\"app\",[[0,{{\"traceId\":\"a\",\"z\":[{arrays}]}}]],{{\"chunk\":\"json\"}}]");
        let mut stream = connect(server);
        stream.write_all(text.as_bytes()).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        let mut complete = Client::connect(server.forward());
        let record = json!({"traceId": "a", "message": "request completed"});
        complete.send("app", "complete", &[(1_790_000_000, 0, record)]);
        wait::until_true("its documents", 2 * SOON, || !server.stored().is_empty());
    }),
    ("long tags and trace ids", |server| {
        let long = "x".repeat(60_000);
        let mut client = Client::connect(server.forward());
        for number in 0..1500 {
            let record = json!({"traceId": format!("{long}{number}"), "message": "m"});
            client.write(&forward("app", None, &[(1_790_000_000, 0, record)]));
            let record = json!({"traceId": format!("tag{}", number % 100), "message": "m"});
            client.write(&forward(
                &format!("{long}{number}"),
                None,
                &[(1_790_000_000, 0, record)],
            ));
        }
        client.send("app", "end", &[(1_790_000_000, 0, json!({"message": "m"}))]);
    }),
    ("compressed records", |server| {
        let entry = rmp_serde::to_vec(&(0, json!({"traceId": "t", "message": "z".repeat(60_000)}))).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&entry.repeat(200)).unwrap();
        let payload = encoder.finish().unwrap();
        parallel(16, |number| {
            let mut message = b"\x93\xa3app\xc6".to_vec();
            message.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
            message.extend_from_slice(&payload);
            message.extend_from_slice(b"\x82\xaacompressed\xa4gzip\xa5chunk\xa4");
            message.extend_from_slice(format!("{number:04}").as_bytes());
            let mut stream = connect(server);
            stream.write_all(&message).unwrap();
            stream.read_exact(&mut [0; 10]).unwrap();
        });
    }),
    ("readers of /logs that are slow", |server| {
        let report = Load {
            traces: 3000,
            filler: 2000,
            ..Load::new(server.forward(), "logs-")
        }
        .run();
        check::eventually(&report.ledger, 2 * SOON, || server.stored()).assert_clean();
        let admin = server.admin().trim_start_matches("http://").to_owned();
        parallel(40, |_| {
            let mut stream = TcpStream::connect(&admin).unwrap();
            stream
                .write_all(b"GET /logs?limit=10000 HTTP/1.1\r\nhost: x\r\n\r\n")
                .unwrap();
            std::thread::sleep(Duration::from_secs(2));
        });
    }),
    ("one record as long as a message may be", |server| {
        let length = 14 << 20;
        let mut message = b"\x93\xa3app\x01\x81\xa7message\xdb".to_vec();
        message[0] = 0x94;
        message.extend_from_slice(&u32::to_be_bytes(length));
        message.resize(message.len() + length as usize, b'x');
        message.extend_from_slice(b"\x81\xa5chunk\xa4long");
        let mut stream = connect(server);
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
    }),
];

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.forward()).unwrap();
    stream.set_write_timeout(Some(4 * SOON)).unwrap();
    stream.set_read_timeout(Some(4 * SOON)).unwrap();
    stream
}

fn parallel(threads: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..threads {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

/// The peak of resident memory after each load, each against a server of its own.
#[track_caller]
fn assert_within(limit: u64, loads: &[MemoryLoad]) {
    let mut too_large = Vec::new();
    for (name, load) in loads {
        let mut server = windrow()
            .sqlite()
            .arg("--memory-limit", format!("{limit}"))
            .arg("--idle-timeout", "5s")
            .start();
        load(&server);
        wait::until("all to be gathered and indexed", 4 * SOON, || {
            let open = [
                "windrow_records_open",
                "windrow_audit_difference",
                "windrow_search_lag_documents",
            ]
            .map(|name| server.metric(name));
            if open.iter().sum::<f64>() < 0.5 {
                Ok(())
            } else {
                Err(format!("{open:?} lines, difference, documents"))
            }
        });
        let peak = server.process().peak_resident_bytes().unwrap();
        println!("{name}: {} MiB at most of {} MiB", peak >> 20, limit >> 20);
        if peak > limit + BASE {
            too_large.push(format!("{name}: {} MiB", peak >> 20));
        }
        server.kill();
    }
    assert!(too_large.is_empty(), "{too_large:?}");
}

#[test]
fn many_small_messages_within_64_mib() {
    assert_within(64 << 20, &LOADS[..1]);
}

#[test]
fn each_load_within_64_mib() {
    assert_within(64 << 20, &LOADS[1..]);
}

#[test]
fn each_load_within_512_mib() {
    assert_within(512 << 20, &LOADS);
}

/// Messages that are sent to their end, all at the same time. A few gigabytes: see
/// `benches/README.md`.
fn sent_to_the_end(limit: u64, clients: usize, bytes: usize) {
    process::raise_file_limit();
    let mut server = windrow()
        .sqlite()
        .arg("--memory-limit", format!("{limit}"))
        .start();
    let entries = long_lines(bytes);
    let to = server.forward();
    parallel(clients, |number| {
        let id = format!("{number:04}");
        let length = u32::try_from(entries.len()).unwrap().to_be_bytes();
        loop {
            // A client that is dropped sends again.
            let send = || -> std::io::Result<()> {
                let mut stream = TcpStream::connect(to)?;
                stream.set_read_timeout(Some(20 * SOON))?;
                stream.write_all(&[b"\x93\xa4", id.as_bytes(), b"\xc6", &length].concat())?;
                stream.write_all(&entries)?;
                stream.write_all(&[b"\x81\xa5chunk\xa4", id.as_bytes()].concat())?;
                stream.read_exact(&mut [0; 10])
            };
            if send().is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    });
    let peak = server.process().peak_resident_bytes().unwrap();
    println!(
        "{clients} clients with {} MiB each: {} MiB at most",
        bytes >> 20,
        peak >> 20
    );
    assert!(peak <= limit + BASE, "{} MiB", peak >> 20);
    server.kill();
}

/// Whether the long forms are asked for, with gigabytes of disk and minutes:
/// `WINDROW_TEST_MANY_CLIENTS=1`.
fn is_long() -> bool {
    std::env::var_os("WINDROW_TEST_MANY_CLIENTS").is_some()
}

#[test]
fn many_clients_inside_2_mib() {
    if is_long() {
        sent_to_the_end(512 << 20, 5000, 2 << 20);
    }
    sent_to_the_end(64 << 20, 300, 2 << 20);
}

#[test]
fn clients_inside_60_mib() {
    sent_to_the_end(512 << 20, if is_long() { 64 } else { 6 }, 60 << 20);
}
