//! Standard-output sink: one JSON document per line.
//!
//! A document is confirmed once write and flush have succeeded. After an error, such as a closed
//! pipe, nothing more is confirmed: the journal keeps the rest.

use std::io::{self, Write};

use tokio::sync::mpsc;

use super::{Batch, OutputId, Watchdog};

/// Writes batches until the channel closes. Runs on its own thread.
///
/// # Errors
///
/// The error of `to`, for example a closed pipe. What was not written is not confirmed.
pub fn run(
    mut to: impl Write,
    id: OutputId,
    mut batches: mpsc::Receiver<Batch>,
    watchdog: &Watchdog,
    mut written: impl FnMut(&Batch),
) -> io::Result<()> {
    let mut text = Vec::new();
    while let Some(batch) = batches.blocking_recv() {
        text.clear();
        for document in batch.documents() {
            text.extend_from_slice(document.json());
            text.push(b'\n');
        }
        watchdog.begin();
        to.write_all(&text)?;
        to.flush()?;
        watchdog.succeed();
        batch.confirm(id);
        written(&batch);
    }
    Ok(())
}
