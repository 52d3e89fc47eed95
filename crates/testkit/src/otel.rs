//! The OpenTelemetry Collector's `fluentforward` receiver alone, built from the Go module proxy
//! into the user's cache and described in `proto-tests/peers/otel`. It writes received records to a
//! file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::env::{self, Missing};
use crate::ports;
use crate::process::Process;

/// The built program.
#[derive(Debug)]
pub struct Receiver {
    binary: PathBuf,
}

impl Receiver {
    /// Builds it, once for all runs.
    ///
    /// # Errors
    /// When there is no go, or the modules cannot be fetched.
    pub fn set_up() -> Result<Self, Missing> {
        let go = env::program("go")?;
        let source = concat!(
            include_str!("../../../proto-tests/peers/otel/main.go"),
            include_str!("../../../proto-tests/peers/otel/go.mod")
        );
        let folder = env::cache_of("otel", source);
        let binary = folder.join("otel");
        env::once(&folder, || {
            let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto-tests/peers/otel");
            env::run(
                Command::new(&go)
                    .args(["build", "-o"])
                    .arg(&binary)
                    .arg(".")
                    .current_dir(peer),
            )
            .map(drop)
        })?;
        Ok(Self { binary })
    }

    /// Runs it on a free port.
    ///
    /// # Panics
    /// When it cannot start.
    pub fn start(&self) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut command = Command::new(&self.binary);
        command
            .arg(address.to_string())
            .arg(folder.path().join("out.ndjson"));
        Running {
            address,
            process: Process::start("otel", &mut command),
            folder,
        }
    }
}

/// A running receiver; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    process: Process,
    folder: TempDir,
}

impl Running {
    /// Address for Forward.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Records received so far: whole lines of its file.
    pub fn received(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("out.ndjson")).unwrap_or_default();
        let whole = text
            .rfind('\n')
            .map_or("", |end| text.get(..end).unwrap_or_default());
        whole
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.last_words(30)
    }
}
