//! Queueing that waits for room without blocking a thread.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::SystemTime;

use serde::Serialize;

use super::{Logger, with_tag};
use crate::error::Rejected;
use crate::queue::Waiter;
use crate::record;
use crate::shared::Shared;

impl Logger {
    /// The async form of [`log`](Self::log) with [`OnFull::Wait`](crate::OnFull::Wait): queues an
    /// event with the present time, and if the buffer is full waits for room without blocking a
    /// thread and without a limit, whatever the policy is. Put a timeout around it if there is a
    /// limit. Needs no tokio.
    ///
    /// The event is encoded, and queued if there is room, before this returns; awaiting the future
    /// waits for room. A future that is dropped while it waits takes its event back.
    ///
    /// ```no_run
    /// # async fn example(logger: fluent_logger::Logger) -> Result<(), fluent_logger::Rejected> {
    /// logger.log_async("app", &std::collections::HashMap::from([("n", 1)])).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The future gives [`Rejected`] as [`log`](Self::log) does, except that a full buffer is
    /// waited for.
    pub fn log_async<T: Serialize + ?Sized>(&self, tag: &str, record: &T) -> Queueing {
        let shared = self.shared();
        let options = &shared.options;
        let mut delayed = None;
        let result = with_tag(&options.tag_prefix, tag, |tag| {
            record::with_entry(SystemTime::now(), &options.entry, record, |entry| {
                match shared.try_push(tag, entry, None) {
                    Err((Rejected::Full { .. }, _)) => {
                        delayed = Some((tag.to_owned(), entry.to_vec()));
                        Ok(())
                    }
                    result => result.map_err(|(rejected, _)| rejected),
                }
            })
        });
        Queueing(match (self.count(result), delayed) {
            (result, None) => QueueState::Done(Some(result)),
            (Err(rejected), _) => QueueState::Done(Some(Err(rejected))),
            (Ok(()), Some((tag, entry))) => {
                let shared = Arc::clone(shared);
                QueueState::Waiting(Box::pin(async move {
                    push_when_room(&shared, &tag, &entry, None).await
                }))
            }
        })
    }
}

/// Queues an encoded event as soon as there is room.
pub(super) async fn push_when_room(
    shared: &Shared,
    tag: &str,
    entry: &[u8],
    mut waiter: Option<Waiter>,
) -> Result<(), Rejected> {
    loop {
        let mut room = pin!(shared.room.notified());
        // Registered before the attempt, so that room made in between is not missed.
        room.as_mut().enable();
        match shared.try_push(tag, entry, waiter.take()) {
            Ok(()) => return Ok(()),
            Err((Rejected::Full { .. }, back)) => waiter = back,
            Err((rejected, _)) => {
                shared.counters.rejected.fetch_add(1, Relaxed);
                return Err(rejected);
            }
        }
        room.await;
    }
}

/// The future of [`Logger::log_async`].
#[must_use = "await it to wait for room; use `log` if the event may be refused"]
pub struct Queueing(QueueState);

enum QueueState {
    Done(Option<Result<(), Rejected>>),
    Waiting(Pin<Box<dyn Future<Output = Result<(), Rejected>> + Send>>),
}

impl Future for Queueing {
    type Output = Result<(), Rejected>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            QueueState::Done(result) => Poll::Ready(result.take().unwrap_or(Err(Rejected::Closed))),
            QueueState::Waiting(future) => future.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for Queueing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queueing").finish_non_exhaustive()
    }
}
