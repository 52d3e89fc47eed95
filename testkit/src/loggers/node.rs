//! The two loggers of npm: `fluent-logger` and `@fluent-org/logger`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::feed;
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

/// A node with both packages.
#[derive(Debug)]
pub struct Node {
    node: PathBuf,
    folder: PathBuf,
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
        env::write_same(
            &folder.join("fluent-logger.js"),
            include_str!("../../loggers/fluent-logger.js"),
        );
        env::write_same(
            &folder.join("fluent-org.js"),
            include_str!("../../loggers/fluent-org.js"),
        );
        Ok(Self { node, folder })
    }

    /// Sends records with acks in an event mode: `Message`, `Forward`, `PackedForward` or
    /// `CompressedPackedForward`. A record's own `_time` (Unix milliseconds) becomes the event time.
    ///
    /// # Panics
    /// When the logger reports an error, a missing ack too.
    #[track_caller]
    pub fn send(&self, package: Package, to: SocketAddr, tag: &str, mode: &str, records: &[Value]) {
        let script = match package {
            Package::FluentLogger => "fluent-logger.js",
            Package::FluentOrg => "fluent-org.js",
        };
        feed(
            Command::new(&self.node)
                .arg(self.folder.join(script))
                .args([&to.ip().to_string(), &to.port().to_string(), tag, mode])
                .current_dir(&self.folder),
            records,
        );
    }
}
