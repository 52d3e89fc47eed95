//! Questions of gathering about traces that are silent: whether the store has their documents
//! complete, because their completion record came to another instance.
//!
//! One question is on its way at a time. Neither side waits for the other.

use tokio::sync::mpsc;
use windrow_trace::SilentTrace;

/// What the store says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The documents of these are complete.
    Complete(Vec<SilentTrace>),
    /// The store was not asked, because it has enough to do, or did not answer.
    Refused,
}

/// The end of gathering.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) questions: mpsc::Sender<Vec<SilentTrace>>,
    pub(crate) answers: mpsc::Receiver<Answer>,
}

/// The end of the output.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) questions: mpsc::Receiver<Vec<SilentTrace>>,
    pub(crate) answers: mpsc::Sender<Answer>,
}

/// Both ends.
pub(crate) fn channel() -> (Asking, Answering) {
    let (questions, asked) = mpsc::channel(1);
    let (answers, answered) = mpsc::channel(1);
    let asking = Asking {
        questions,
        answers: answered,
    };
    let answering = Answering {
        questions: asked,
        answers,
    };
    (asking, answering)
}
