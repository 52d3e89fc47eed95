//! A DNS server for tests, over UDP, and a command line prefix for programs that shall ask it.
//!
//! The resolver of a program asks port 53 of what `/etc/resolv.conf` names, so both need root: the
//! port, and a mount namespace with a file of its own.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::env::Missing;

/// What the server answers to every name.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// There is no such name.
    NoSuchName,
    /// Nothing at all.
    Silence,
}

/// The server.
#[derive(Debug)]
pub struct Dns {
    reply: Arc<Mutex<Reply>>,
    enter: Vec<String>,
    _folder: TempDir,
}

/// Bytes of the header of a message.
const HEADER_BYTES: usize = 12;
/// The type of IPv4 addresses.
const TYPE_A: [u8; 2] = [0, 1];

impl Dns {
    /// Starts it on a free address.
    ///
    /// # Errors
    /// This machine does not let the test do so.
    ///
    /// # Panics
    /// When a temporary file cannot be written.
    pub fn start(reply: Reply) -> Result<Self, Missing> {
        let bound = (1..255).find_map(|last| UdpSocket::bind((Ipv4Addr::new(127, 0, 53, last), 53)).ok());
        let socket = bound.ok_or_else(|| Missing::excused("this user may not bind port 53"))?;
        let address = socket.local_addr().expect("a bound socket");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("resolv.conf");
        let text = format!("nameserver {}\noptions timeout:1 attempts:1\n", address.ip());
        std::fs::write(&file, text).expect("a file");
        let script = format!(
            "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
            file.display()
        );
        let enter: Vec<String> = ["unshare", "--mount", "sh", "-c", &script]
            .map(str::to_owned)
            .into();
        let tried = Command::new("unshare").args(&enter[1..]).arg("true").status();
        if !tried.is_ok_and(|status| status.success()) {
            return Err(Missing::excused(
                "this machine lets this user mount nothing (unshare --mount)",
            ));
        }
        let reply = Arc::new(Mutex::new(reply));
        let replies = Arc::clone(&reply);
        // Ends with the test process.
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                let reply = lock(&replies).clone();
                if let Some(answer) = answer(&buffer[..bytes], &reply) {
                    socket.send_to(&answer, from).ok();
                }
            }
        });
        Ok(Self {
            reply,
            enter,
            _folder: folder,
        })
    }

    /// Answers so from now on.
    pub fn set(&self, reply: Reply) {
        *lock(&self.reply) = reply;
    }

    /// Prefix of the command line of a program that asks this server.
    pub fn enter(&self) -> &[String] {
        &self.enter
    }
}

fn lock(reply: &Mutex<Reply>) -> MutexGuard<'_, Reply> {
    reply.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The answer to a query (RFC 1035, section 4).
fn answer(query: &[u8], reply: &Reply) -> Option<Vec<u8>> {
    let (addresses, code) = match reply {
        Reply::Addresses(addresses) => (&addresses[..], 0),
        Reply::NoSuchName => (&[][..], 3),
        Reply::Silence => return None,
    };
    let name = query.get(HEADER_BYTES..)?.iter().position(|byte| *byte == 0)?;
    let question = query.get(HEADER_BYTES..HEADER_BYTES + name + 5)?;
    let is_a = question.get(name + 1..name + 3)? == TYPE_A;
    let addresses = if is_a { addresses } else { &[] };
    let mut out = query.get(..2)?.to_vec();
    out.extend([
        0x81,
        0x80 | code,
        0,
        1,
        0,
        u8::try_from(addresses.len()).ok()?,
        0,
        0,
        0,
        0,
    ]);
    out.extend(question);
    for address in addresses {
        // The name of the question, type A, class IN, valid for 1 s, 4 bytes.
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        out.extend(address.octets());
    }
    Some(out)
}
