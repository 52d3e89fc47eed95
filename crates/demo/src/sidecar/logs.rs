//! `demo sidecar-logs`: follows the application's JSON log file and forwards each line, with
//! `service_name` and `environment` added, to a Forward server.
//!
//! A chunk is recorded on disk before it is sent, and the position advances only after its
//! acknowledgement. A sidecar that is killed at any moment sends the same chunk again, the same
//! bytes under the same id: nothing is missing, and the server recognises the duplicate.
//! [`Delivery`] sends the chunks.

pub mod forward;
pub mod record;
pub mod state;
pub mod status;
pub mod tail;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use self::{
    record::{Event, events},
    state::{Pending, State, StateFile},
    status::Status,
    tail::{Batch, Notice, Tail},
};
use super::Identity;
use crate::{Error, id};

/// How the sidecar is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file to follow. It may be missing at first.
    pub log_path: PathBuf,
    /// Where the position is kept; its own file, not in a folder that is lost with the container.
    pub state_path: PathBuf,
    /// The tag of the chunks.
    pub tag: String,
    /// What is added to each record.
    pub identity: Identity,
    /// Interval at which a file that has not grown is polled.
    pub poll: Duration,
    /// How long a rotated file is watched after its last growth.
    pub rotate_wait: Duration,
    /// The most bytes of lines in one chunk; a longer line is cut.
    pub chunk_bytes: usize,
    /// How long delivery continues after the stop signal.
    pub stop_grace: Duration,
    /// The wait before a delivery that failed is tried again; it doubles, up to [`MAX_BACKOFF`].
    pub backoff: Duration,
}

/// The longest wait between two attempts of a delivery.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Default size of a chunk: large enough to be cheap, small enough to be prompt.
pub const CHUNK_BYTES: usize = 512 << 10;

/// The most lines in one chunk: enrichment makes many short lines much larger than they are in the
/// file.
pub const CHUNK_LINES: usize = 16 << 10;

/// Default wait after the first failure.
pub const BACKOFF: Duration = Duration::from_millis(250);

/// Lines in flight. After a crash the same chunk is made again: the same id, tag and events.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Unique, and the same for each attempt.
    pub id: String,
    /// The tag.
    pub tag: String,
    /// The events, at least one.
    pub events: Vec<Event>,
}

/// Delivery of chunks to the server.
pub trait Delivery: Send {
    /// Sends the chunk and waits for its acknowledgement.
    ///
    /// # Errors
    /// The reason, as text; the same chunk is sent again.
    fn deliver(&mut self, chunk: &Chunk) -> impl Future<Output = Result<(), String>> + Send;
}

/// The sidecar before it runs: state read, files opened.
#[derive(Debug)]
pub struct LogSidecar<D> {
    worker: Worker,
    delivery: D,
    status: Arc<Status>,
    options: Options,
}

impl<D: Delivery> LogSidecar<D> {
    /// Reads the state of the last run and opens the files. Events are counted in `status`, for
    /// health and metrics.
    ///
    /// # Errors
    /// When the state or a log file cannot be read.
    pub fn open(options: Options, status: Arc<Status>, delivery: D) -> Result<Self, Error> {
        let worker = Worker::open(&options)?;
        Ok(Self {
            worker,
            delivery,
            status,
            options,
        })
    }

    /// Follows and forwards until `stop`, then delivers the remaining lines, for at most the grace
    /// time.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            mut worker,
            mut delivery,
            status,
            options,
        } = self;
        let mut stopping = None;
        loop {
            // Read before polling the file: lines written before the signal are then found.
            let stopped = stop.is_cancelled();
            let prepared;
            (worker, prepared) = blocking(worker, Worker::prepare).await;
            status.behind(worker.tail.behind());
            for notice in worker.tail.notices() {
                report(&notice);
            }
            match prepared {
                Ok(Some(chunk)) => {
                    let deadline = || stopping.map(|since: Instant| since + options.stop_grace);
                    if !chunk.events.is_empty()
                        && !send(&chunk, &mut delivery, &status, &options, &stop, deadline()).await
                    {
                        break;
                    }
                    let confirmed;
                    (worker, confirmed) = blocking(worker, Worker::confirm).await;
                    status.delivered(chunk.events.len());
                    if let Err(error) = confirmed {
                        status.failed(&format!("the state file cannot be written: {error}"));
                    }
                    if stop.is_cancelled() {
                        let since = *stopping.get_or_insert_with(Instant::now);
                        if since.elapsed() >= options.stop_grace {
                            break;
                        }
                    }
                }
                Ok(None) if stopped => break,
                Ok(None) => pause(options.poll, &stop).await,
                Err(error) => {
                    status.failed(&format!("the log or the state file cannot be used: {error}"));
                    if stop.is_cancelled() {
                        break;
                    }
                    pause(options.backoff, &stop).await;
                }
            }
        }
    }
}

/// Sends until the chunk is acknowledged; false when the time after a stop signal is over.
async fn send<D: Delivery>(
    chunk: &Chunk,
    delivery: &mut D,
    status: &Status,
    options: &Options,
    stop: &CancellationToken,
    deadline: Option<Instant>,
) -> bool {
    let expired = async {
        stop.cancelled().await;
        let deadline = deadline.unwrap_or_else(|| Instant::now() + options.stop_grace);
        tokio::time::sleep_until(deadline.into()).await;
    };
    let delivered = async {
        let mut wait = options.backoff;
        while let Err(error) = delivery.deliver(chunk).await {
            status.failed(&error);
            tokio::time::sleep(wait.mul_f64(0.5 + id::fraction() / 2.0)).await;
            wait = (wait * 2).min(MAX_BACKOFF);
        }
    };
    tokio::select! {
        () = delivered => true,
        () = expired => false,
    }
}

async fn pause(time: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(time) => {}
        () = stop.cancelled() => {}
    }
}

fn report(notice: &Notice) {
    match notice {
        Notice::Truncated(path) => {
            tracing::warn!(
                "{} was truncated or rewritten: reading from its beginning",
                path.display()
            );
        }
        Notice::Gone(position) => tracing::warn!(
            "the file with inode {} of the last run is gone: what was behind byte {} of it was not forwarded",
            position.file.inode,
            position.delivered
        ),
    }
}

/// Runs file work, which blocks, on a thread that serves no sockets.
async fn blocking<T: Send + 'static>(
    mut worker: Worker,
    work: impl FnOnce(&mut Worker) -> T + Send + 'static,
) -> (Worker, T) {
    let joined = tokio::task::spawn_blocking(move || {
        let result = work(&mut worker);
        (worker, result)
    });
    match joined.await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Files of the sidecar: the next chunk and the position.
#[derive(Debug)]
struct Worker {
    tail: Tail,
    state_file: StateFile,
    tag: String,
    identity: Identity,
    /// The chunk of the last run that has not been sent in this one.
    left_over: Option<Pending>,
    current: Option<(Batch, Pending)>,
}

impl Worker {
    fn open(options: &Options) -> Result<Self, Error> {
        let state_file = StateFile::new(&options.state_path)?;
        let state = state_file.load()?;
        let path = &options.log_path;
        let tail = Tail::resume(
            path,
            &state.files,
            &state.finished,
            options.rotate_wait,
            options.chunk_bytes.max(1),
        )
        .map_err(Error::io(format!(
            "cannot follow the log file {}",
            path.display()
        )))?;
        Ok(Self {
            tail,
            state_file,
            tag: options.tag.clone(),
            identity: options.identity.clone(),
            left_over: state.pending,
            current: None,
        })
    }

    /// The next chunk, recorded on disk; none when all lines are delivered.
    fn prepare(&mut self) -> io::Result<Option<Chunk>> {
        if self.current.is_none() {
            self.current = self.choose()?;
        }
        let Some((batch, pending)) = &self.current else {
            return Ok(None);
        };
        self.save(Some(pending.clone()))?;
        let events = events(&batch.bytes, pending.read_at_ns, &self.identity);
        Ok(Some(Chunk {
            id: pending.chunk.clone(),
            tag: self.tag.clone(),
            events,
        }))
    }

    fn choose(&mut self) -> io::Result<Option<(Batch, Pending)>> {
        if let Some(pending) = self.left_over.take() {
            match self.tail.again(&pending) {
                Ok(Some(batch)) => return Ok(Some((batch, pending))),
                Ok(None) => {
                    tracing::warn!(
                        "the chunk under way at the last stop cannot be made again: its bytes are gone"
                    );
                }
                Err(error) => {
                    self.left_over = Some(pending);
                    return Err(error);
                }
            }
        }
        let Some(batch) = self.tail.next_batch()? else {
            return Ok(None);
        };
        let now = jiff::Timestamp::now().as_nanosecond();
        let pending = Pending {
            file: batch.file,
            start: batch.start,
            end: batch.end(),
            hash: batch.hash(),
            chunk: id::trace_id(),
            read_at_ns: i64::try_from(now).unwrap_or(i64::MAX),
        };
        Ok(Some((batch, pending)))
    }

    /// Advances the position behind a chunk that was acknowledged.
    fn confirm(&mut self) -> io::Result<()> {
        if let Some((batch, _)) = self.current.take() {
            self.tail.delivered(&batch)?;
        }
        self.save(None)
    }

    fn save(&self, pending: Option<Pending>) -> io::Result<()> {
        let state = State {
            files: self.tail.positions(),
            finished: self.tail.finished(),
            pending,
        };
        self.state_file.save(&state)
    }
}

#[cfg(test)]
mod tests;
