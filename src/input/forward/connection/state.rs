//! States of a connection: where it is in the stream of messages, its age, and the shutdown of the
//! server.

use std::time::Duration;

use tokio::time::Instant;

use super::super::context::STOP_TIMEOUT;
use crate::admission::Permit;

/// Time for which a message keeps its permit while none of its bytes come: enough for a fast
/// network, and short enough that a slow client does not block others.
pub(super) const PERMIT_TIMEOUT: Duration = Duration::from_millis(20);
/// Bytes that must come within each progress timeout inside a message; a byte now and then is no
/// progress.
const MIN_PROGRESS_BYTES: usize = 1 << 10;
/// Bytes that must come within each [`STOP_TIMEOUT`] inside a message while the server stops.
const MIN_STOP_PROGRESS_BYTES: usize = 64 << 10;
/// Time for which data that clients have sent already is still read at shutdown: closing a socket
/// with unread data resets the connection, and acks on their way may be lost.
const SHUTDOWN_READ_TIME: Duration = Duration::from_secs(1);

/// Where the connection is in the stream of messages.
pub(super) enum Phase<'a> {
    /// Between two messages: no byte of the next one has come.
    Idle,
    /// Inside a message.
    Receiving {
        admission: Admission<'a>,
        progress: Progress,
    },
}

/// Admission of the message that is being received.
pub(super) enum Admission<'a> {
    /// The message has not waited for a permit.
    NotRequested,
    /// The message has waited, and holds a permit until its bytes fail to come by `until`.
    Permitted { permit: Permit<'a>, until: Instant },
    /// The permit has timed out; the message does not wait for another one before it is complete.
    Expired,
}

/// Deadline for the next bytes of a message.
pub(super) struct Progress {
    pub(super) deadline: Instant,
    missing_bytes: usize,
    stopping: bool,
}

/// Age limit of the connection.
pub(super) enum AgeLimit {
    /// There is none.
    None,
    /// No chunk was acknowledged yet: the client may expect no acks, and then closing would lose
    /// what it sends.
    Unacknowledged { closes_at: Instant },
    /// The client reads acks and sends again what has none: it can be closed between two messages.
    Acknowledged { closes_at: Instant },
}

/// The shutdown of the server, as the connection sees it.
pub(super) enum Shutdown {
    /// Not noticed yet.
    Running,
    /// What has come by now is still read, until this time at most.
    Draining { until: Instant },
}

impl<'a> Phase<'a> {
    /// Whether a message may wait for a permit: no message has begun, or it has not waited yet.
    pub(super) fn may_wait(&self) -> bool {
        matches!(
            self,
            Self::Idle
                | Self::Receiving {
                    admission: Admission::NotRequested,
                    ..
                }
        )
    }

    /// Enters or stays in the phase inside a message; `acquired` is the permit if the message has
    /// just waited for one.
    pub(super) fn receive(&mut self, acquired: Option<Permit<'a>>, progress_timeout: Duration) {
        let acquired = acquired.map(|permit| Admission::Permitted {
            permit,
            until: Instant::now() + PERMIT_TIMEOUT,
        });
        match self {
            Self::Idle => {
                *self = Self::Receiving {
                    admission: acquired.unwrap_or(Admission::NotRequested),
                    progress: Progress::start(progress_timeout),
                };
            }
            Self::Receiving { admission, .. } => {
                if let Some(acquired) = acquired {
                    *admission = acquired;
                }
            }
        }
    }

    /// Gives up the permit of an incomplete message.
    pub(super) fn expire_permit(&mut self) {
        if let Self::Receiving { admission, .. } = self
            && matches!(admission, Admission::Permitted { .. })
        {
            *admission = Admission::Expired;
        }
    }

    /// Restarts the progress timeout after a wait in which nothing was read.
    pub(super) fn restart_progress(&mut self, timeout: Duration) {
        if let Self::Receiving { progress, .. } = self
            && !progress.is_stopping()
        {
            *progress = Progress::start(timeout);
        }
    }

    /// Ends the admission of a complete message; gives its permit, if it still has one.
    pub(super) fn take_permit(&mut self) -> Option<Permit<'a>> {
        let Self::Receiving { admission, .. } = self else {
            return None;
        };
        match std::mem::replace(admission, Admission::NotRequested) {
            Admission::Permitted { permit, .. } => Some(permit),
            Admission::NotRequested | Admission::Expired => None,
        }
    }
}

impl Progress {
    fn start(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            missing_bytes: MIN_PROGRESS_BYTES,
            stopping: false,
        }
    }

    /// Demands the faster progress of a server that stops.
    pub(super) fn begin_stop(&mut self) {
        *self = Self {
            deadline: Instant::now() + STOP_TIMEOUT,
            missing_bytes: MIN_STOP_PROGRESS_BYTES,
            stopping: true,
        };
    }

    /// Whether the server stops, as far as the message knows.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Records a read; the deadline moves once enough bytes have come.
    pub(super) fn record_read(&mut self, bytes: usize, timeout: Duration) {
        match self.missing_bytes.checked_sub(bytes) {
            Some(missing @ 1..) => self.missing_bytes = missing,
            _ if self.stopping => self.begin_stop(),
            _ => *self = Self::start(timeout),
        }
    }
}

impl AgeLimit {
    /// Begins with no acknowledged chunk.
    pub(super) fn new(max_age: Option<Duration>) -> Self {
        match max_age {
            Some(age) => Self::Unacknowledged {
                closes_at: Instant::now() + age,
            },
            None => Self::None,
        }
    }

    /// Records that a chunk was acknowledged.
    pub(super) fn acknowledge(&mut self) {
        if let Self::Unacknowledged { closes_at } = *self {
            *self = Self::Acknowledged { closes_at };
        }
    }

    /// When the connection may be closed for its age, if at all.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match *self {
            Self::Acknowledged { closes_at } => Some(closes_at),
            Self::None | Self::Unacknowledged { .. } => None,
        }
    }

    /// Whether the age is reached, acknowledged or not.
    pub(super) fn is_reached(&self) -> bool {
        match *self {
            Self::Acknowledged { closes_at } | Self::Unacknowledged { closes_at } => {
                Instant::now() >= closes_at
            }
            Self::None => false,
        }
    }
}

impl Shutdown {
    /// Whether the time for reading what had come is over; it begins with the first call.
    pub(super) fn is_drained(&mut self) -> bool {
        let now = Instant::now();
        match *self {
            Self::Running => {
                *self = Self::Draining {
                    until: now + SHUTDOWN_READ_TIME,
                };
                false
            }
            Self::Draining { until } => now >= until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::AdmissionControl;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_message_waits_for_a_permit_once() {
        let admission_control = AdmissionControl::new(1000);
        let mut phase = Phase::Idle;
        assert!(phase.may_wait());
        phase.receive(None, TIMEOUT);
        assert!(phase.may_wait(), "it has not waited yet");
        phase.receive(Some(admission_control.acquire(1).await), TIMEOUT);
        assert!(!phase.may_wait());
        let Phase::Receiving { admission, .. } = &mut phase else {
            panic!("a message has begun");
        };
        *admission = Admission::Expired;
        phase.receive(None, TIMEOUT);
        assert!(!phase.may_wait(), "it does not wait again");
        assert!(phase.take_permit().is_none());
        assert!(phase.may_wait(), "the next message");
    }

    #[test]
    fn the_deadline_of_progress_moves_once_enough_bytes_have_come() {
        let mut progress = Progress::start(TIMEOUT);
        let first = progress.deadline;
        progress.record_read(MIN_PROGRESS_BYTES - 1, 2 * TIMEOUT);
        assert_eq!(progress.deadline, first);
        progress.record_read(1, 2 * TIMEOUT);
        assert!(progress.deadline >= first + TIMEOUT);
    }

    #[test]
    fn progress_must_be_faster_while_the_server_stops() {
        let mut progress = Progress::start(TIMEOUT);
        progress.begin_stop();
        let first = progress.deadline;
        assert!(first <= Instant::now() + STOP_TIMEOUT);
        progress.record_read(MIN_PROGRESS_BYTES, TIMEOUT);
        assert_eq!(progress.deadline, first);
        progress.record_read(MIN_STOP_PROGRESS_BYTES, TIMEOUT);
        assert!(progress.is_stopping() && progress.deadline <= Instant::now() + STOP_TIMEOUT);
    }

    #[test]
    fn the_age_limit_applies_after_an_ack() {
        let mut limit = AgeLimit::new(Some(TIMEOUT));
        assert!(limit.deadline().is_none() && !limit.is_reached());
        limit.acknowledge();
        assert!(limit.deadline().is_some_and(|at| at > Instant::now()));
        let mut reached = AgeLimit::new(Some(Duration::ZERO));
        assert!(reached.is_reached() && reached.deadline().is_none());
        reached.acknowledge();
        assert!(reached.deadline().is_some_and(|at| at <= Instant::now()));
        assert!(AgeLimit::new(None).deadline().is_none());
    }
}
