//! [`Target`]: the server under test, with its addresses, security, declared limits, hooks and
//! sink.
//!
//! Owns no connection. A case that needs a setting that is not given here is skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::sink::Sink;

/// The server under test.
#[derive(Clone)]
pub struct Target {
    /// `HOST:PORT` of the Forward listener (TCP).
    pub address: String,
    /// `HOST:PORT` that answers UDP heartbeats; none: the UDP case is skipped.
    pub udp: Option<String>,
    /// Shared key and users; none: the listener does no handshake.
    pub security: Option<Security>,
    /// How to speak TLS; none: plain TCP.
    pub tls: Option<Tls>,
    /// Where delivered events can be read.
    pub sink: Sink,
    /// Limits that the server was configured with.
    pub declared: Declared,
    /// Process id of a server on this machine: its memory is watched in the hostile cases.
    pub pid: Option<u32>,
    /// Hooks that kill, restart or starve the server.
    pub hooks: Hooks,
}

impl Target {
    /// A target without TLS, handshake and sink.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            udp: None,
            security: None,
            tls: None,
            sink: Sink::None,
            declared: Declared::default(),
            pid: None,
            hooks: Hooks::default(),
        }
    }
}

/// The key and the users that the server was configured with.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// The shared key; may be empty.
    pub shared_key: String,
    /// Users and passwords; empty: the server asks for none.
    pub users: Vec<(String, String)>,
    /// The key for the suite's network instead of `shared_key`, for servers with keys per network.
    pub network_key: Option<String>,
}

/// How the suite speaks TLS to the target.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file with the certificate authority of the server; none: the certificate is not
    /// verified.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Name to verify and to send as SNI; none: the host of the address.
    pub server_name: Option<String>,
}

/// Limits that the server was configured with. A case about a limit needs to know it.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Largest message, in bytes.
    pub message_bytes: Option<usize>,
    /// Largest decompressed payload, in bytes.
    pub decompressed_bytes: Option<u64>,
    /// Most connections at once.
    pub connections: Option<usize>,
    /// Time after which a partial message without progress closes the connection.
    pub progress_timeout: Option<Duration>,
    /// Time for the handshake; 10 s when not declared.
    pub handshake_timeout: Option<Duration>,
    /// Whether the server deduplicates chunks.
    pub dedupe: bool,
}

/// A blocking function that acts on the server.
pub type Hook = Arc<dyn Fn() -> std::io::Result<()> + Send + Sync>;

/// Hooks by action.
#[derive(Clone, Default)]
pub struct Hooks(BTreeMap<Action, Hook>);

/// What a hook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Kill the server without warning (SIGKILL) and start it again on the same data.
    KillRestart,
    /// Ask the server to stop (SIGTERM), wait for its end, start it again on the same data.
    StopRestart,
    /// Make the next write of the server fail (full disk, refused output).
    Starve,
    /// Undo `Starve`.
    Feed,
}

impl Action {
    /// All actions with the names that the command line uses.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("kill-restart", Self::KillRestart),
        ("stop-restart", Self::StopRestart),
        ("starve", Self::Starve),
        ("feed", Self::Feed),
    ];

    /// The name that the command line uses.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, action)| *action == self)
            .map_or("?", |(name, _)| name)
    }
}

impl Hooks {
    /// Adds or replaces a hook.
    pub fn set(&mut self, action: Action, hook: Hook) {
        self.0.insert(action, hook);
    }

    /// A hook that runs `sh -c command` and wants exit status 0.
    pub fn shell(command: String) -> Hook {
        Arc::new(move || {
            let status = std::process::Command::new("sh")
                .arg("-c")
                .arg(&command)
                .status()?;
            if status.success() {
                Ok(())
            } else {
                Err(std::io::Error::other(format!("{command}: {status}")))
            }
        })
    }

    pub(crate) fn get(&self, action: Action) -> Option<Hook> {
        self.0.get(&action).cloned()
    }
}
