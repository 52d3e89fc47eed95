//! `github.com/fluent/fluent-logger-golang`, built behind a small program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::feed;
use crate::env::{self, Missing};

const VERSION: &str = "v1.10.2";

/// The built program.
#[derive(Debug)]
pub struct Go {
    binary: PathBuf,
}

impl Go {
    /// Builds it, once for all runs.
    ///
    /// # Errors
    /// When there is no go, or the module cannot be fetched.
    pub fn set_up() -> Result<Self, Missing> {
        let go = env::program("go")?;
        let folder = env::cache(&format!("go-{VERSION}"));
        let binary = folder.join("send");
        env::once(&folder, || {
            env::write_same(&folder.join("main.go"), include_str!("../../loggers/main.go.txt"));
            env::write_same(&folder.join("go.mod"), "module send\n\ngo 1.21\n");
            let module = format!("github.com/fluent/fluent-logger-golang/fluent@{VERSION}");
            env::run(Command::new(&go).args(["get", &module]).current_dir(&folder))?;
            env::run(
                Command::new(&go)
                    .args(["build", "-o"])
                    .arg(&binary)
                    .arg(".")
                    .current_dir(&folder),
            )?;
            Ok(())
        })?;
        Ok(Self { binary })
    }

    /// Sends records with acks and sub-second times.
    ///
    /// # Panics
    /// When the logger reports an error.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, tag: &str, asynchronous: bool, records: &[Value]) {
        feed(
            Command::new(&self.binary).args([
                to.ip().to_string(),
                to.port().to_string(),
                tag.to_owned(),
                asynchronous.to_string(),
            ]),
            records,
        );
    }
}
