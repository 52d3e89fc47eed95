//! Tokio runtime of the server: number of worker threads, CPU-bound work on them, and priorities.
//!
//! Gathering and the journal have threads of their own, so half of the cores are enough for
//! sockets: one worker serves millions of records per second, and each further one costs wake-ups
//! and work stealing.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::oneshot;

/// Environment variable that overrides the number of worker threads; Tokio reads it too.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// Builds the runtime of the server.
///
/// # Errors
///
/// The system gives no thread or no poll handle.
pub(crate) fn build() -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os(WORKER_THREADS).is_none() {
        let cores = available_parallelism().map_or(1, usize::from);
        builder.worker_threads((cores / 2).max(1));
    }
    builder.enable_all().build()
}

/// Runs CPU-bound work of a millisecond or more; another thread serves this worker's sockets
/// meanwhile.
///
/// Unlike Tokio's function of that name it may be called from a single-threaded runtime, where it
/// runs in place.
pub(crate) fn block_in_place<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Gives the calling thread a lower priority, 1 to 19, on Linux; elsewhere it runs as any other.
pub(crate) fn lower_priority(niceness: i32) {
    if cfg!(target_os = "linux")
        && let Err(error) = rustix::process::setpriority_process(None, niceness)
    {
        tracing::debug!(%error, "a background thread runs at normal priority");
    }
}

/// Runs short work as often as there are worker threads. Idle ones take it from each other, so that
/// most of them run it once.
pub(crate) fn on_workers(work: fn()) {
    let handle = Handle::current();
    for _ in 0..handle.metrics().num_workers() {
        handle.spawn(async move { work() });
    }
}

/// Runs CPU-bound work on threads of its own, whose number is fixed. (Tokio's pool for blocking work
/// grows whenever a thread has not quite ended its last work.)
#[derive(Debug)]
pub struct CpuPool {
    name: &'static str,
    threads: usize,
    /// 0 is the priority of all other threads.
    niceness: i32,
    /// The queue of work; its threads start with the first piece.
    jobs: OnceLock<mpsc::Sender<Job>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Default for CpuPool {
    /// As many threads as half of the cores.
    fn default() -> Self {
        Self {
            name: "cpu",
            threads: available_parallelism().map_or(1, usize::from).div_ceil(2),
            niceness: 0,
            jobs: OnceLock::new(),
        }
    }
}

impl CpuPool {
    /// A pool of this many threads, whose work gives way to that of others (`niceness` 1 to 19).
    pub(crate) fn of_low_priority(name: &'static str, threads: usize, niceness: i32) -> Self {
        Self {
            name,
            threads,
            niceness,
            jobs: OnceLock::new(),
        }
    }

    /// Runs `work` when it is its turn, in FIFO order. A caller that is dropped meanwhile leaves it
    /// running.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, result) = oneshot::channel();
        let job = move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            // The caller may have gone.
            _ = sender.send(done);
        };
        let jobs = self.jobs.get_or_init(|| self.start_threads());
        // Its threads end when the pool is dropped, and not before.
        _ = jobs.send(Box::new(job));
        match result.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => std::future::pending().await,
        }
    }

    /// Starts threads that work until the sender is dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "each caller waits for its job, so there are at most as many as connections"
    )]
    fn start_threads(&self) -> mpsc::Sender<Job> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        let niceness = self.niceness;
        for _ in 0..self.threads {
            let receiver = Arc::clone(&receiver);
            let work = move || {
                if niceness > 0 {
                    lower_priority(niceness);
                }
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    match next {
                        Ok(job) => job(),
                        Err(_) => break,
                    }
                }
            };
            let started = std::thread::Builder::new().name(self.name.into()).spawn(work);
            if let Err(error) = started {
                tracing::error!(%error, "a thread for long work cannot be started");
            }
        }
        sender
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[tokio::test]
    async fn a_cpu_pool_has_a_fixed_number_of_threads_and_survives_panics() {
        let pool = Arc::new(CpuPool::default());
        let mut tasks = Vec::new();
        for number in 0..200 {
            let pool = Arc::clone(&pool);
            tasks.push(tokio::spawn(async move {
                pool.run(move || {
                    assert_ne!(number, 7, "a defect");
                    std::thread::current().id()
                })
                .await
            }));
        }
        let (mut threads, mut failed) = (HashSet::new(), 0);
        for task in tasks {
            match task.await {
                Ok(thread) => drop(threads.insert(thread)),
                Err(_) => failed += 1,
            }
        }
        assert!((1..=pool.threads).contains(&threads.len()), "{}", threads.len());
        assert_eq!(failed, 1);
    }

    #[test]
    fn other_tasks_run_during_long_work() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (sender, receiver) = mpsc::sync_channel(1);
        let long = runtime.spawn(async move { block_in_place(|| receiver.recv()) });
        // The only worker thread waits for this task.
        runtime.spawn(async move { sender.send("served") });
        assert_eq!(runtime.block_on(long).unwrap(), Ok("served"));
    }

    #[tokio::test]
    async fn it_runs_in_place_on_a_single_threaded_runtime() {
        assert_eq!(block_in_place(|| 7), 7);
    }
}
