//! What clients send that is no Forward message, or not as it is expected: what is kept of it, and
//! what the log says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use fluent_logger::Logger;
use serde_json::{Value, json};
use windrow_testkit::balancer::Balancer;
use windrow_testkit::certificates::Certificates;
use windrow_testkit::client::{Client, forward};
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

const PROXY_1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 24224\r\n";
const PROXY_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x5e\xa0";

/// Sends bytes, closes, and waits until the server has closed as well.
fn send(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).ok();
    stream.shutdown(Shutdown::Write).ok();
    stream.read_to_end(&mut Vec::new()).ok();
}

/// Waits for a warning with all of these words.
#[track_caller]
fn assert_said(server: &mut Server, words: &[&str]) {
    wait::until(&format!("a warning with {words:?}"), SOON, || {
        let lines = server.process().stderr();
        let is_it = |line: &&String| {
            let warning: Value = serde_json::from_str(line).unwrap_or_default();
            warning["level"] == "WARN" && words.iter().all(|word| line.contains(word))
        };
        lines
            .iter()
            .find(is_it)
            .map(|_| ())
            .ok_or_else(|| lines.join("\n"))
    });
}

fn message(id: &str) -> Vec<u8> {
    let record = json!({"traceId": id, "message": "request completed"});
    forward("app", Some(id), &[(1_790_000_000, 0, record)])
}

#[track_caller]
fn wait_for(server: &Server, id: &str) -> Value {
    wait::until(&format!("the document {id}"), SOON, || {
        let stored = server.stored();
        let found = stored.iter().find(|stored| stored.source["traceId"] == id);
        found
            .map(|stored| stored.source.clone())
            .ok_or_else(|| format!("{} documents", stored.len()))
    })
}

#[test]
fn records_without_a_message_are_kept_and_said() {
    let mut server = windrow().sqlite().start();
    let line = |id: &str| json!({"traceId": id, "message": "request completed"}).to_string();
    let lines = (0..30).map(|n| line(&format!("line-{n}")) + "\n");
    send(server.forward(), lines.collect::<String>().as_bytes());
    // GELF ends each with a zero, and some people put none of them on a line of its own.
    send(
        server.forward(),
        format!("{}\0{}\0", line("zero-1"), line("zero-2")).as_bytes(),
    );
    send(
        server.forward(),
        (line("joined-1") + &line("joined-2")).as_bytes(),
    );
    let map = b"\x82\xa7traceId\xa3map\xa7message\xb1request completed";
    send(server.forward(), map);
    send(server.forward(), &[map.as_slice(), &message("after")].concat());
    // A list of records, as JSON and as MessagePack.
    let list = format!("[{}, {}, {}]\n", line("list-0"), line("list-1"), line("list-2"));
    send(server.forward(), list.as_bytes());
    let maps = [
        &b"\x92"[..],
        b"\x82\xa7traceId\xa4map1\xa7message\xb1request completed",
        b"\x82\xa7traceId\xa4map2\xa7message\xb1request completed",
    ];
    send(server.forward(), &maps.concat());
    for id in [
        "list-0", "list-2", "map1", "map2", "line-0", "line-29", "zero-1", "zero-2", "joined-2", "after",
    ] {
        wait_for(&server, id);
    }
    let document = wait_for(&server, "map");
    assert_eq!(document["windrow"]["tags"], json!(["windrow.raw"]));
    assert_said(&mut server, &["127.0.0.1", "windrow.raw", "without tag"]);
    wait::until_true("their count", SOON, || {
        server.metric("windrow_input_messages_total{mode=\"raw\"}") == 38.0
    });
    assert_eq!(server.metric("windrow_input_decode_errors_total"), 0.0);
    server.crash();
    wait_for(&server, "line-7");
    assert!(server.terminate(SOON).success());
}

#[test]
fn other_values_are_counted_and_said() {
    let mut server = windrow().sqlite().start();
    send(
        server.forward(),
        &[&b"\x01\xa3abc"[..], &message("good")].concat(),
    );
    wait_for(&server, "good");
    assert_said(&mut server, &["127.0.0.1", "no Forward message"]);
    assert_eq!(
        server.metric("windrow_input_decode_errors_total{reason=\"not_a_message\"}"),
        2.0
    );
}

#[test]
fn a_message_that_is_too_large_names_its_tag_and_the_key() {
    let mut server = windrow()
        .sqlite()
        .env("WINDROW_FORWARD_MAX_MESSAGE", "10KiB")
        .env("WINDROW_FORWARD_MAX_DECOMPRESSED", "10KiB")
        .start();
    let record = json!({"message": "x".repeat(20_000)});
    let events = [(1_790_000_000, 0, record)];
    send(server.forward(), &forward("app.large", Some("1"), &events));
    assert_said(
        &mut server,
        &["127.0.0.1", "app.large", "forward.max_message", "10240"],
    );
    let mut json = json!(["app.json", 1, {"message": "x".repeat(20_000)}]).to_string();
    json.push('\n');
    send(server.forward(), json.as_bytes());
    assert_said(&mut server, &["JSON", "forward.max_message"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&[0xc0; 20_000]).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut packed = b"\x93\xaaapp.packed\xc5".to_vec();
    packed.extend_from_slice(&u16::try_from(gzip.len()).unwrap().to_be_bytes());
    packed.extend_from_slice(&gzip);
    packed.extend_from_slice(b"\x81\xa5chunk\xa11");
    send(server.forward(), &packed);
    assert_said(&mut server, &["app.packed", "forward.max_decompressed"]);
}

#[test]
fn only_a_client_with_acks_is_said_to_send_again() {
    let mut server = windrow().sqlite().start();
    let record = json!({"message": "x"});
    let without = forward("app", None, &[(1_790_000_000, 0, record)]);
    send(
        server.forward(),
        &[&without[..], &without[..without.len() - 3]].concat(),
    );
    assert_said(
        &mut server,
        &["bytes into a message", "it is lost", "Require_ack_response"],
    );
    let with = message("with");
    send(server.forward(), &[&with[..], &with[..with.len() - 3]].concat());
    assert_said(
        &mut server,
        &["bytes into a message", "the client sends it again"],
    );
    send(server.forward(), &with[..with.len() - 3]);
    assert_said(
        &mut server,
        &[
            "bytes into a message",
            "a client that waits for acks sends it again",
        ],
    );
}

#[test]
fn a_header_of_the_proxy_protocol_is_recognised() {
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let tls = windrow()
        .sqlite()
        .arg("--tls-cert", cert.display().to_string())
        .arg("--tls-key", key.display().to_string());
    let with_key = windrow().sqlite().arg("--shared-key", "k");
    for mut server in [windrow().sqlite().start(), with_key.start(), tls.start()] {
        for header in [PROXY_1, PROXY_2] {
            send(server.forward(), &[header, &message("proxied")].concat());
        }
        assert_said(
            &mut server,
            &["PROXY protocol", "forward.proxy_protocol = true", "127.0.0.1"],
        );
        wait::until_true("both are counted", SOON, || {
            server.metric("windrow_input_violations_total{reason=\"proxy_protocol\"}") == 2.0
        });
    }
}

#[test]
fn a_header_of_the_proxy_protocol_names_the_client() {
    let mut server = windrow()
        .sqlite()
        .env("WINDROW_FORWARD_PROXY_PROTOCOL", "true")
        .env("WINDROW_FORWARD_MAX_CONNECTIONS_PER_ADDRESS", "2")
        .start();
    for (number, header) in [PROXY_1, PROXY_2, b"PROXY UNKNOWN\r\n"].into_iter().enumerate() {
        let id = format!("proxied-{number}");
        send(server.forward(), &[header, &message(&id)].concat());
        wait_for(&server, &id);
    }
    // The address is in the log, and limits count it.
    send(server.forward(), &[PROXY_2, b"GET / HTTP/1.1\r\n\r\n"].concat());
    assert_said(&mut server, &["192.0.2.1", "HTTP"]);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(server.forward());
        client.write(&[PROXY_1, &message("open")].concat());
        assert_eq!(client.ack().as_deref(), Some("open"));
        open.push(client);
    }
    send(server.forward(), PROXY_2);
    assert_said(
        &mut server,
        &["192.0.2.1", "all the connections that it may have"],
    );
    let other = b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 24224\r\n";
    send(server.forward(), &[&other[..], &message("other")].concat());
    wait_for(&server, "other");
    // Health checks of the balancer, and clients that come without it.
    send(server.forward(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    send(server.forward(), b"");
    send(server.forward(), &message("direct"));
    assert_said(
        &mut server,
        &[
            "127.0.0.1",
            "not with a header of the PROXY protocol",
            "forward.proxy_protocol",
        ],
    );
    let lines = server.process().stderr().join("\n");
    assert_eq!(lines.matches("\"WARN\"").count(), 3, "{lines}");
}

#[test]
fn tls_follows_a_header_of_the_proxy_protocol() {
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let server = windrow()
        .sqlite()
        .env("WINDROW_FORWARD_PROXY_PROTOCOL", "true")
        .arg("--tls-cert", cert.display().to_string())
        .arg("--tls-key", key.display().to_string())
        .start();
    for header in [PROXY_1, PROXY_2] {
        let balancer = Balancer::with_header(&[server.forward()], header);
        let to = format!("tls://localhost:{}", balancer.address().port());
        let builder = Logger::builder()
            .address(to)
            .tls_ca_file(certificates.authority());
        let logger = builder.build().unwrap();
        let id = format!("tls-{}", header.len());
        logger
            .log("app", &json!({"traceId": id, "message": "request completed"}))
            .unwrap();
        wait_for(&server, &id);
        assert_eq!(logger.blocking_close(SOON).unwrap().len(), 0);
    }
}

#[test]
fn a_client_of_tls_1_1_is_told_that_1_2_is_needed() {
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let mut server = windrow()
        .sqlite()
        .arg("--tls-cert", cert.display().to_string())
        .arg("--tls-key", key.display().to_string())
        .start();
    // A ClientHello of TLS 1.1 (RFC 4346, section 7.4.1.2): version, random, no session, one cipher
    // suite, no compression.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &body].concat();
    let record = [&[0x16, 3, 1, 0, length + 4][..], &handshake].concat();
    send(server.forward(), &record);
    assert_said(&mut server, &["127.0.0.1", "TLS 1.1", "TLS 1.2 or 1.3"]);
    send(server.forward(), &message("plain"));
    assert_said(&mut server, &["does the client have TLS switched on?"]);
}

/// Health checks connect and close, or reset; scanners and clients that do not trust the
/// certificate come again and again.
#[test]
fn probes_of_a_tls_port_are_no_failures_and_repeated_failures_are_summed_up() {
    const CLIENTS: usize = 60;
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let mut server = windrow()
        .sqlite()
        .arg("--tls-cert", cert.display().to_string())
        .arg("--tls-key", key.display().to_string())
        .start();
    let connections = |server: &Server| server.metric("windrow_input_connections");
    for number in 0..CLIENTS {
        let stream = TcpStream::connect(server.forward()).unwrap();
        if number % 2 == 0 {
            // Closing sends a reset.
            rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
        }
    }
    wait::until_true("the probes to be gone", SOON, || connections(&server) < 0.5);
    assert_eq!(server.metric("windrow_handshakes_total"), 0.0);
    assert!(!server.process().stderr().join("\n").contains("WARN"));

    // A ClientHello that is followed by the alert `unknown_ca`, and an HTTP request.
    for bytes in [
        &b"\x15\x03\x03\0\x02\x02\x30"[..],
        b"GET /health HTTP/1.0\r\n\r\n",
    ] {
        for _ in 0..CLIENTS {
            send(server.forward(), bytes);
        }
    }
    wait::until_true("the failures to be counted", SOON, || {
        server.metric("windrow_handshakes_total") == 2.0 * CLIENTS as f64
    });
    assert_said(&mut server, &["127.0.0.1"]);
    let lines = server.process().stderr();
    let warnings = lines.iter().filter(|line| line.contains("\"WARN\"")).count();
    assert!(warnings < CLIENTS / 2, "{warnings} warnings: {lines:?}");
}
