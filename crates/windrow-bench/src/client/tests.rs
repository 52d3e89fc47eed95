//! The client against scripted servers.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread::JoinHandle;

use super::*;
use crate::load::{Load, Mode};

/// Answers of a connection after its first chunk; an empty one closes it.
type Script = &'static [&'static [u8]];

/// A server that reads one chunk of each connection, writes the script's answer and closes. Returns
/// what it read.
fn server(script: Script) -> (SocketAddr, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let chunk_bytes = chunk().len();
    let thread = std::thread::spawn(move || {
        let mut read = Vec::new();
        for answer in script {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = vec![0; chunk_bytes];
            stream.read_exact(&mut bytes).unwrap();
            read.push(bytes);
            stream.write_all(answer).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).ok();
            assert!(rest.is_empty(), "only one chunk is sent");
        }
        read
    });
    (address, thread)
}

fn load() -> Load {
    Load {
        mode: Mode::Forward,
        records: 3,
        lines: 3,
        connections: 1,
        ..Load::default()
    }
}

fn chunk() -> Vec<u8> {
    load().prepare().unwrap()[0].next_chunk().unwrap().unwrap().bytes
}

/// The acknowledgement of the only chunk.
const ACK: &[u8] = b"\x81\xa3ack\xb8000000000000000000000000";

fn send(address: SocketAddr, give_up: Option<Duration>) -> io::Result<Sent> {
    let client = Client {
        give_up,
        ..Client::new(address)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(client.send(load().prepare().unwrap(), Arc::new(())))
}

#[test]
fn a_lost_connection_ends_a_measurement() {
    let (address, server) = server(&[b"\x81\xa3a"]);
    let error = send(address, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
    server.join().unwrap();
}

#[test]
fn a_chunk_without_its_whole_acknowledgement_is_sent_again_as_it_was() {
    let (address, server) = server(&[b"", b"\x81\xa3ack\xb80000", ACK]);
    let sent = send(address, Some(Duration::from_secs(60))).unwrap();
    assert_eq!((sent.connects, sent.failures, sent.latencies.len()), (3, 2, 1));
    assert_eq!(sent.errors.len(), 2);
    assert_eq!(sent.bytes, chunk().len() as u64);
    assert_eq!(server.join().unwrap(), [chunk(), chunk(), chunk()]);
}

#[test]
fn a_wrong_answer_ends_every_load() {
    for give_up in [None, Some(Duration::from_secs(60))] {
        for answer in [&b"\x81\xa3ack\xa3one"[..], b"HTTP/1.1 400"] {
            let script: Script = Box::leak(Box::new([answer]));
            let (address, server) = server(script);
            let error = send(address, give_up).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
            server.join().unwrap();
        }
    }
}

#[test]
fn a_client_gives_up_when_nothing_gets_through() {
    let address = {
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        closed.local_addr().unwrap()
    };
    let error = send(address, Some(Duration::from_millis(100))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(
        error.to_string().starts_with("no chunk got through to "),
        "{error}"
    );
}
