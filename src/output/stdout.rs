//! Standard-output sink: one JSON document per line.
//!
//! A document of another destination than the default begins with `"_index"`, the name of its index.
//! A document is confirmed once write and flush have succeeded. After an error, such as a closed
//! pipe, nothing more is confirmed: the journal keeps the rest.

use std::io::{self, Write};

use tokio::sync::mpsc;

use super::{Batch, DestinationId, Destinations, OutputId, SealedDocument, Watchdog};
use windrow_trace::write_escaped;

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
    let mut text = Vec::new();
    while let Some(batch) = batches.blocking_recv() {
        text.clear();
        for document in batch.documents_for(id) {
            put(&mut text, &document, destinations);
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

fn put(text: &mut Vec<u8>, document: &SealedDocument, destinations: &Destinations) {
    let json = document.json();
    match (document.destination(), json.strip_prefix(b"{")) {
        (DestinationId::DEFAULT, _) | (_, None) => text.extend_from_slice(json),
        (destination, Some(fields)) => {
            let index = destinations.indices(destination).of(document.first_ns());
            text.extend_from_slice(b"{\"_index\":\"");
            write_escaped(text, index.index.as_bytes());
            text.extend_from_slice(if fields == b"}" { b"\"" } else { b"\"," });
            text.extend_from_slice(fields);
        }
    }
    text.push(b'\n');
}
