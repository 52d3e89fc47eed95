//! Guard that closes the logger when it is dropped.

use std::time::Duration;

use super::Logger;
use crate::loss_report::report;

/// Closes the logger when it is dropped and blocks meanwhile, at most for the time given to
/// [`Logger::guard`]. What was not delivered by then is said on stderr.
#[derive(Debug)]
#[must_use = "the logger is closed as soon as the guard is dropped: bind it to a name in `main`"]
pub struct Guard {
    logger: Logger,
    timeout: Duration,
}

impl Logger {
    /// A guard that delivers what is queued when it is dropped, blocking at most `timeout`, and
    /// closes the logger: the last thing that `main` does, however it returns.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let logger = fluent_logger::Logger::builder().build()?;
    /// let _guard = logger.guard(std::time::Duration::from_secs(5));
    /// logger.log("app", &std::collections::HashMap::from([("message", "started")]))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn guard(&self, timeout: Duration) -> Guard {
        Guard {
            logger: self.clone(),
            timeout,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.logger.blocking_close(self.timeout) {
            Ok(events) if events.is_empty() => {}
            Ok(events) => report(&format!(
                "{} events were not delivered within {:?} and are lost",
                events.len(),
                self.timeout
            )),
            Err(error) => report(&error.to_string()),
        }
    }
}
