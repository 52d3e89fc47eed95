//! Validation of the options.
//!
//! Owns every range and every contradiction between options.

use std::fmt;
use std::time::Duration;

use super::{Builder, KIB, MIB};
use crate::address::{Address, DEFAULT_PORT};
use crate::error::BuildError;
use crate::options::{Balance, DeliveryPolicy, Mode, OnFull, Options, QueueLimits, Security};

/// The longest time that an option takes; keeps sums of moments far from overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Builder {
    pub(super) fn check(&self) -> Result<Options, BuildError> {
        let mut addresses = self
            .addresses
            .iter()
            .map(|text| Address::parse(text))
            .collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() {
            addresses.push(Address::Tcp {
                host: "127.0.0.1".to_owned(),
                port: DEFAULT_PORT,
            });
        }
        let hour = Duration::from_secs(3600);
        let ms = Duration::from_millis(1);
        within(
            "flush_interval",
            self.flush_interval,
            Duration::ZERO,
            hour,
            "0 to 1 hour",
        )?;
        for (name, value) in [
            ("retry_wait", self.retry_wait),
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("ack_timeout", self.ack_timeout),
        ] {
            within(name, value, ms, hour, "1 ms to 1 hour")?;
        }
        within(
            "max_retry_wait",
            self.max_retry_wait,
            self.retry_wait,
            hour,
            "retry_wait to 1 hour",
        )?;
        within(
            "drop_timeout",
            self.drop_timeout,
            Duration::ZERO,
            LONGEST,
            "0 to 30 days",
        )?;
        if let Some(interval) = self.reconnect_interval {
            within(
                "async_reconnect_interval",
                interval,
                ms * 10,
                LONGEST,
                "10 ms to 30 days",
            )?;
        }
        if let OnFull::Wait(limit) = self.on_full {
            within("on_full(Wait)", limit, Duration::ZERO, hour, "0 to 1 hour")?;
        }
        within("reconnect_jitter", self.reconnect_jitter, 0.0, 1.0, "0.0 to 1.0")?;
        within(
            "chunk_limit_bytes",
            self.chunk_bytes,
            KIB,
            64 * MIB,
            "1 KiB to 64 MiB",
        )?;
        within(
            "chunk_limit_events",
            self.chunk_events,
            1,
            1_000_000,
            "1 to 1,000,000",
        )?;
        within(
            "record_limit",
            self.record_limit,
            64,
            64 * MIB,
            "64 bytes to 64 MiB",
        )?;
        within(
            "buffer_limit",
            self.buffer_events,
            1,
            100_000_000,
            "1 to 100,000,000",
        )?;
        within(
            "buffer_limit_bytes",
            self.buffer_bytes as u64,
            1024,
            16 << 30,
            "1 KiB to 16 GiB",
        )?;
        let in_flight = self
            .in_flight
            .unwrap_or(if self.mode == Mode::Message { 256 } else { 8 });
        within("in_flight", in_flight, 1, 65_536, "1 to 65,536")?;
        let security = self.check_security()?;
        #[cfg(feature = "tls")]
        let tls = if addresses
            .iter()
            .any(|address| matches!(address, Address::Tls { .. }))
        {
            Some(self.tls.load()?)
        } else {
            None
        };
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
            sub_second: self.sub_second_precision,
            record_limit: self.record_limit,
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
            spool: self.check_spool()?,
        })
    }

    #[cfg(feature = "spool")]
    fn check_spool(&self) -> Result<Option<(std::path::PathBuf, crate::Fsync)>, BuildError> {
        let Some(folder) = self.spool.clone() else {
            return Ok(None);
        };
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
        match contradictions.iter().find(|(is_so, _)| *is_so) {
            Some((_, reason)) => Err(BuildError::Conflict { reason }),
            None => Ok(Some((folder, self.spool_fsync))),
        }
    }

    fn check_security(&self) -> Result<Security, BuildError> {
        let mut security = self.security.clone();
        within(
            "shared_key",
            security.shared_key.as_ref().map_or(0, String::len),
            0,
            4096,
            "up to 4096 bytes",
        )?;
        within("user", security.username.len(), 0, 1024, "up to 1024 bytes")?;
        within(
            "user (password)",
            security.password.len(),
            0,
            1024,
            "up to 1024 bytes",
        )?;
        within(
            "self_hostname",
            security.hostname.len(),
            0,
            255,
            "up to 255 bytes",
        )?;
        if security.shared_key.is_none() && !security.username.is_empty() {
            return Err(BuildError::Conflict {
                reason: "a user needs a shared key (an empty one if the server has none): the password travels in its handshake",
            });
        }
        if security.hostname.is_empty() {
            security.hostname = hostname();
        }
        Ok(security)
    }
}

/// The host's name, without a system call that would need a crate.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty() && name.len() <= 255)
        .unwrap_or_else(|| "fluent-logger-rs".to_owned())
}

fn within<T: PartialOrd + fmt::Debug + Copy>(
    option: &'static str,
    value: T,
    from: T,
    to: T,
    allowed: &'static str,
) -> Result<(), BuildError> {
    if value >= from && value <= to {
        return Ok(());
    }
    Err(BuildError::OutOfRange {
        option,
        value: format!("{value:?}"),
        allowed,
    })
}
