//! `fluent-logger` of PyPI in a virtual environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{arguments, feed};
use crate::env::{self, Missing};

const VERSION: &str = "0.11.1";

/// Which of the library's classes sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// `fluent.sender.FluentSender`.
    Sender,
    /// `fluent.asyncsender.FluentSender`.
    AsyncSender,
    /// `fluent.handler.FluentHandler` of Python's `logging`.
    Handler,
    /// `fluent.asynchandler.FluentHandler`.
    AsyncHandler,
}

impl Sender {
    fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::AsyncSender => "asyncsender",
            Self::Handler => "handler",
            Self::AsyncHandler => "asynchandler",
        }
    }
}

/// The interpreter of a virtual environment in `folder` with these packages, installed once for all
/// runs.
///
/// # Errors
/// When there is no python3, or pip cannot install.
pub(super) fn environment(folder: &Path, packages: &[String]) -> Result<PathBuf, Missing> {
    let python = env::program("python3")?;
    let interpreter = folder.join("venv/bin/python");
    env::once(folder, || {
        env::run(
            Command::new(&python)
                .args(["-m", "venv", "--clear"])
                .arg(folder.join("venv")),
        )?;
        let install = ["-m", "pip", "install", "-q"];
        env::run(Command::new(&interpreter).args(install).args(packages)).map(drop)
    })?;
    Ok(interpreter)
}

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
        let folder = env::cache(&format!("python-{VERSION}"));
        let interpreter = environment(&folder, &[format!("fluent-logger=={VERSION}")])?;
        let script = env::script(&folder, "send", "py", include_str!("../../loggers/send.py"));
        Ok(Self { interpreter, script })
    }

    /// Sends records with options of `FluentSender`. A record's own `_time` (Unix seconds) becomes
    /// the event time.
    ///
    /// # Panics
    /// When the sender reports an error.
    #[track_caller]
    pub fn send(&self, sender: Sender, to: SocketAddr, tag: &str, options: &Value, records: &[Value]) {
        feed(
            Command::new(&self.interpreter)
                .arg(&self.script)
                .args(arguments(to, tag, options))
                .arg(sender.name()),
            records,
        );
    }
}
