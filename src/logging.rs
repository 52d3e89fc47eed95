//! The server's own log: to standard error, as text for people or as JSON for machines.
//!
//! Standard output is left alone: documents may go there. What is logged, and when, is up to each stage.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Loaded, LogConfig, LogFormat};

/// The running log; its filter can be changed.
#[derive(Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Why the log could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is none.
    #[error("log.level is not a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something has set up a log already.
    #[error("a log is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The log is gone.
    #[error("the log cannot be changed: {0}")]
    Reload(#[from] reload::Error),
}

/// Sets up the log of the whole process.
///
/// # Errors
/// When the process has a log already.
pub fn init(config: &LogConfig) -> Result<Logging, LoggingError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.level)?);
    let terminal = std::io::stderr().is_terminal();
    let registry = tracing_subscriber::registry().with(filter);
    if is_json(config.format, terminal) {
        let layer = fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_writer(std::io::stderr);
        registry.with(layer).try_init()?;
    } else {
        // https://no-color.org: any value that is not empty switches colours off.
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        registry
            .with(fmt::layer().with_ansi(colours).with_writer(std::io::stderr))
            .try_init()?;
    }
    Ok(Logging { filter: handle })
}

impl Logging {
    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// When the text is no filter; then nothing changes.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        Ok(self.filter.reload(EnvFilter::try_new(level)?)?)
    }
}

/// Says in the log where the configuration came from, and what is odd about it.
pub fn announce(loaded: &Loaded) {
    match &loaded.file {
        Some(path) => tracing::info!(file = %path.display(), "configuration read"),
        None => tracing::info!("no configuration file; flags, environment and defaults apply"),
    }
    for warning in &loaded.warnings {
        tracing::warn!("configuration: {warning}");
    }
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
    use super::*;

    #[test]
    fn auto_is_text_on_a_terminal_only() {
        assert!(is_json(LogFormat::Auto, false) && !is_json(LogFormat::Auto, true));
        assert!(is_json(LogFormat::Json, true) && !is_json(LogFormat::Text, false));
    }
}
