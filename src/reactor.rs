//! The threads that serve sockets: how many there are, and long work beside them.
//!
//! Gathering and the journal have threads of their own, so half of the cores are enough here: one thread serves millions of
//! records a second, and each more has to be woken, and looks for work that others have. What takes long would hold up
//! everybody else on its thread; see [`compute`].

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};

/// Overrides how many threads there are; tokio's own name for it.
const THREADS: &str = "TOKIO_WORKER_THREADS";

/// A runtime for the server.
///
/// # Errors
/// The system has no thread or no poll handle to give.
pub(crate) fn runtime() -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if std::env::var_os(THREADS).is_none() {
        let cores = available_parallelism().map_or(1, usize::from);
        builder.worker_threads((cores / 2).max(1));
    }
    builder.enable_all().build()
}

/// Does what takes milliseconds of computing while another thread serves the sockets of this one.
pub(crate) fn compute<T>(work: impl FnOnce() -> T) -> T {
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
    fn long_work_holds_nobody_up() {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let (said, heard) = mpsc::sync_channel(1);
        let long = runtime.spawn(async move { compute(|| heard.recv()) });
        // There is one thread, and it waits for this.
        runtime.spawn(async move { said.send("served") });
        assert_eq!(runtime.block_on(long).unwrap(), Ok("served"));
    }

    #[tokio::test]
    async fn it_is_done_in_place_where_there_is_one_thread_only() {
        assert_eq!(compute(|| 7), 7);
    }
}
