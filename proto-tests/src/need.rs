//! [`Need`]: what a server case requires of the target and the options.

use crate::options::Options;
use crate::target::{Action, Target};

/// A requirement of a case. A case whose requirement is not met is skipped with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Runs exclusively: it affects other cases or is affected by them. Always met.
    Exclusive,
    /// Runs exclusively and last: it leaves work behind. Always met.
    Last,
    /// A listener without handshake.
    Open,
    /// A listener with a shared key.
    Key,
    /// A shared key and users.
    Users,
    /// A shared key and no users.
    NoUsers,
    /// A key for the suite's network.
    NetworkKey,
    /// A UDP heartbeat address.
    Udp,
    /// Permission to run for a minute or more.
    Slow,
    /// A hook.
    Hook(Action),
    /// A declared limit on messages.
    MessageLimit,
    /// A declared timeout for partial messages, or permission to wait for the usual 60 s.
    ProgressTimeout,
}

impl Need {
    /// The reason why a case with this need cannot run, if any.
    pub(crate) fn missing(self, target: &Target, options: &Options) -> Option<&'static str> {
        let security = target.security.as_ref();
        let (met, reason) = match self {
            Self::Exclusive | Self::Last => (true, ""),
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
