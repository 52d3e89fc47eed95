//! Adapter for the `log` facade (feature `log`).
//!
//! Owns the shape of its records: `level`, `target`, `message`, and `file` and `line` where known.

use forward_protocol::msgpack::{write_map_len, write_str, write_u64};
use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};

use crate::logger::Logger;
use crate::suppression::is_suppressed;

/// Sends the records of the `log` facade. A record that is refused is counted in
/// [`Stats::rejected`](crate::Stats::rejected).
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let logger = fluent_logger::Logger::builder().address("127.0.0.1:24224").build()?;
/// fluent_logger::FluentLog::new(logger.clone(), "app").init()?;
/// log::info!("ready");
/// let undelivered = logger.blocking_close(std::time::Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FluentLog {
    logger: Logger,
    tag: String,
    max_level: LevelFilter,
}

impl FluentLog {
    /// Logs with this tag, up to level `Info`.
    pub fn new(logger: Logger, tag: impl Into<String>) -> Self {
        Self {
            logger,
            tag: tag.into(),
            max_level: LevelFilter::Info,
        }
    }

    /// Leaves out records that are less severe than this. Default: `Info`.
    #[must_use]
    pub fn max_level(mut self, level: LevelFilter) -> Self {
        self.max_level = level;
        self
    }

    /// Makes this the logger of the process.
    ///
    /// # Errors
    /// When the process has a logger already.
    pub fn init(self) -> Result<(), SetLoggerError> {
        let level = self.max_level;
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(level);
        Ok(())
    }
}

impl Log for FluentLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.max_level && !is_suppressed()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        self.logger.log_written(&self.tag, |out| {
            let location = record.file().zip(record.line());
            write_map_len(out, if location.is_some() { 5 } else { 3 });
            write_str(out, b"level");
            write_str(out, record.level().as_str().as_bytes());
            write_str(out, b"target");
            write_str(out, record.target().as_bytes());
            write_str(out, b"message");
            match record.args().as_str() {
                Some(text) => write_str(out, text.as_bytes()),
                None => write_str(out, record.args().to_string().as_bytes()),
            }
            if let Some((file, line)) = location {
                write_str(out, b"file");
                write_str(out, file.as_bytes());
                write_str(out, b"line");
                write_u64(out, u64::from(line));
            }
        });
    }

    /// Sends without lingering; does not wait.
    fn flush(&self) {
        self.logger.flush_soon();
    }
}
