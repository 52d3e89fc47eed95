//! Forward receiver that keeps the messages of its clients in memory and acknowledges chunks: shows
//! what a client really sends. Checks nothing.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use rmpv::Value;

/// A raw Forward receiver on loopback. Its thread ends with the test program.
#[derive(Debug)]
pub struct Capture {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<Value>>>,
}

impl Capture {
    /// Listens on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let messages = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&messages);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || serve(stream, &kept));
            }
        });
        Self { address, messages }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All complete messages so far, in order of arrival.
    pub fn messages(&self) -> Vec<Value> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Until the client ends or sends what is not MessagePack.
fn serve(mut stream: TcpStream, kept: &Mutex<Vec<Value>>) {
    let mut buffer = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(n) => buffer.extend_from_slice(&part[..n]),
        }
        loop {
            let mut cursor = Cursor::new(&buffer[..]);
            let Ok(message) = rmpv::decode::read_value(&mut cursor) else {
                break;
            };
            let used = usize::try_from(cursor.position()).expect("in memory");
            buffer.drain(..used);
            let ack = chunk_id(&message).map(ack);
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            if ack.is_some_and(|ack| stream.write_all(&ack).is_err()) {
                return;
            }
        }
    }
}

/// The `chunk` of the option map, which is the last element of a message.
fn chunk_id(message: &Value) -> Option<&Value> {
    let options = message.as_array()?.last()?.as_map()?;
    options
        .iter()
        .find(|(key, _)| key.as_str() == Some("chunk"))
        .map(|(_, id)| id)
}

fn ack(id: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    let answer = Value::Map(vec![(Value::from("ack"), id.clone())]);
    rmpv::encode::write_value(&mut out, &answer).expect("memory takes it");
    out
}
