//! Health of the output: why documents wait, for `/ready` and the log.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Why documents wait, the most important reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitReason {
    /// No request succeeds: nodes unreachable, failing, throttling or refusing the credentials.
    Cluster,
    /// The index template is not installed yet.
    Template,
    /// Single documents wait for an operator: read-only index, disk watermark, missing privilege,
    /// too many shards.
    Blocked,
    /// The dead letter is full or cannot be written.
    DeadLetter,
}

/// Whether documents are delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputState {
    /// Documents are being written, or there are none.
    Ok,
    /// Documents wait; nothing is lost.
    Waiting {
        /// Why, for the operator.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

/// The reasons why documents wait, shared with `/ready`.
#[derive(Debug, Default)]
pub struct OutputHealth {
    waiting: Mutex<BTreeMap<WaitReason, (String, SystemTime)>>,
    notes: Mutex<BTreeMap<(NoteSource, String), Note>>,
}

/// Where documents wait while others are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NoteSource {
    /// On disk.
    Deferred,
    /// In memory.
    Queue,
}

/// Documents of one index that wait while others are delivered.
#[derive(Debug)]
struct Note {
    documents: u64,
    reason: String,
    since: SystemTime,
}

impl OutputHealth {
    /// The most important reason for waiting, if there is any.
    pub fn state(&self) -> OutputState {
        match self.lock().values().next() {
            None => OutputState::Ok,
            Some((reason, since)) => OutputState::Waiting {
                reason: reason.clone(),
                since: *since,
            },
        }
    }

    /// All reasons, the most important first.
    pub fn reasons(&self) -> Vec<(WaitReason, String, SystemTime)> {
        self.lock()
            .iter()
            .map(|(cause, (reason, since))| (*cause, reason.clone(), *since))
            .collect()
    }

    /// What waits while other documents are delivered: index, number and reason.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |((_, index), note): (&(NoteSource, String), &Note)| {
            let seconds = note.since.elapsed().map_or(0, |time| time.as_secs());
            let Note {
                documents, reason, ..
            } = note;
            format!("{documents} documents for {index} have waited for up to {seconds} s: {reason}")
        };
        notes.iter().map(text).collect()
    }

    /// `more` further documents of an index wait; logged when they are the first.
    pub(crate) fn note(&self, source: NoteSource, index: &str, more: u64, reason: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.entry((source, index.to_owned())).or_insert_with(|| {
            tracing::warn!(
                index,
                documents = more,
                reason,
                "documents wait while others are delivered; they are tried again by themselves"
            );
            Note {
                documents: 0,
                reason: String::new(),
                since: SystemTime::now(),
            }
        });
        note.documents += more;
        reason.clone_into(&mut note.reason);
    }

    /// Sets the documents that wait, by index, with the reason; logs those that wait no more.
    pub(crate) fn set_notes(&self, source: NoteSource, waiting: &BTreeMap<String, (u64, String)>) {
        self.notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(its, index), _| {
                let waits = *its != source || waiting.contains_key(index);
                if !waits {
                    tracing::info!(index, "no documents wait for this index any more");
                }
                waits
            });
        for (index, (documents, reason)) in waiting {
            self.note(source, index, 0, reason);
            let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(note) = notes.get_mut(&(source, index.clone())) {
                note.documents = *documents;
            }
        }
    }

    /// Adds a reason; logged when it is new.
    pub(crate) fn set(&self, cause: WaitReason, reason: impl Into<String>) {
        let reason = reason.into();
        let mut waiting = self.lock();
        match waiting.get_mut(&cause) {
            Some(known) => known.0 = reason,
            None => {
                tracing::warn!(?cause, %reason, "Elasticsearch output is waiting; documents stay in the journal and are retried");
                waiting.insert(cause, (reason, SystemTime::now()));
            }
        }
    }

    /// Removes a reason; logged if it was there.
    pub(crate) fn clear(&self, cause: WaitReason) {
        let gone = self.lock().remove(&cause);
        if let Some((reason, since)) = gone {
            let seconds = since.elapsed().map_or(0.0, |d| d.as_secs_f64());
            tracing::info!(?cause, was = %reason, seconds, "Elasticsearch output resumed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<WaitReason, (String, SystemTime)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
