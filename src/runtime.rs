//! Tokio runtime of the server: number of worker threads, and CPU-bound work on them.
//!
//! Gathering and the journal have threads of their own, so half of the cores are enough for
//! sockets: one worker serves millions of records per second, and each further one costs wake-ups
//! and work stealing.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

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
