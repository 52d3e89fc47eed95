//! A bystander: a client that does nothing wrong sends traces with acks while others attack. None is
//! lost, each is stored in the end, and the time from sending to stored is printed.
//!
//! With `WINDROW_TEST_ENDLESS_ATTACKS=1` the attacks do not end before the bystander, who sends a
//! trace a second for a minute; then 99 % of its traces must be stored within 3 s.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use windrow_testkit::client::Client;
use windrow_testkit::server::{Server, Setup};
use windrow_testkit::{ports, wait};

use crate::{SOON, windrow};

const MIB: usize = 1 << 20;
const START: u32 = 1_790_000_000;
/// Traces of the bystander during an attack, and the pause between two.
const TRACES: usize = 12;
const PAUSE: Duration = Duration::from_millis(250);
/// The same beside an attack without an end.
const ENDLESS: (usize, Duration) = (60, Duration::from_secs(1));
/// Beside an attack without an end, 99 % of the bystander's traces are stored by then.
const ENDLESS_P99: Duration = Duration::from_secs(3);
/// Time to set the attack up.
const HEAD_START: Duration = Duration::from_millis(300);

fn is_endless() -> bool {
    std::env::var_os("WINDROW_TEST_ENDLESS_ATTACKS").is_some()
}

/// What attackers share.
struct Attack<'a> {
    server: &'a Server,
    stop: AtomicBool,
    number: AtomicUsize,
}

impl Attack<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// A number that no other message of the attack has.
    fn next(&self) -> usize {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.server.forward()).ok()?;
        let timeout = Some(Duration::from_secs(1));
        stream.set_write_timeout(timeout).ok()?;
        stream.set_read_timeout(timeout).ok()?;
        Some(stream)
    }

    /// Sends `messages` messages in all, each attacker one after the other, and waits a second for
    /// each answer. Their number is bounded because they are gathered and stored after the test.
    fn send(&self, messages: usize, message: impl Fn(usize) -> Vec<u8>) {
        let is_endless = is_endless();
        while self.goes_on() {
            let number = self.next();
            if number >= messages && !is_endless {
                return;
            }
            let Some(mut stream) = self.connect() else {
                continue;
            };
            let sent = stream.write_all(&message(number));
            let mut answer = [0; 64];
            if sent.is_ok() {
                _ = stream.read(&mut answer);
            }
        }
    }
}

/// `[tag, bin(payload), {"chunk": …[, "compressed": "gzip"]}]`.
fn packed(number: usize, payload: &[u8], gzip: bool) -> Vec<u8> {
    let mut out = b"\x93\xa4evil\xc6".to_vec();
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend_from_slice(payload);
    out.push(0x81 + u8::from(gzip));
    out.extend_from_slice(b"\xa5chunk\xaa");
    out.extend_from_slice(format!("{number:010}").as_bytes());
    if gzip {
        out.extend_from_slice(b"\xaacompressed\xa4gzip");
    }
    out
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn line(trace: &str, text: usize) -> Vec<u8> {
    rmp_serde::to_vec(&(0, json!({"traceId": trace, "message": "x".repeat(text)}))).unwrap()
}

/// Runs `attackers` threads of `attack` beside the bystander.
fn beside(name: &str, attackers: usize, attack: impl Fn(&Attack<'_>) + Sync) {
    beside_on(windrow(), name, attackers, attack);
}

fn beside_on(setup: Setup, name: &str, attackers: usize, attack: impl Fn(&Attack<'_>) + Sync) {
    let mut server = setup.sqlite().arg("--memory-limit", "128MiB").start();
    let state = Attack {
        server: &server,
        stop: AtomicBool::new(false),
        number: AtomicUsize::new(0),
    };
    let times = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..attackers {
            scope.spawn(|| attack(&state));
        }
        std::thread::sleep(HEAD_START);
        // Whatever happens here, the attackers end.
        let bystander = scope.spawn(|| bystander(&server, &times));
        let result = bystander.join();
        state.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
    let mut times = times.into_inner().unwrap();
    times.sort_unstable();
    println!(
        "{name}: {} traces, median {:?}, longest {:?}",
        times.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    assert_eq!(server.metric("windrow_rejected_lost_total"), 0.0);
    if is_endless() {
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        assert!(p99 <= ENDLESS_P99, "{name}: {p99:?}");
    }
    server.kill();
}

fn bystander(server: &Server, times: &Mutex<Vec<Duration>>) {
    let (traces, pause) = if is_endless() { ENDLESS } else { (TRACES, PAUSE) };
    std::thread::scope(|scope| {
        for number in 0..traces {
            scope.spawn(move || {
                let begin = Instant::now();
                let id = format!("bystander-{number}");
                let mut client = Client::connect(server.forward());
                let record = json!({"traceId": id, "message": "request completed"});
                client.send("app", &id, &[(START, 0, record)]);
                let path = format!("traceId={id}");
                wait::until_true("the bystander's trace", SOON, || !server.logs(&path).is_empty());
                times.lock().unwrap().push(begin.elapsed());
            });
            std::thread::sleep(pause);
        }
    });
}

#[test]
fn bombs() {
    let records = gzip(&line("bomb", 60_000).repeat(500));
    beside("compressed records of 30 MB", 4, |attack| {
        attack.send(12, |number| packed(number, &records, true));
    });
    let empty = gzip(&b"\x92\x00\x80".repeat(MIB));
    beside("empty records in a few kB", 4, |attack| {
        attack.send(4, |number| packed(number, &empty, true));
    });
    let nils = gzip(&vec![0xc0; 30 * MIB]);
    beside("millions of bad entries", 4, |attack| {
        attack.send(100, |number| packed(number, &nils, true));
    });
}

#[test]
fn long_messages() {
    let plain = b"\x92\x00\x80".repeat(MIB / 4);
    beside("messages of 262,144 records", 2, |attack| {
        attack.send(4, |number| packed(number, &plain, false));
    });
    let endless = line("endless", 1000).repeat(2000);
    beside("a trace without end", 2, |attack| {
        attack.send(40, |number| packed(number, &endless, false));
    });
    let text = json!(["evil", vec![json!([0, {"message": "y".repeat(900)}]); 8000]]).to_string();
    beside("JSON texts of 7 MB", 4, |attack| {
        attack.send(10, |_| text.clone().into_bytes());
    });
    let arrays = ["[]"; 2_000_000].join(",");
    beside("JSON texts of empty arrays", 2, |attack| {
        attack.send(6, |number| {
            format!("[\"evil\",[[0,{{\"traceId\":\"evil{number}\",\"z\":[{arrays}]}}]]]").into_bytes()
        });
    });
}

/// What gathering keeps of records: shapes, keys, fields, and ids.
#[test]
fn records_that_share_nothing() {
    let entry = |record| rmp_serde::to_vec(&(0, record)).unwrap();
    beside("a shape for each record", 2, |attack| {
        attack.send(40, |number| {
            let shape = |n| entry(json!({"traceId": "shape", (format!("k{number}-{n}")): n}));
            packed(number, &(0..5000).flat_map(shape).collect::<Vec<_>>(), false)
        });
    });
    beside("ids of 60 kB", 2, |attack| {
        attack.send(40, |number| {
            let id = |n| entry(json!({"traceId": format!("{}{number}-{n}", "x".repeat(60_000))}));
            packed(number, &(0..40).flat_map(id).collect::<Vec<_>>(), false)
        });
    });
    beside("open traces", 2, |attack| {
        attack.send(60, |number| {
            let open = |n| line(&format!("open-{number}-{n}"), 10);
            packed(number, &(0..5000).flat_map(open).collect::<Vec<_>>(), false)
        });
    });
}

#[test]
fn clients_of_the_http_input() {
    let setup = || {
        let port = ports::free();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        (windrow().env("WINDROW_HTTP_LISTEN", address.to_string()), address)
    };
    let post = |to: std::net::SocketAddr, length: usize| {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(1))).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        let head = format!(
            "POST /evil HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        (&stream).write_all(head.as_bytes()).ok()?;
        Some(stream)
    };
    let body = format!(
        "[{}]",
        [r#"{"traceId":"evil","a":[[],[],[]]}"#; 100_000].join(",")
    );
    let (server, to) = setup();
    beside_on(server, "requests of 3 MB", 4, |attack| {
        while attack.goes_on() && (is_endless() || attack.next() < 20) {
            if let Some(mut stream) = post(to, body.len()) {
                _ = stream.write_all(body.as_bytes());
                _ = stream.read(&mut [0; 64]);
            }
        }
    });
    let (server, to) = setup();
    beside_on(server, "64 clients inside a request of 30 MB", 64, |attack| {
        let Some(mut stream) = post(to, 30 * MIB) else {
            return;
        };
        _ = stream.write_all(&vec![b' '; 2 * MIB]);
        while attack.goes_on() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn clients_that_stand_still() {
    beside("64 clients inside a message of 30 MiB", 64, |attack| {
        let Some(mut stream) = attack.connect() else {
            return;
        };
        _ = stream.write_all(b"\x93\xa4evil\xc6\x01\xe0\x00\x00");
        _ = stream.write_all(&vec![b'x'; 2 * MIB]);
        while attack.goes_on() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    beside("1,000 clients that send a byte a second", 4, |attack| {
        let mut clients: Vec<_> = (0..250).filter_map(|_| attack.connect()).collect();
        for client in &mut clients {
            _ = client.write_all(b"\x93\xa4evil\xdb\x00\x10\x00\x00");
        }
        while attack.goes_on() {
            clients.retain_mut(|client| client.write_all(b"x").is_ok());
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let quiet = line("quiet", 10);
    beside("64 clients that read no acks", 64, |attack| {
        let Some(mut stream) = attack.connect() else {
            return;
        };
        while attack.goes_on() {
            let number = attack.next();
            if number > 50_000 || stream.write_all(&packed(number, &quiet, false)).is_err() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
}

#[test]
fn floods() {
    beside("connections that only open and close", 4, |attack| {
        while attack.goes_on() {
            drop(attack.connect());
        }
    });
    beside("HTTP and noise on the port", 4, |attack| {
        attack.send(usize::MAX, |number| match number % 3 {
            0 => b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            1 => vec![0xc1; 1000],
            _ => b"\xdd\xff\xff\xff\xff".to_vec(),
        });
    });
    beside("datagrams", 2, |attack| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        while attack.goes_on() {
            _ = socket.send_to(b"\0", attack.server.forward());
        }
    });
    beside("readers of the admin port that do not read", 20, |attack| {
        let admin = attack.server.admin().trim_start_matches("http://").to_owned();
        let paths = [
            "/logs?limit=1000",
            "/api/v1/tail",
            "/api/v1/traces?limit=100",
            "/metrics",
        ];
        let mut held = Vec::new();
        for (path, _) in paths.iter().cycle().zip(0..20) {
            held.extend(TcpStream::connect(&admin).and_then(|mut stream| {
                stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())?;
                Ok(stream)
            }));
        }
        while attack.goes_on() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    beside("silent sockets of the admin port", 300, |attack| {
        let admin = attack.server.admin().trim_start_matches("http://").to_owned();
        let mut held = Vec::new();
        while attack.goes_on() {
            if held.len() < 2 {
                held.extend(TcpStream::connect(&admin));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

/// Half of 300 clients send what is long to check; the threads of the server stay few.
#[test]
fn bombs_of_300_clients_take_few_threads() {
    let mut server = windrow().sqlite().start();
    let pid = server.process().pid();
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let before = threads();
    let zeros = gzip(&vec![0; 60 * MIB]);
    let attack = Attack {
        server: &server,
        stop: AtomicBool::new(false),
        number: AtomicUsize::new(0),
    };
    let attack = &attack;
    let most = std::thread::scope(|scope| {
        for client in 0..300 {
            let zeros = &zeros;
            scope.spawn(move || {
                attack.send(usize::MAX, |number| match client % 2 {
                    // More than is inspected at once, and refused.
                    0 => packed(number, &zeros.repeat(3), true),
                    _ => packed(number, &line("t", 10), false),
                });
            });
        }
        let begin = Instant::now();
        let mut most = 0;
        while begin.elapsed() < Duration::from_secs(5) {
            most = most.max(threads());
            std::thread::sleep(Duration::from_millis(20));
        }
        attack.stop.store(true, Ordering::Relaxed);
        most
    });
    println!("{before} threads before, {most} at most");
    assert!(most <= before + 12, "{before} threads before, {most} at most");
    server.kill();
}
