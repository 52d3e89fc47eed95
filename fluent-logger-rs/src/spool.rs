//! The disk spool: chunks lie in files before they are sent, and until they are acknowledged.
//!
//! Owns the thread that does all of the disk work, so that neither callers nor the runtime wait for a disk, and the order
//! of that work. A chunk is handed over, written, and handed back; only then may it be sent. What a file looks like is
//! [`file`]'s, where the files are and who may use them is [`folder`]'s.
//!
//! The spool is no second buffer: what lies in it is in memory too and counts there, so an outage fills the buffer as it
//! would without a spool. It is there so that a killed process loses nothing that was spooled.

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

/// Chunks handed over at the same time: one is being written and one is ready to be. What comes after them goes on
/// gathering in the queue, so that a slow disk makes larger chunks and not more of them.
const AHEAD: usize = 2;

/// The worker's end.
pub(crate) struct Spool {
    common: Arc<Common>,
    thread: Option<JoinHandle<()>>,
    /// First event of each chunk that is handed over, in order.
    away: VecDeque<u64>,
}

/// A spool that was read and does not work yet.
pub(crate) struct Opened {
    folder: Folder,
    /// What an earlier process left, oldest first.
    pub(crate) recovered: Vec<Chunk>,
    errors: Vec<SpoolError>,
}

/// What the worker and the thread share.
struct Common {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    todo: VecDeque<Job>,
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

impl Common {
    /// Nothing inside the lock runs foreign code; a panic cannot leave it half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Locks the folder, which is created if need be, and reads what lies in it.
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
        let common = Arc::new(Common {
            state: Mutex::new(State {
                errors: self.errors,
                ..State::default()
            }),
            work: Condvar::new(),
        });
        let (theirs, folder) = (Arc::clone(&common), self.folder);
        let thread = std::thread::Builder::new()
            .name("fluent-logger-spool".to_owned())
            .spawn(move || run(&theirs, folder, &shared))
            .map_err(BuildError::Thread)?;
        Ok(Spool {
            common,
            thread: Some(thread),
            away: VecDeque::new(),
        })
    }
}

impl Spool {
    /// Whether another chunk should be handed over.
    pub(crate) fn wants_more(&self) -> bool {
        self.away.len() < AHEAD
    }

    /// No chunk is handed over and not back.
    pub(crate) fn is_idle(&self) -> bool {
        self.away.is_empty()
    }

    /// Number of the oldest event that is handed over and not back.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.away.front().copied()
    }

    /// Hands a chunk over to be written.
    pub(crate) fn write(&mut self, chunk: Chunk) {
        self.away.push_back(chunk.first);
        self.add(Job::Write(Box::new(chunk)));
    }

    /// The chunk in this file was acknowledged.
    pub(crate) fn remove(&self, file: u64) {
        self.add(Job::Remove(file));
    }

    fn add(&self, job: Job) {
        self.common.lock().todo.push_back(job);
        self.common.work.notify_one();
    }

    /// Chunks that came back, in the order in which they were handed over, and what went wrong. A chunk that could not
    /// be written comes back without a file.
    pub(crate) fn done(&mut self) -> (Vec<Chunk>, Vec<SpoolError>) {
        let mut state = self.common.lock();
        let done = std::mem::take(&mut state.done);
        let errors = std::mem::take(&mut state.errors);
        drop(state);
        self.away.drain(..done.len().min(self.away.len()));
        (done, errors)
    }

    /// All disk work is done.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.common.lock();
        state.todo.is_empty() && !state.working
    }

    /// Ends the spool and gives back the chunks that it has not begun to write. When the disk work is done, the
    /// folder is free for the next when this returns; with a disk that hangs, when that disk lets go.
    pub(crate) fn end(mut self) -> Vec<Chunk> {
        let mut state = self.common.lock();
        let mut back = std::mem::take(&mut state.done);
        let mut left = VecDeque::new();
        for job in std::mem::take(&mut state.todo) {
            match job {
                Job::Write(chunk) => back.push(*chunk),
                remove @ Job::Remove(_) => left.push_back(remove),
            }
        }
        let settled = !state.working && left.is_empty();
        state.todo = left;
        drop(state);
        self.stop();
        if let Some(thread) = self.thread.take().filter(|_| settled) {
            // It has nothing to do but to end. It does not panic, and if it did, its work is done.
            let _ = thread.join();
        }
        back
    }

    fn stop(&self) {
        self.common.lock().stop = true;
        self.common.work.notify_one();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The thread: one job after the other, in order; ends when it is told to and nothing is left.
fn run(common: &Common, folder: Folder, shared: &Shared) {
    let counters = &shared.counters;
    let mut folder = folder;
    loop {
        let mut state = common.lock();
        state.working = false;
        let job = loop {
            if let Some(job) = state.todo.pop_front() {
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
