//! Commit of a run: into the journal, or divided between the journal and the owners of the traces.

use bytes::Bytes;
use windrow_journal::AppendError;

use super::super::context::{Context, FORWARD_MESSAGES};
use crate::admission::Permit;
use crate::cluster::Durable;

/// From this size on, the checksum of a run takes a millisecond.
const BLOCKING_APPEND_BYTES: usize = 16 << 20;

/// Makes the messages of a run durable. The permit ends once what stays is in the journal.
pub(super) async fn commit(
    context: &Context,
    source: u64,
    run: Bytes,
    permit: Permit<'_>,
) -> Result<Durable, AppendError> {
    if let Some(cluster) = &context.cluster {
        return cluster
            .commit(&context.journal, source, run, || drop(permit))
            .await;
    }
    let receipt = match run.len() {
        0..BLOCKING_APPEND_BYTES => context.journal.append_from(source, FORWARD_MESSAGES, run),
        _ => {
            let journal = context.journal.clone();
            let append = move || journal.append_from(source, FORWARD_MESSAGES, run);
            context.cpu_pool.run(append).await
        }
    }
    .await?;
    drop(permit);
    Ok(Durable::here(receipt))
}
