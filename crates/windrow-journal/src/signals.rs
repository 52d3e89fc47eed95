//! Wake-up flags of the maintenance thread.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::sync::{lock, wait, wait_until};

/// Releases are collected for this long before they are written to the release logs.
const RELEASE_LOG_DELAY: Duration = Duration::from_millis(200);
/// Failed work is tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) struct MaintenanceSignals {
    flags: Mutex<Flags>,
    changed: Condvar,
}

struct Flags {
    /// Work is due at once.
    work: bool,
    /// Releases are to be logged, after [`RELEASE_LOG_DELAY`].
    releases: bool,
    stop: bool,
}

impl MaintenanceSignals {
    /// With work due: the first segment is to be preallocated.
    pub(crate) fn new() -> Self {
        Self {
            flags: Mutex::new(Flags {
                work: true,
                releases: false,
                stop: false,
            }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn request_work(&self) {
        lock(&self.flags).work = true;
        self.changed.notify_one();
    }

    pub(crate) fn request_release_log(&self) {
        lock(&self.flags).releases = true;
        self.changed.notify_one();
    }

    pub(crate) fn request_stop(&self) {
        lock(&self.flags).stop = true;
        self.changed.notify_one();
    }

    /// Waits until work is due; `retry` makes it due after [`RETRY_INTERVAL`]. True if the thread
    /// is to stop.
    pub(crate) fn wait(&self, retry: bool) -> bool {
        let mut flags = lock(&self.flags);
        while !(flags.work || flags.stop) {
            if !retry && !flags.releases {
                flags = wait(&self.changed, flags);
                continue;
            }
            let delay = if retry { RETRY_INTERVAL } else { RELEASE_LOG_DELAY };
            flags = wait_until(&self.changed, flags, delay, |flags| flags.work || flags.stop);
            break;
        }
        flags.work = false;
        flags.releases = false;
        flags.stop
    }
}
