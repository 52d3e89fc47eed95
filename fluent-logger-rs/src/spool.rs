//! Disk spool: a chunk is written to a file before it is sent and removed when it is acknowledged.
//!
//! Owns the thread that does all disk I/O, so that neither callers nor the runtime wait for a disk,
//! and the order of that I/O. A chunk is handed over, written and handed back; only then may it be
//! sent. The file format is in [`file`], file names and the lock are in [`folder`].
//!
//! The spool does not extend the buffer: a spooled chunk is in memory too and counts there, so that
//! an outage fills the buffer as it would without a spool. What it adds is that spooled chunks
//! survive the end of the process.

mod file;
mod folder;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::chunk::Chunk;
use crate::error::{BuildError, SpoolError};
use crate::options::Fsync;
use crate::shared::Shared;
use folder::Folder;

/// Chunks handed to the thread at a time: one is being written, one is next. Later events stay in
/// the queue, so that a slow disk makes larger chunks and not more of them.
const MAX_PENDING_WRITES: usize = 2;

/// The worker's handle of the spool thread.
pub(crate) struct Spool {
    shared: Arc<SpoolShared>,
    thread: Option<JoinHandle<()>>,
    /// First event of each chunk that the thread has, in order.
    pending: VecDeque<u64>,
}

/// A spool that was recovered and whose thread is not started.
pub(crate) struct Opened {
    folder: Folder,
    /// Chunks of an earlier process, oldest first.
    pub(crate) recovered: Vec<Chunk>,
    errors: Vec<SpoolError>,
}

/// JobQueue shared by the worker and the thread.
struct SpoolShared {
    state: Mutex<JobQueue>,
    work: Condvar,
}

#[derive(Default)]
struct JobQueue {
    jobs: VecDeque<Job>,
    /// The thread is in the middle of a job.
    working: bool,
    stop: bool,
    done: Vec<Chunk>,
    errors: Vec<SpoolError>,
}

enum Job {
    Write(Box<Chunk>),
    Remove(u64),
}

impl SpoolShared {
    /// Nothing inside the lock runs foreign code; a panic cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, JobQueue> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Creates the folder if needed, locks it, and reads its chunks.
    pub(crate) fn open(path: &Path, fsync: Fsync) -> Result<Self, BuildError> {
        let mut folder = Folder::lock(path, fsync)?;
        let mut errors = Vec::new();
        let recovered = folder.read(&mut errors)?;
        Ok(Self {
            folder,
            recovered,
            errors,
        })
    }

    /// Starts the thread.
    pub(crate) fn start(self, shared: Arc<Shared>) -> Result<Spool, BuildError> {
        let common = Arc::new(SpoolShared {
            state: Mutex::new(JobQueue {
                errors: self.errors,
                ..JobQueue::default()
            }),
            work: Condvar::new(),
        });
        let (for_thread, folder) = (Arc::clone(&common), self.folder);
        let thread = std::thread::Builder::new()
            .name("fluent-logger-spool".to_owned())
            .spawn(move || run(&for_thread, folder, &shared))
            .map_err(BuildError::Thread)?;
        Ok(Spool {
            shared: common,
            thread: Some(thread),
            pending: VecDeque::new(),
        })
    }
}

impl Spool {
    /// Whether another chunk should be handed over.
    pub(crate) fn wants_more(&self) -> bool {
        self.pending.len() < MAX_PENDING_WRITES
    }

    /// No chunk is handed over and not back.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Number of the oldest event that is handed over and not back.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.pending.front().copied()
    }

    /// Hands a chunk over to be written.
    pub(crate) fn write(&mut self, chunk: Chunk) {
        self.pending.push_back(chunk.first);
        self.add(Job::Write(Box::new(chunk)));
    }

    /// The chunk in this file was acknowledged.
    pub(crate) fn remove(&self, file: u64) {
        self.add(Job::Remove(file));
    }

    fn add(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }

    /// Chunks that came back, in the order in which they were handed over, and what went wrong. A
    /// chunk that could not be written comes back without a file.
    pub(crate) fn done(&mut self) -> (Vec<Chunk>, Vec<SpoolError>) {
        let mut state = self.shared.lock();
        let done = std::mem::take(&mut state.done);
        let errors = std::mem::take(&mut state.errors);
        drop(state);
        self.pending.drain(..done.len().min(self.pending.len()));
        (done, errors)
    }

    /// All disk work is done.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.shared.lock();
        state.jobs.is_empty() && !state.working
    }

    /// Ends the spool and returns the chunks that it has not begun to write. If all disk work is
    /// done, the folder is unlocked when this returns; if the disk hangs, when the disk answers.
    pub(crate) fn shut_down(mut self) -> Vec<Chunk> {
        let mut state = self.shared.lock();
        let mut back = std::mem::take(&mut state.done);
        let mut left = VecDeque::new();
        for job in std::mem::take(&mut state.jobs) {
            match job {
                Job::Write(chunk) => back.push(*chunk),
                remove @ Job::Remove(_) => left.push_back(remove),
            }
        }
        let settled = !state.working && left.is_empty();
        state.jobs = left;
        drop(state);
        self.stop();
        if let Some(thread) = self.thread.take().filter(|_| settled) {
            // The thread has no work left and ends; a panic in it would change nothing.
            let _ = thread.join();
        }
        back
    }

    fn stop(&self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_one();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: runs the jobs in order; ends when it is stopped and no job is left.
fn run(common: &SpoolShared, folder: Folder, shared: &Shared) {
    let counters = &shared.counters;
    let mut folder = folder;
    loop {
        let mut state = common.lock();
        state.working = false;
        let job = loop {
            if let Some(job) = state.jobs.pop_front() {
                break job;
            }
            if state.stop {
                return;
            }
            state = common.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.working = true;
        drop(state);
        let (chunk, result) = match job {
            Job::Write(mut chunk) => {
                let result = folder.write(&mut chunk);
                if result.is_ok() {
                    counters.spooled_chunks.fetch_add(1, Relaxed);
                } else {
                    counters.spool_failures.fetch_add(1, Relaxed);
                }
                (Some(*chunk), result)
            }
            Job::Remove(number) => {
                let result = folder.remove(number);
                if result.is_ok() {
                    counters.spooled_chunks.fetch_sub(1, Relaxed);
                }
                (None, result)
            }
        };
        let mut state = common.lock();
        state.done.extend(chunk);
        state.errors.extend(result.err());
        state.working = false;
        drop(state);
        shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests;
