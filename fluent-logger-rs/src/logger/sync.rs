//! Waiting until events are in the disk spool.

use std::time::{Duration, Instant};

use super::Logger;
use super::blocking::block_on;
use crate::error::FlushError;

impl Logger {
    /// Resolves when every event that was queued before the call is in the
    /// [spool](crate::Builder::spool), as durable as [`spool_fsync`](crate::Builder::spool_fsync)
    /// says, or delivered. The events do not wait for `flush_interval`. Needs no tokio. Unlike
    /// [`flush`](Self::flush) it does not wait for a server.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// logger.log("sale", &serde_json::json!({ "cents": 1999 }))?;
    /// logger.sync().await?; // it survives a kill from here on
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FlushError::NotSpooled`] if events are only in memory, because the disk refused them or
    /// because there is no spool; [`FlushError::Closed`] if the logger ended first.
    pub async fn sync(&self) -> Result<(), FlushError> {
        if self.shared().options.spool.is_none() {
            let events = self.shared().lock().queue.events();
            return match events {
                0 => Ok(()),
                _ => Err(FlushError::NotSpooled { events }),
            };
        }
        self.wait_settled(true).await
    }

    /// [`sync`](Self::sync) for threads without an async runtime: blocks at most `timeout`.
    ///
    /// ```no_run
    /// # use std::error::Error;
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), Box<dyn Error>> {
    /// use std::time::Duration;
    /// logger.blocking_sync(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`sync`](Self::sync), [`FlushError::TimedOut`] and [`FlushError::RuntimeBlocked`].
    pub fn blocking_sync(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.shared().would_block_worker() {
            return Err(FlushError::RuntimeBlocked);
        }
        block_on(self.sync(), Instant::now().checked_add(timeout)).unwrap_or(Err(FlushError::TimedOut))
    }
}
