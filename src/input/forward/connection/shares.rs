//! Shares that another instance hands over on this connection.
//!
//! They are stored as they came and never handed on. Admission control does not apply: what a peer
//! sends is bounded by the peer, and one that waits for a permit would time out.

use bytes::{Bytes, BytesMut};
use forward_protocol::ack::write_ack;
use forward_protocol::frame::Run;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use super::close_reason::CloseReason;
use super::state::AgeLimit;
use crate::cluster::{CHUNK_SHARES, Cluster, Control, Durable, write_hello_reply};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    /// Whether the client is another instance: its first message is a hello.
    pub(super) fn is_from_peer(&mut self, run: &Run) -> bool {
        self.context.cluster.is_some() && (self.is_peer || self.begins_with_hello(run))
    }

    fn begins_with_hello(&mut self, run: &Run) -> bool {
        let first = run.frames.first().and_then(|frame| frame.message(&self.buffer));
        let hello = first.and_then(|message| Control::read(&message));
        if !matches!(hello, Some(Control::Hello(_))) {
            return false;
        }
        self.is_peer = true;
        // The peer would keep what is on its way when the connection is closed.
        self.age_limit = AgeLimit::None;
        true
    }

    /// Makes the shares of a run durable, and answers the control messages among them.
    pub(super) async fn take_shares(&mut self, run: &Run) -> Result<(), CloseReason> {
        let context = self.context;
        let Some(cluster) = &context.cluster else {
            return Ok(());
        };
        let bytes = self.split(run.end);
        let memory = self.buffer.is_empty().then(|| self.memory.take());
        self.read_strategy.run_taken(bytes.len());
        let (shares, count) = without_control(run, &bytes);
        let durable = match shares.is_empty() {
            true => None,
            false => {
                let receipt = context
                    .journal
                    .append_from(self.source, CHUNK_SHARES, shares)
                    .await?;
                Some(Durable::here(receipt))
            }
        };
        drop(memory);
        self.memory.restart_pace();
        context.metrics.cluster.messages_taken.inc_by(count);
        let replies = replies(cluster, run, &bytes, durable);
        if replies.is_empty() {
            return Ok(());
        }
        self.answer(&replies).await
    }
}

/// The messages of a run that are to be stored, and their number.
fn without_control(run: &Run, bytes: &Bytes) -> (Bytes, u64) {
    let is_control = |message| Control::read(&message).is_some();
    let stored = |frame: &&forward_protocol::frame::Frame| !frame.message(bytes).is_some_and(is_control);
    let mut ranges = run.frames.iter().filter(stored).map(|frame| frame.range.clone());
    let Some(mut joined) = ranges.next() else {
        return (Bytes::new(), 0);
    };
    let mut count = 1;
    let mut copied = BytesMut::new();
    for range in ranges {
        count += 1;
        if range.start == joined.end {
            joined.end = range.end;
        } else {
            copied.extend_from_slice(bytes.get(joined).unwrap_or_default());
            joined = range;
        }
    }
    if copied.is_empty() {
        return (bytes.slice(joined), count);
    }
    copied.extend_from_slice(bytes.get(joined).unwrap_or_default());
    (copied.freeze(), count)
}

/// Answers the control messages of a run. A commit stands for the shares before it: those of this
/// run, which are `durable`, and those of the runs before, which were.
fn replies(cluster: &Cluster, run: &Run, bytes: &Bytes, durable: Option<Durable>) -> Vec<u8> {
    // Consumed: one proof acknowledges one run.
    if let Some(durable) = durable {
        drop(durable);
    }
    let mut replies = Vec::new();
    for frame in &run.frames {
        let control = frame.message(bytes).and_then(|message| Control::read(&message));
        let Some((control, chunk)) = control.zip(frame.chunk(bytes)) else {
            continue;
        };
        match control {
            Control::Hello(_) => write_hello_reply(&mut replies, chunk, cluster.instance()),
            Control::Commit(_) => write_ack(&mut replies, chunk),
        }
    }
    replies
}
