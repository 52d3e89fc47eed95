//! Log of the server: text or JSON on standard error.
//!
//! * `writer`: buffer and thread, so that logging never waits;
//! * `warnings`: limits repeated warnings.
//!
//! Does not use standard output, which may carry documents.

mod warnings;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

pub use self::warnings::{Repeated, WarningLimiter, WarningPeer};
pub use self::writer::LogWriter;
use crate::config::{Loaded, LogConfig, LogFormat};

/// Time for the last lines of the log at the end, while nobody may read standard error.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Handle of the log, to change its filter.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    writer: LogWriter,
}

/// Why the log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is invalid.
    #[error("log.level is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Standard error or its thread cannot be had.
    #[error("standard error: {0}")]
    Writer(#[from] io::Error),
    /// The process has a log already.
    #[error("a log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The log no longer exists.
    #[error("the log cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Sets up the log of the process.
///
/// # Errors
/// The filter is invalid, the process has a log already, or the system gives no thread.
pub fn init(config: &LogConfig) -> Result<Logging, LoggingError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.level)?);
    // A file of its own: `std::io::stderr` is locked during a write, and a panic would wait for it.
    let writer = LogWriter::start(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
    let terminal = io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    if is_json(config.format, terminal) {
        let layer = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(writer.clone());
        registry.with(layer).try_init()?;
    } else {
        // https://no-color.org: any value that is not empty switches colours off.
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry
            .with(fmt::layer().with_ansi(colours).with_writer(writer.clone()))
            .try_init()?;
    }
    log_panics(writer.clone());
    Ok(Logging {
        filter: handle,
        writer,
    })
}

impl Logging {
    /// The writer of the log.
    #[must_use]
    pub fn writer(&self) -> LogWriter {
        self.writer.clone()
    }

    /// Replaces the filter.
    ///
    /// # Errors
    /// The text is not a filter; nothing changes.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        Ok(self.filter.reload(EnvFilter::try_new(level)?)?)
    }
}

/// Logs the source of the configuration and its warnings.
pub fn announce(loaded: &Loaded) {
    match &loaded.file {
        Some(path) => tracing::info!(file = %path.display(), "configuration read"),
        None => tracing::info!("no configuration file; flags, environment and defaults apply"),
    }
    for warning in &loaded.warnings {
        tracing::warn!("configuration: {warning}");
    }
}

/// Logs panics, because writing them to standard error would wait for its reader: the thread would
/// neither end nor be missed.
fn log_panics(writer: LogWriter) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => tracing::error!(thread, "{panic}\n{backtrace}"),
            _ => tracing::error!(thread, "{panic}"),
        }
        // It may be the last line.
        writer.flush(FLUSH_TIMEOUT);
    }));
}

fn is_json(format: LogFormat, terminal: bool) -> bool {
    match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn a_panic_is_logged_and_ends_its_thread() {
        let mut file = tempfile::tempfile().unwrap();
        let writer = LogWriter::start(file.try_clone().unwrap()).unwrap();
        let subscriber = fmt().with_writer(writer.clone()).finish();
        let before = std::panic::take_hook();
        log_panics(writer);
        let thread = std::thread::Builder::new().name("defective".into());
        let thread = thread.spawn(|| tracing::subscriber::with_default(subscriber, || panic!("a defect")));
        let ended = thread.unwrap().join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let mut log = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut log).unwrap();
        assert!(log.contains("a defect") && log.contains("defective"), "{log}");
    }

    #[test]
    fn auto_is_text_on_a_terminal_only() {
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Json, true) && !is_json(LogFormat::Text, false));
    }
}
