//! Spool options of the builder (feature `spool`).

use std::path::PathBuf;
use std::sync::Arc;

use super::Builder;
use crate::error::SpoolError;
use crate::options::Fsync;
#[cfg(doc)]
use crate::{Logger, Mode, OnFull};

impl Builder {
    /// Writes each chunk to a file in this folder before it is sent, and removes it when it is
    /// acknowledged. A logger that is built with the same folder later, after a crash say, first
    /// sends what is left: the same bytes with the same chunk ids. The folder is created if need
    /// be, and locked: one logger at a time. Its files, and the folder if it is created, can be
    /// read by their owner only. Default: no spool.
    ///
    /// An event is in memory only from `log` until its batch is written, that is for
    /// [`flush_interval`](Self::flush_interval) and the time that the disk takes; [`Logger::sync`]
    /// waits for that. Callers never wait for the disk. What is in the spool counts in
    /// [`buffer_limit`](Self::buffer_limit) and [`buffer_limit_bytes`](Self::buffer_limit_bytes),
    /// which bound it; what an earlier process left is taken over whole even if it is more, and
    /// then nothing new is taken before there is room. If the disk refuses a chunk, it is sent from
    /// memory and [`on_spool_error`](Self::on_spool_error) is told.
    ///
    /// Needs [`request_ack`](Self::request_ack) and a mode other than [`Mode::Message`]; excludes
    /// [`OnFull::DropOldest`] and [`max_retry`](Self::max_retry).
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().spool("/var/lib/shop/logs");
    /// ```
    pub fn spool(mut self, folder: impl Into<PathBuf>) -> Self {
        self.spool = Some(folder.into());
        self
    }

    /// When a spooled chunk is durable. Default: [`Fsync::Always`](crate::Fsync::Always).
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .spool("/var/lib/shop/logs")
    ///     .spool_fsync(fluent_logger::Fsync::Never);
    /// ```
    pub fn spool_fsync(mut self, fsync: Fsync) -> Self {
        self.spool_fsync = fsync;
        self
    }

    /// Called when a chunk cannot be spooled or removed, and for each damaged file that is found at
    /// the start. It runs in the logger's task: it must be quick, and a panic in it is caught and
    /// counted.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .on_spool_error(|error| eprintln!("logging: {error}"));
    /// ```
    pub fn on_spool_error(mut self, callback: impl Fn(&SpoolError) + Send + Sync + 'static) -> Self {
        self.callbacks.spool_error = Some(Arc::new(callback));
        self
    }
}
