//! What a case is, what it may need, and how it fails. Runs none; what it runs in is `context`.

use std::pin::Pin;
use std::time::Duration;

use crate::context::Ctx;
use crate::target::{Action, Target};

/// How a case ends early.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The peer did something else.
    Fail { expected: String, seen: String },
    /// The case cannot be judged here, for this reason.
    Skip(String),
}

impl Fault {
    pub(crate) fn fail(expected: impl Into<String>, seen: impl std::fmt::Display) -> Self {
        Self::Fail {
            expected: expected.into(),
            seen: seen.to_string(),
        }
    }
}

/// The end of a case or of a step of one.
pub(crate) type Verdict = Result<(), Fault>;

/// `Ok` when `holds`, otherwise a failure with these texts.
pub(crate) fn check(holds: bool, expected: impl Into<String>, seen: impl std::fmt::Display) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(Fault::fail(expected, seen))
    }
}

/// What a case needs of the target; where it is missing the case is skipped with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To run by itself: it disturbs others or is disturbed by them. Always met.
    Alone,
    /// To run by itself after all others: it leaves work behind. Always met.
    Last,
    /// A listener without handshake.
    Open,
    /// A listener with a shared key.
    Key,
    /// A shared key and users.
    Users,
    /// A shared key and no users.
    NoUsers,
    /// A key for the suite's own network.
    NetworkKey,
    /// A UDP heartbeat address.
    Udp,
    /// Leave to run for a minute or more.
    Slow,
    /// A hook.
    Hook(Action),
    /// A declared limit on messages.
    MessageLimit,
    /// A declared time limit for half messages, or leave to wait for the usual 60 s.
    ProgressTimeout,
}

impl Need {
    /// Why a case with this need cannot run, if so.
    pub(crate) fn missing(self, target: &Target, options: &Options) -> Option<&'static str> {
        let security = target.security.as_ref();
        let (met, reason) = match self {
            Self::Alone | Self::Last => (true, ""),
            Self::Open => (security.is_none(), "needs a listener without a shared key"),
            Self::Key => (
                security.is_some(),
                "needs a listener with a shared key (--shared-key)",
            ),
            Self::Users => (
                security.is_some_and(|s| !s.users.is_empty()),
                "needs users (--user)",
            ),
            Self::NoUsers => (
                security.is_some_and(|s| s.users.is_empty()),
                "needs a shared key without users",
            ),
            Self::NetworkKey => (
                security.is_some_and(|s| s.network_key.is_some()),
                "needs a key for the suite's network (--network-key)",
            ),
            Self::Udp => (target.udp.is_some(), "needs a UDP address (--udp)"),
            Self::Slow => (options.slow, "takes a minute or more (--slow)"),
            Self::Hook(action) => (
                target.hooks.get(action).is_some(),
                match action {
                    Action::KillRestart => "needs a hook (--hook kill-restart=CMD)",
                    Action::StopRestart => "needs a hook (--hook stop-restart=CMD)",
                    Action::Starve => "needs a hook (--hook starve=CMD)",
                    Action::Feed => "needs a hook (--hook feed=CMD)",
                },
            ),
            Self::MessageLimit => (
                target.declared.message_bytes.is_some(),
                "needs the message limit (--message-limit)",
            ),
            Self::ProgressTimeout => (
                target.declared.progress_timeout.is_some() || options.slow,
                "needs the progress timeout (--progress-timeout) or --slow",
            ),
        };
        (!met).then_some(reason)
    }
}

/// A running case.
pub(crate) type Running = Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One expectation of the protocol.
#[derive(Clone)]
pub struct Case {
    /// The number in the list of cases; stable.
    pub number: u16,
    /// A short name; stable.
    pub name: &'static str,
    /// Where the expectation comes from (keys: README).
    pub source: &'static str,
    /// The expectation in words.
    pub text: &'static str,
    /// Whether it disturbs others (restarts, thousands of connections, memory) and so runs by itself.
    pub alone: bool,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(Ctx) -> Running,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case")
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which cases: numbers, ranges (`47-58`) and name globs, separated by commas; empty means all.
    pub filter: String,
    /// How many cases may run at once.
    pub parallel: usize,
    /// How long to wait for a reply of the server.
    pub patience: Duration,
    /// How long to wait for something to show up in the sink.
    pub sink_patience: Duration,
    /// Whether cases that take a minute or more run.
    pub slow: bool,
    /// The connections of the case with many of them.
    pub many_connections: usize,
    /// The size to which the bomb of the decompression case inflates, in bytes.
    pub bomb_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            filter: String::new(),
            parallel: 8,
            patience: Duration::from_secs(5),
            sink_patience: Duration::from_secs(15),
            slow: false,
            many_connections: 10_000,
            bomb_bytes: 10 << 30,
        }
    }
}
