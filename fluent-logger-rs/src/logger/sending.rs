//! Future of a delivery.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::{Rejected, SendError};

/// The future of [`Logger::send`](crate::Logger::send).
#[must_use = "await it to learn whether the event was delivered; use `log` if that does not matter"]
pub struct Sending(pub(super) SendState);

pub(super) enum SendState {
    Refused(Option<Rejected>),
    Queued(oneshot::Receiver<Result<(), SendError>>),
    Waiting(Pin<Box<dyn Future<Output = Result<(), SendError>> + Send>>),
}

impl Sending {
    /// Why the event was not queued, known without awaiting.
    ///
    /// ```no_run
    /// # fn example(logger: fluent_logger::Logger) {
    /// let sending = logger.send("app", &std::collections::HashMap::from([("n", 1)]));
    /// if let Some(rejected) = sending.rejected() {
    ///     eprintln!("not queued: {rejected}");
    /// }
    /// # }
    /// ```
    pub fn rejected(&self) -> Option<&Rejected> {
        match &self.0 {
            SendState::Refused(rejected) => rejected.as_ref(),
            _ => None,
        }
    }
}

impl Future for Sending {
    type Output = Result<(), SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            SendState::Refused(rejected) => {
                let rejected = rejected.take().unwrap_or(Rejected::Closed);
                Poll::Ready(Err(SendError::Rejected(rejected)))
            }
            SendState::Queued(receiver) => Pin::new(receiver)
                .poll(context)
                .map(|result| result.unwrap_or(Err(SendError::Closed))),
            SendState::Waiting(future) => future.as_mut().poll(context),
        }
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("rejected", &self.rejected())
            .finish_non_exhaustive()
    }
}
