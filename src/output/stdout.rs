//! Standard-output sink: one JSON document per line.
//!
//! A document of another destination than the default begins with `"_index"`, the name of its index.
//! A document is confirmed once write and flush have succeeded. After an error, such as a closed
//! pipe, nothing more is confirmed: the journal keeps the rest.

use std::io::{self, BufWriter, Write};

use tokio::sync::mpsc;

use super::{Batch, DestinationId, Destinations, OutputId, SealedDocument, Watchdog};
use windrow_trace::write_escaped;

/// Documents are written in pieces of this size.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes batches until the channel closes. Runs on its own thread.
///
/// # Errors
///
/// The error of `to`, for example a closed pipe. What was not written is not confirmed.
pub fn run(
    mut to: impl Write,
    id: OutputId,
    mut batches: mpsc::Receiver<Batch>,
    destinations: &Destinations,
    watchdog: &Watchdog,
    mut written: impl FnMut(&Batch),
) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER_BYTES, &mut to);
    while let Some(batch) = batches.blocking_recv() {
        watchdog.begin();
        for document in batch.documents_for(id) {
            put(&mut to, &document, destinations)?;
        }
        to.flush()?;
        watchdog.succeed();
        batch.confirm(id);
        written(&batch);
    }
    Ok(())
}

fn put(to: &mut impl Write, document: &SealedDocument, destinations: &Destinations) -> io::Result<()> {
    let json = document.json();
    match (document.destination(), json.strip_prefix(b"{")) {
        (DestinationId::DEFAULT, _) | (_, None) => to.write_all(json)?,
        (destination, Some(fields)) => {
            let index = destinations.indices(destination).of(document.first_ns());
            let mut head = b"{\"_index\":\"".to_vec();
            write_escaped(&mut head, index.index.as_bytes());
            head.extend_from_slice(if fields == b"}" { b"\"" } else { b"\"," });
            to.write_all(&head)?;
            to.write_all(fields)?;
        }
    }
    to.write_all(b"\n")
}
