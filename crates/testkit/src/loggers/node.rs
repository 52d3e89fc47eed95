//! The two loggers of npm: `fluent-logger` and `@fluent-org/logger`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{arguments, feed};
use crate::env::{self, Missing};

const FLUENT_LOGGER: &str = "fluent-logger@3.4.1";
const FLUENT_ORG: &str = "@fluent-org/logger@1.0.10";

/// Which package sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// `fluent-logger`.
    FluentLogger,
    /// `@fluent-org/logger`.
    FluentOrg,
}

impl Package {
    /// Its options for acks in an event mode: `Message`, `Forward` (only `@fluent-org/logger` has
    /// it), `PackedForward` or `CompressedPackedForward`.
    pub fn acked(self, mode: &str) -> Value {
        match self {
            Self::FluentLogger => {
                json!({"eventMode": mode, "requireAckResponse": true, "ackResponseTimeout": 20_000})
            }
            // Its default of half a second is short for a busy machine.
            Self::FluentOrg => json!({"eventMode": mode, "ack": {"ackTimeout": 20_000}}),
        }
    }
}

/// A node with both packages.
#[derive(Debug)]
pub struct Node {
    node: PathBuf,
    fluent_logger: PathBuf,
    fluent_org: PathBuf,
}

impl Node {
    /// Installs the packages, once for all runs.
    ///
    /// # Errors
    /// When there is no node or npm, or npm cannot install.
    pub fn set_up() -> Result<Self, Missing> {
        let node = env::program("node")?;
        let npm = env::program("npm")?;
        let folder = env::cache("node-3.4.1-1.0.10");
        env::once(&folder, || {
            let install = [
                "install",
                "--no-audit",
                "--no-fund",
                "--no-save",
                FLUENT_LOGGER,
                FLUENT_ORG,
                "--prefix",
            ];
            env::run(Command::new(&npm).args(install).arg(&folder)).map(drop)
        })?;
        let script = |name, source| env::script(&folder, name, "js", source);
        let fluent_logger = script("fluent-logger", include_str!("../../loggers/fluent-logger.js"));
        let fluent_org = script("fluent-org", include_str!("../../loggers/fluent-org.js"));
        Ok(Self {
            node,
            fluent_logger,
            fluent_org,
        })
    }

    /// Sends records with options of `createFluentSender` or `FluentClient`. A record's own `_time`
    /// (Unix seconds) becomes the event time: an `EventTime` when it has a fraction, the seconds
    /// when not.
    ///
    /// # Panics
    /// When the logger reports an error, a missing ack too.
    #[track_caller]
    pub fn send(&self, package: Package, to: SocketAddr, tag: &str, options: &Value, records: &[Value]) {
        let script = match package {
            Package::FluentLogger => &self.fluent_logger,
            Package::FluentOrg => &self.fluent_org,
        };
        feed(
            Command::new(&self.node)
                .arg(script)
                .args(arguments(to, tag, options)),
            records,
        );
    }
}
