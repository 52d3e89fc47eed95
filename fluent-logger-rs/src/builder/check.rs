//! Validation of the options.
//!
//! Owns every range and every contradiction between options.

use std::fmt;
use std::time::Duration;

use super::{Builder, KIB, MIB};
use crate::address::{Address, DEFAULT_PORT};
use crate::error::BuildError;
use crate::options::{
    AdapterSettings, Balance, DeliveryPolicy, Mode, OnFull, Options, QueueLimits, Security,
};
use crate::record::EntryFormat;

/// The longest time that an option takes; keeps sums of moments far from overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Builder {
    pub(super) fn check(&self) -> Result<Options, BuildError> {
        let mut mistakes = Mistakes::default();
        let static_fields = self.check_static_fields(&mut mistakes);
        let mut addresses: Vec<_> = self
            .addresses
            .iter()
            .filter_map(|text| mistakes.note(Address::parse(text)))
            .collect();
        if self.addresses.is_empty() {
            addresses.push(Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: DEFAULT_PORT,
            });
        }
        let hour = Duration::from_secs(3600);
        let ms = Duration::from_millis(1);
        mistakes.within(
            "flush_interval",
            self.flush_interval,
            Duration::ZERO,
            hour,
            "0 to 1 hour",
        );
        for (name, value) in [
            ("retry_wait", self.retry_wait),
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("ack_timeout", self.ack_timeout),
        ] {
            mistakes.within(name, value, ms, hour, "1 ms to 1 hour");
        }
        mistakes.within(
            "max_retry_wait",
            self.max_retry_wait,
            self.retry_wait,
            hour,
            "retry_wait to 1 hour",
        );
        mistakes.within(
            "drop_timeout",
            self.drop_timeout,
            Duration::ZERO,
            LONGEST,
            "0 to 30 days",
        );
        if let Some(interval) = self.reconnect_interval {
            mistakes.within(
                "reconnect_interval",
                interval,
                ms * 10,
                LONGEST,
                "10 ms to 30 days",
            );
        }
        if let OnFull::Wait(limit) = self.on_full {
            mistakes.within("on_full(Wait)", limit, Duration::ZERO, hour, "0 to 1 hour");
        }
        mistakes.within("reconnect_jitter", self.reconnect_jitter, 0.0, 1.0, "0.0 to 1.0");
        mistakes.within(
            "chunk_limit_bytes",
            self.chunk_bytes,
            KIB,
            64 * MIB,
            "1 KiB to 64 MiB",
        );
        mistakes.within(
            "chunk_limit_events",
            self.chunk_events,
            1,
            1_000_000,
            "1 to 1,000,000",
        );
        mistakes.within(
            "record_limit",
            self.record_limit,
            64,
            64 * MIB,
            "64 bytes to 64 MiB",
        );
        mistakes.within(
            "buffer_limit",
            self.buffer_events,
            1,
            100_000_000,
            "1 to 100,000,000",
        );
        mistakes.within(
            "buffer_limit_bytes",
            self.buffer_bytes as u64,
            1024,
            16 << 30,
            "1 KiB to 16 GiB",
        );
        let in_flight = self
            .in_flight
            .unwrap_or(if self.mode == Mode::Message { 256 } else { 8 });
        mistakes.within("in_flight", in_flight, 1, 65_536, "1 to 65,536");
        let security = self.check_security(&mut mistakes);
        #[cfg(feature = "tls")]
        let tls = if addresses
            .iter()
            .any(|address| matches!(address, Address::Tls { .. }))
        {
            mistakes.note(self.tls.load())
        } else {
            None
        };
        #[cfg(feature = "spool")]
        let spool = self.check_spool(&mut mistakes);
        mistakes.into_result()?;
        Ok(Options {
            #[cfg(feature = "tls")]
            tls,
            policy: DeliveryPolicy {
                request_ack: self.request_ack,
                in_flight,
                retry_wait: self.retry_wait,
                max_retry_wait: self.max_retry_wait,
                max_retry: self.max_retry,
                ack_timeout: self.ack_timeout,
                write_timeout: self.write_timeout,
                reconnect_interval: self.reconnect_interval,
                reconnect_jitter: self.reconnect_jitter,
                endpoints: addresses.len(),
                failover: self.balance == Balance::Failover,
            },
            addresses,
            tag_prefix: self.tag_prefix.clone(),
            mode: self.mode,
            entry: EntryFormat {
                sub_second: self.sub_second_precision,
                limit: self.record_limit,
                static_fields,
            },
            settings: AdapterSettings {
                naming: self.naming,
                numeric_severity: self.numeric_severity,
            },
            on_full: self.on_full,
            limits: QueueLimits {
                events: self.buffer_events,
                bytes: self.buffer_bytes,
                batch_events: self.chunk_events.min(self.buffer_events / 4).max(1),
                batch_bytes: self.chunk_bytes.min(self.buffer_bytes / 4),
                linger: self.flush_interval,
                #[cfg(feature = "spool")]
                spooled: self.spool.is_some(),
                #[cfg(not(feature = "spool"))]
                spooled: false,
            },
            connect_timeout: self.connect_timeout,
            handshake_timeout: self.handshake_timeout,
            drop_timeout: self.drop_timeout,
            security,
            #[cfg(feature = "spool")]
            spool,
        })
    }

    #[cfg(feature = "spool")]
    fn check_spool(&self, mistakes: &mut Mistakes) -> Option<(std::path::PathBuf, crate::Fsync)> {
        let folder = self.spool.clone()?;
        let contradictions = [
            (
                !self.request_ack,
                "a spool needs request_ack: without acks nobody knows when a chunk may be removed",
            ),
            (
                self.mode == Mode::Message,
                "a spool needs a mode of batches: in Message mode each event would be a file",
            ),
            (
                self.on_full == OnFull::DropOldest,
                "a spool keeps what it has: on_full(DropOldest) would drop from it",
            ),
            (
                self.max_retry.is_some(),
                "a spool keeps what it has: max_retry would give it up",
            ),
        ];
        for (_, reason) in contradictions.iter().filter(|(is_so, _)| *is_so) {
            mistakes.add(BuildError::Conflict { reason });
        }
        Some((folder, self.spool_fsync))
    }

    fn check_security(&self, mistakes: &mut Mistakes) -> Security {
        let mut security = self.security.clone();
        mistakes.within(
            "shared_key",
            security.shared_key.as_ref().map_or(0, String::len),
            0,
            4096,
            "up to 4096 bytes",
        );
        mistakes.within("user", security.username.len(), 0, 1024, "up to 1024 bytes");
        mistakes.within(
            "user (password)",
            security.password.len(),
            0,
            1024,
            "up to 1024 bytes",
        );
        mistakes.within(
            "self_hostname",
            security.hostname.len(),
            0,
            255,
            "up to 255 bytes",
        );
        if security.shared_key.is_none() && !security.username.is_empty() {
            mistakes.add(BuildError::Conflict {
                reason: "a user needs a shared key (an empty one if the server has none): the password travels in its handshake",
            });
        }
        if security.hostname.is_empty() {
            security.hostname = hostname();
        }
        security
    }
}

/// The host's name, without a system call that would need a crate.
pub(super) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name.len() <= 255)
        .unwrap_or_else(|| "fluent-logger-rs".to_owned())
}

/// Mistakes found so far, so that all are reported at once.
#[derive(Default)]
pub(super) struct Mistakes(Vec<BuildError>);

impl Mistakes {
    pub(super) fn add(&mut self, mistake: BuildError) {
        self.0.push(mistake);
    }

    /// The value, or a mistake more.
    fn note<T>(&mut self, result: Result<T, BuildError>) -> Option<T> {
        result.map_err(|mistake| self.add(mistake)).ok()
    }

    fn within<T: PartialOrd + fmt::Debug + Copy>(
        &mut self,
        option: &'static str,
        value: T,
        from: T,
        to: T,
        allowed: &'static str,
    ) {
        if !(value >= from && value <= to) {
            self.add(BuildError::OutOfRange {
                option,
                value: format!("{value:?}"),
                allowed,
            });
        }
    }

    fn into_result(mut self) -> Result<(), BuildError> {
        match self.0.len() {
            0 => Ok(()),
            1 => Err(self.0.remove(0)),
            _ => Err(BuildError::Several(self.0)),
        }
    }
}
