//! Size of the dead letter for readiness and metrics, read by a thread of its own.
//!
//! The folder belongs to a file system that can block, and other programs can lock it; what asks
//! for the size, such as a probe on a reactor thread, must not wait for it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::output::dead_letter::{DeadLetter, DeadLetterUsage};

/// Time between two reads.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// A read that takes longer than this is reported.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The last known size. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterWatch(Arc<Mutex<Watched>>);

/// Never locked during I/O.
#[derive(Debug)]
struct Watched {
    usage: DeadLetterUsage,
    /// When the read in progress began.
    reading_since: Option<Instant>,
}

impl DeadLetterWatch {
    /// Reads the size, and starts the thread that reads it again until `dead_letter` or the watch
    /// is dropped.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub(super) fn start(dead_letter: &Arc<DeadLetter>) -> io::Result<Self> {
        let watched = Arc::new(Mutex::new(Watched {
            usage: dead_letter.usage(),
            reading_since: None,
        }));
        let (dead_letter, shared) = (Arc::downgrade(dead_letter), Arc::downgrade(&watched));
        std::thread::Builder::new()
            .name("dead-letter".into())
            .spawn(move || {
                while read(&dead_letter, &shared).is_some() {
                    std::thread::sleep(READ_INTERVAL);
                }
            })?;
        Ok(Self(watched))
    }

    /// The last known size.
    pub(super) fn usage(&self) -> DeadLetterUsage {
        lock(&self.0).usage
    }

    /// Why it is not known any more, if that is so.
    pub(super) fn stall_reason(&self) -> Option<String> {
        let waited = lock(&self.0).reading_since?.elapsed();
        (waited >= STALL_TIMEOUT)
            .then(|| format!("reading the folder has not ended for {} s", waited.as_secs()))
    }
}

/// Reads the size once; `None` when nobody needs it any more.
fn read(dead_letter: &Weak<DeadLetter>, shared: &Weak<Mutex<Watched>>) -> Option<()> {
    let dead_letter = dead_letter.upgrade()?;
    let watched = shared.upgrade()?;
    lock(&watched).reading_since = Some(Instant::now());
    let usage = dead_letter.usage();
    *lock(&watched) = Watched {
        usage,
        reading_since: None,
    };
    Some(())
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}
