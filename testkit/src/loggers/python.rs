//! `fluent-logger` of PyPI in a virtual environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::feed;
use crate::env::{self, Missing};

const VERSION: &str = "0.11.1";

/// A Python with the logger.
#[derive(Debug)]
pub struct Python {
    interpreter: PathBuf,
    script: PathBuf,
}

impl Python {
    /// Sets the environment up, once for all runs.
    ///
    /// # Errors
    /// When there is no python3, or pip cannot install.
    pub fn set_up() -> Result<Self, Missing> {
        let python = env::program("python3")?;
        let folder = env::cache(&format!("python-{VERSION}"));
        let interpreter = folder.join("venv/bin/python");
        env::once(&folder, || {
            env::run(
                Command::new(&python)
                    .args(["-m", "venv", "--clear"])
                    .arg(folder.join("venv")),
            )?;
            let package = format!("fluent-logger=={VERSION}");
            env::run(Command::new(&interpreter).args(["-m", "pip", "install", "-q", &package]))?;
            Ok(())
        })?;
        let script = folder.join("send.py");
        env::write_same(&script, include_str!("../../loggers/send.py"));
        Ok(Self { interpreter, script })
    }

    /// Sends records with `FluentSender(tag)`; `nanoseconds` as its option of that name. A record's own `_time`
    /// (Unix seconds) becomes the event time.
    ///
    /// # Panics
    /// When the sender reports an error.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, tag: &str, nanoseconds: bool, records: &[Value]) {
        feed(
            Command::new(&self.interpreter).arg(&self.script).args([
                to.ip().to_string(),
                to.port().to_string(),
                tag.to_owned(),
                nanoseconds.to_string(),
            ]),
            records,
        );
    }
}
