//! `github.com/fluent/fluent-logger-golang`, built behind a small program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{arguments, feed};
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
        let source = include_str!("../../loggers/main.go.txt");
        let folder = env::cache_of(&format!("go-{VERSION}"), source);
        let binary = folder.join("send");
        env::once(&folder, || {
            env::write_same(&folder.join("main.go"), source);
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

    /// Sends records with fields of `fluent.Config` by their JSON names. A record's own `_time`
    /// (Unix seconds) becomes the event time. `trust` is the authority of a TLS server's
    /// certificate: the library has no option for it, Go itself takes it from the environment.
    ///
    /// # Panics
    /// When the logger reports an error.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, tag: &str, options: &Value, trust: Option<&Path>, records: &[Value]) {
        let mut command = Command::new(&self.binary);
        command.args(arguments(to, tag, options));
        command.envs(trust.map(|file| ("SSL_CERT_FILE", file)));
        feed(&mut command, records);
    }
}
