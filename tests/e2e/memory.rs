//! Memory limit with more open traces than fit: the limit holds and nothing is dropped. Most traces
//! are written early for lack of memory, and updated when their last line arrives.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::Duration;

use windrow_testkit::check;
use windrow_testkit::load::Load;

use crate::{SOON, windrow};

const LIMIT: u64 = 64 << 20;

/// The program itself, the buffers of connections, the store's cache, and what an allocator keeps.
const BASE: u64 = 64 << 20;

/// `WINDROW_TEST_OPEN_TRACES=2000000` is the long form, a few minutes.
#[test]
fn open_traces_beyond_the_memory_limit() {
    let traces = std::env::var("WINDROW_TEST_OPEN_TRACES")
        .map_or(200_000, |text| text.parse().expect("a number of traces"));
    let mut server = windrow()
        .sqlite()
        .arg("--memory-limit", format!("{LIMIT}"))
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
    windrow_testkit::wait::until("all traces to be complete", 10 * SOON, || {
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
        "{traces} traces, {evicted} written early, {} MiB at most",
        peak >> 20
    );
    assert!(peak < LIMIT + BASE, "{} MiB were resident", peak >> 20);
    assert!(server.terminate(SOON).success());
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
