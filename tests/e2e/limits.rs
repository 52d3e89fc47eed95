//! Resource limits against hostile or broken clients: claimed lengths, decompression bombs,
//! nesting, connections that send one byte and wait. Peak memory (`VmHWM`) stays within the
//! configured limit, on top of what the process takes at its start, and others are served
//! meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use windrow_testkit::check::Stored;
use windrow_testkit::client::Client;
use windrow_testkit::load::Load;
use windrow_testkit::server::Server;
use windrow_testkit::{process, wait};

use crate::{SOON, assert_stored, windrow};

const MIB: usize = 1 << 20;
/// Small, so that it means something: a quarter of the default.
const MEMORY_LIMIT: usize = 128 * MIB;
/// After so long without a new line a trace is written.
const IDLE: Duration = Duration::from_secs(30);

/// A server with a small memory limit, and its memory after the start.
struct Watched {
    server: Server,
    base: u64,
}

impl Watched {
    fn start(progress_timeout: &str) -> Self {
        let mut server = windrow()
            .sqlite()
            .arg("--memory-limit", "128MiB")
            .env("WINDROW_FORWARD_MAX_MESSAGE", "32MiB")
            .env("WINDROW_FORWARD_PROGRESS_TIMEOUT", progress_timeout)
            .start();
        // One round through everything, so that threads and pools are there.
        let report = Load {
            traces: 100,
            ..Load::new(server.forward(), "first-")
        }
        .run();
        assert_stored(&server, &report);
        let base = server.process().peak_resident_bytes().unwrap();
        Self { server, base }
    }

    fn address(&self) -> SocketAddr {
        self.server.forward()
    }

    /// Others are served: a load gets through while `attack`'s connections are still there. Then
    /// the bound.
    #[track_caller]
    fn holds(mut self, what: &str, attack: impl FnOnce(&Server)) {
        attack(&self.server);
        let report = Load {
            traces: 100,
            ..Load::new(self.address(), "others-")
        }
        .run();
        assert_stored(&self.server, &report);
        let peak = self.server.process().peak_resident_bytes().unwrap();
        let grown = peak.saturating_sub(self.base);
        println!(
            "{what}: {} MiB at the start, at most {} MiB",
            self.base >> 20,
            peak >> 20
        );
        assert!(
            grown <= MEMORY_LIMIT as u64,
            "{what}: {grown} bytes beyond the {} of the start, the limit is {MEMORY_LIMIT}",
            self.base
        );
    }
}

/// Sends bytes and gives what comes back until the server closes; a server that closes while we
/// write is fine.
fn refused(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut other = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || other.write_all(bytes).ok());
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("it is not closed: {error}"),
        }
        answer
    })
}

/// `[tag, bin(payload), {"chunk": "bomb"[, "compressed": "gzip"]}]`.
fn packed(payload: &[u8], gzip: bool) -> Vec<u8> {
    let mut out = b"\x93\xa3app\xc6".to_vec();
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0x81 + u8::from(gzip));
    out.extend_from_slice(b"\xa5chunk\xa4bomb");
    if gzip {
        out.extend_from_slice(b"\xaacompressed\xa4gzip");
    }
    out
}

fn gzip(plain: &mut dyn Read) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(plain, &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn lengths_of_four_gib_that_are_only_claimed() {
    let watched = Watched::start("2s");
    watched.holds("claimed lengths", |server| {
        std::thread::scope(|scope| {
            for _ in 0..20 {
                for claim in [
                    &b"\x93\xa3app\xdb\xff\xff\xff\xff"[..],         // a payload as str 32
                    b"\x93\xa3app\xc6\xff\xff\xff\xff",              // as bin 32
                    b"\x93\xa3app\xdd\xff\xff\xff\xff",              // entries: array 32
                    b"\x93\xdb\xff\xff\xff\xff",                     // a tag
                    b"\x93\xa3app\x00\xdf\xff\xff\xff\xff",          // a record: map 32
                    b"\x93\xa3app\x00\x81\xa1k\xc9\xff\xff\xff\xff", // a value: ext 32
                    b"\xdd\xff\xff\xff\xff",                         // the message itself
                ] {
                    let to = server.forward();
                    scope.spawn(move || assert_eq!(refused(to, claim), b"", "{claim:x?}"));
                }
            }
        });
    });
}

#[test]
fn a_gzip_bomb_of_ten_gib() {
    let watched = Watched::start("60s");
    // Members of 64 MiB of zeros: a wire of 10 MiB, below the limit of a message, so that it
    // reaches the decompressor.
    let member = gzip(&mut std::io::repeat(0).take(64 << 20));
    let bomb = packed(&member.repeat(160), true);
    assert!(bomb.len() < 32 * MIB, "{}", bomb.len());
    watched.holds("a gzip bomb", |server| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(refused(server.forward(), &bomb), b"", "no ack"));
            }
        });
        assert_eq!(server.metric("windrow_input_violations_total"), 4.0);
    });
}

/// Below every limit of what is received and decompressed, and still more than a trace may have.
#[test]
fn records_of_megabytes_that_came_as_a_few_kilobytes() {
    let watched = Watched::start("60s");
    let line = |id: &str, text: usize| {
        let mut record = vec![0x92, 0x01, 0x82, 0xa7];
        record.extend_from_slice(b"traceId");
        record.push(0xa0 | id.len() as u8);
        record.extend_from_slice(id.as_bytes());
        record.extend_from_slice(b"\xa7message\xdb");
        record.extend_from_slice(&(text as u32).to_be_bytes());
        record.resize(record.len() + text, b'x');
        record
    };
    let lines = [line("before", 5), line("long", 30 * MIB), line("after", 5)].concat();
    let bomb = packed(&gzip(&mut &lines[..]), true);
    assert!(bomb.len() < MIB, "{}", bomb.len());
    drop(lines);
    watched.holds("a record of 30 MiB", |server| {
        std::thread::scope(|scope| {
            for number in 0..8u8 {
                // Another tag, or it would be the same chunk.
                let mut bomb = bomb.clone();
                bomb[2] = b'a' + number;
                scope.spawn(move || {
                    let mut client = Client::connect(server.forward());
                    client.write(&bomb);
                    assert_eq!(client.ack().as_deref(), Some("bomb"));
                });
            }
        });
        wait::until_true("the rejected messages", SOON, || {
            server.metric("windrow_rejected_entries_total") >= 8.0
        });
        // The whole messages, as they came.
        let dead = std::fs::read(server.data().join("rejected/001.ndjson")).unwrap();
        assert!(dead.len() < MIB, "{}", dead.len());
        // Traces of eight parts: the lines beside the long ones, each once.
        let neighbours = || {
            let stored = server.stored();
            let lines = |stored: &Stored| (stored.id.clone(), stored.source["windrow"]["lines"].clone());
            let mut found: Vec<_> = stored
                .iter()
                .filter(|stored| ["before", "long", "after"].contains(&&*stored.id))
                .map(lines)
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        let expected = vec![("after".to_owned(), json!(8)), ("before".to_owned(), json!(8))];
        wait::until("the neighbours", SOON + IDLE, || {
            let found = neighbours();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
        wait::until_true("the books", SOON, || {
            server.metric("windrow_records_dead_letter_total") == 8.0
                && server.metric("windrow_audit_difference") == 0.0
        });
    });
}

#[test]
fn nesting_of_a_hundred_thousand() {
    let watched = Watched::start("60s");
    let deep = |opener: &[u8], closer: &[u8]| [&opener.repeat(100_000)[..], &closer.repeat(100_000)].concat();
    let array = deep(b"\x91", b"");
    let map = deep(b"\x81\xa1k", b"");
    let value = |nested: &[u8]| [b"\x92\x00\x81\xa1v", nested, b"\xc0"].concat();
    watched.holds("nesting", |server| {
        let to = server.forward();
        // Only opening brackets, in the message itself: its end cannot be found.
        assert_eq!(
            refused(to, &[b"\x93\xa3app\x00\x81\xa1v", &array[..]].concat()),
            b""
        );
        // Of everything else the end is known: acked, and put aside.
        let option = b"\x81\xa5chunk\xa4bomb";
        let mut bombs = vec![[b"\x94\xa3app\x00\x81\xa1v", &map[..], b"\xc0", option].concat()];
        for nested in [&array, &map] {
            bombs.push(packed(&value(nested), false));
            bombs.push(packed(&gzip(&mut &value(nested)[..]), true));
        }
        for bomb in &bombs {
            let mut client = Client::connect(to);
            client.write(bomb);
            assert_eq!(client.ack().as_deref(), Some("bomb"));
        }
        let json = [b"[\"app\",0,{\"v\":", &deep(b"[", b"]")[..], b"}]"].concat();
        assert_eq!(refused(to, &json), b"");
        wait::until_true("the rejected messages", SOON, || {
            // The same chunk twice is one: the packed ones differ from the compressed ones in their
            // bytes.
            server.metric("windrow_input_poison_total") >= 5.0
        });
    });
}

#[test]
fn the_limit_of_connections_is_said() {
    let mut server = windrow()
        .sqlite()
        .env("WINDROW_FORWARD_MAX_CONNECTIONS", "2")
        .start();
    let open = [server.forward(); 2].map(|to| TcpStream::connect(to).unwrap());
    let ready = |server: &Server| server.get("/ready");
    wait::until_true("both connections", SOON, || ready(&server).status == 503);
    let said = ready(&server).text;
    assert!(said.contains("all 2 connections are in use"), "{said}");
    for _ in 0..20 {
        assert_eq!(refused(server.forward(), b""), b"");
    }
    let lines = server.process().stderr();
    let warned = lines
        .iter()
        .filter(|line| line.contains("further ones are refused"));
    assert_eq!(warned.count(), 1, "{lines:#?}");
    drop(open);
    wait::until_true("readiness", SOON, || ready(&server).status == 200);
}

#[test]
fn ten_thousand_connections_that_send_a_byte_and_wait() {
    const WANTED: u64 = 10_000;
    // Here and in the server, which inherits it: one file for each connection, and some more.
    let files = process::raise_file_limit();
    let number = WANTED.min(files.saturating_sub(1000));
    if number < WANTED {
        writeln!(
            std::io::stderr(),
            "NOTE: {number} instead of {WANTED} connections: the limit of open files is {files}"
        )
        .unwrap();
    }
    let watched = Watched::start("60s");
    watched.holds(&format!("{number} connections"), |server| {
        let idle: Vec<TcpStream> = (0..number)
            .map(|n| {
                let mut stream = TcpStream::connect(server.forward())
                    .unwrap_or_else(|error| panic!("connection {n}: {error}"));
                stream.write_all(b"\x93").unwrap();
                stream
            })
            .collect();
        wait::until("all of them accepted", SOON, || {
            let open = server.metric("windrow_input_connections");
            if open >= number as f64 {
                Ok(())
            } else {
                Err(open.to_string())
            }
        });
        let mut client = Client::connect(server.forward());
        for n in 0..20 {
            client.send(
                "app",
                &format!("meanwhile {n}"),
                &[(1_790_000_000, n, json!({"n": n}))],
            );
        }
        drop(idle);
    });
}
