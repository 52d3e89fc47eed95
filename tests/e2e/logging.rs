//! The server's log: never in the way, and not flooded by clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use windrow_testkit::certificates::Certificates;
use windrow_testkit::client::Client;
use windrow_testkit::server::Server;
use windrow_testkit::wait;

use crate::{SOON, windrow};

/// Sends bytes, closes, and waits until the server has closed as well.
fn send_and_close(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(bytes).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    stream.read_to_end(&mut Vec::new()).ok();
}

fn about_connections(server: &mut Server) -> Vec<String> {
    let mut lines = server.process().stderr();
    lines.retain(|line| line.contains("connection ended"));
    lines
}

/// Ends the child when the test fails.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A log collector that hangs: the pipe of standard error is full.
#[test]
fn a_stalled_reader_of_standard_error_stops_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "none",
            "--log-level",
            "debug",
        ])
        .arg("--data-dir")
        .arg(data.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut server = Killed(command.spawn().unwrap());
    let mut first = String::new();
    let mut out = BufReader::new(server.0.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    let address = first.trim().strip_prefix("forward listening on ").unwrap();
    let address: SocketAddr = address.parse().unwrap();
    // More than a pipe and the buffer hold.
    for _ in 0..1500 {
        send_and_close(address, &[0xc1; 100]);
    }
    let mut client = Client::connect(address);
    client.send("app", "c1", &[(1_790_000_000, 0, json!({"message": "stored"}))]);
    let pid = Pid::from_child(&server.0);
    kill_process(pid, Signal::TERM).unwrap();
    wait::until_true("its end", Duration::from_secs(20), || {
        server.0.try_wait().unwrap().is_some()
    });
    assert!(server.0.wait().unwrap().success());
}

#[test]
fn health_checks_and_scanners_are_no_failed_handshakes() {
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let with_key = |setup: windrow_testkit::server::Setup| setup.sqlite().arg("--shared-key", "k");
    let tls = with_key(windrow())
        .arg("--tls-cert", cert.display().to_string())
        .arg("--tls-key", key.display().to_string());
    for mut server in [with_key(windrow()).start(), tls.start()] {
        for n in 0..20 {
            let stream = TcpStream::connect(server.forward()).unwrap();
            if n % 2 == 0 {
                // Closed by a reset.
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
            drop(stream);
        }
        wait::until_true("the end of all", SOON, || {
            server.metric("windrow_input_connections_total") >= 10.0
                && server.metric("windrow_input_connections") == 0.0
        });
        assert_eq!(server.metric("windrow_handshakes_total"), 0.0);
        assert_eq!(about_connections(&mut server), [""; 0]);
    }
}

#[test]
fn a_client_cannot_flood_the_log() {
    let mut server = windrow().sqlite().start();
    for _ in 0..100 {
        send_and_close(server.forward(), b"GET / HTTP/1.1\r\n\r\n");
        send_and_close(server.forward(), b"\x93");
    }
    wait::until_true("the end of all", SOON, || {
        server.metric("windrow_input_connections") == 0.0
    });
    assert_eq!(server.metric("windrow_input_violations_total"), 100.0);
    let lines = about_connections(&mut server);
    assert_eq!(lines.len(), 6, "three of each kind: {lines:#?}");
}
