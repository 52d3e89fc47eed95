//! Commit of a request: admission, the journal, and the answer from its receipt.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use windrow_journal::{AppendError, Blocked, Journal};

use super::answer::{Answer, Problem};
use crate::cluster::Durable;
use crate::input::forward::{Context, FORWARD_MESSAGES, Reservation};
use crate::runtime::block_in_place;

/// Time after which a waiting request asks whether the journal is blocked.
const BLOCKED_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A body of this size or less may fit into the journal at its limit.
const SHORT_BODY_BYTES: u64 = 32 << 10;
/// From this size on, the checksum of a message takes a millisecond.
const BLOCKING_APPEND_BYTES: usize = 16 << 20;

/// A message that is to be made durable; no records: there is nothing to do.
pub(in crate::input) struct Committed {
    /// The client's number for the journal.
    pub(in crate::input) source: u64,
    pub(in crate::input) message: Bytes,
    pub(in crate::input) records: u64,
}

/// Refuses a request before its body is read, while nothing of that length can be made durable.
pub(super) fn refuse_before_body(journal: &Journal, length: Option<u64>) -> Result<(), Problem> {
    let is_short = length.is_some_and(|length| length <= SHORT_BODY_BYTES);
    match journal.usage().blocked {
        // Short ones have a reserve.
        Some(Blocked::Limit) if is_short => Ok(()),
        _ => refuse_while_blocked(journal),
    }
}

/// Refuses a request while nothing can be made durable.
pub(super) fn refuse_while_blocked(journal: &Journal) -> Result<(), Problem> {
    match journal.usage().blocked {
        Some(reason) => Err(Problem::Unavailable(format!("nothing is accepted: {reason}"))),
        None => Ok(()),
    }
}

/// Makes a message durable. `memory` counts it until the journal has it.
///
/// A message that waits while the journal is blocked is withdrawn, so that the client's retry is no
/// second message.
pub(in crate::input) async fn commit(
    context: &Context,
    commit: Committed,
    memory: Reservation<'_>,
) -> Result<Answer, Problem> {
    let Committed {
        source,
        message,
        records,
    } = commit;
    if records == 0 {
        return Ok(Answer::empty_request());
    }
    let permit = context.admission.acquire(message.len()).await;
    if let Some(cluster) = &context.cluster {
        // Not withdrawn once it has begun: an owner may have taken its share.
        refuse_while_blocked(&context.journal)?;
        let durable = cluster
            .commit(&context.journal, source, message, || drop(permit))
            .await;
        drop(memory);
        return answer(context, durable, records);
    }
    let length = message.len();
    let append = || context.journal.append_from(source, FORWARD_MESSAGES, message);
    let mut append = match length {
        0..BLOCKING_APPEND_BYTES => append(),
        _ => block_in_place(append),
    };
    let appended = loop {
        match timeout(BLOCKED_CHECK_INTERVAL, &mut append).await {
            Ok(appended) => break appended,
            Err(_) => refuse_while_blocked(&context.journal)?,
        }
    };
    drop((permit, memory));
    answer(context, appended.map(Durable::here), records)
}

fn answer(context: &Context, durable: Result<Durable, AppendError>, records: u64) -> Result<Answer, Problem> {
    match durable {
        Ok(durable) => {
            context.metrics.input_chunks_acked.inc();
            Ok(Answer::accepted(durable, records))
        }
        Err(AppendError::TooLarge { max, .. }) => Err(Problem::TooLarge {
            what: " as MessagePack",
            limit: usize::try_from(max).unwrap_or(usize::MAX),
        }),
        Err(error) => Err(Problem::Unavailable(error.to_string())),
    }
}
