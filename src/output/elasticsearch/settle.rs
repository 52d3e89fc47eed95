//! Documents that are not settled: written soon after a rollover, when a node of the store that does
//! not know of it may still create a document of the same trace in the generation before.
//!
//! **Rule.** Older generations are looked at right after the write, by [`super::join`], and once
//! more when `elasticsearch.rollover_settle` has passed since the rollover was seen. No create can
//! land in them after that. Until then the claims on the journal records are kept, so that a crash
//! ends with the documents being written and looked for again. Their text leaves the memory at once:
//! an id is enough to look, and what is stored is enough to join.
//!
//! **Why one document remains.** Let S be created in an older generation g by a node that does not
//! know of the rollover, and D in the newer one. S is created before its node learns of the
//! rollover. D's writer looks into g after that at the latest, finds S, and writes D once more,
//! which joins both by the rule of [`super::join`]. If D was created after that time, its first look
//! finds S.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::backoff::half_jitter;
use super::bulk::{BulkDocument, OwnedDocument};
use super::client::Client;
use super::delivery::DeliveryContext;
use super::mget::{self, Fields, MgetItem};
use super::outcome::{DocumentOutcome, RequestError};
use super::target::Target;
use super::upsert::{Upsert, Upserter, WriteResult};
use crate::claim::RecordClaim;
use crate::output::DestinationId;

/// Lookups in one `_mget`.
const MAX_LOOKUPS: usize = 1000;

/// Documents that are written again in one request; each is read in full.
const MAX_REWRITES: usize = 100;

/// Bytes of a group besides its ids.
const GROUP_BYTES: usize = 256;

/// A written document that may get a sibling in an older generation.
#[derive(Debug)]
pub(crate) struct Unsettled {
    /// Number of the document of its batch with which it was written: itself, or what it is a copy
    /// or a continuation of.
    pub(crate) at: usize,
    pub(crate) id: Box<str>,
    destination: DestinationId,
    is_trace: bool,
    is_copy: bool,
    first_ns: i64,
    until: Instant,
}

/// Ids of documents of one kind.
#[derive(Debug)]
struct IdSet {
    destination: DestinationId,
    is_trace: bool,
    is_copy: bool,
    /// The earliest first event time, Unix ns.
    first_ns: i64,
    ids: Ids,
}

/// Texts in one buffer, each behind its length.
#[derive(Debug, Default)]
struct Ids(Vec<u8>);

impl Ids {
    fn push(&mut self, id: &str) {
        // An id has at most 512 bytes.
        let length = u16::try_from(id.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&id.as_bytes()[..usize::from(length)]);
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (length, behind) = rest.split_first_chunk()?;
            let (id, behind) = behind.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            rest = behind;
            std::str::from_utf8(id).ok()
        })
    }
}

/// Documents that are looked for together, and the claims that they hold.
#[derive(Debug)]
struct Group {
    until: Instant,
    sets: Vec<IdSet>,
    claims: Vec<RecordClaim>,
    bytes: usize,
}

/// The documents of an output that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    groups: Mutex<VecDeque<Group>>,
    /// Memory of all groups.
    bytes: AtomicUsize,
    added: Notify,
}

impl Settling {
    /// Keeps the claims until the documents are settled.
    pub(super) fn add(&self, unsettled: Vec<Unsettled>, claims: Vec<RecordClaim>) {
        let Some(until) = unsettled.iter().map(|one| one.until).max() else {
            claims.into_iter().for_each(RecordClaim::confirm);
            return;
        };
        self.put(until, sets(unsettled), claims);
        self.added.notify_one();
    }

    fn put(&self, until: Instant, sets: Vec<IdSet>, claims: Vec<RecordClaim>) {
        let bytes = sets.iter().map(|set| set.ids.0.len()).sum::<usize>() + GROUP_BYTES;
        self.bytes.fetch_add(bytes, Relaxed);
        self.lock().push_back(Group {
            until,
            sets,
            claims,
            bytes,
        });
    }

    /// Memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// The group that is due first.
    fn first(&self) -> Option<Instant> {
        self.lock().iter().map(|group| group.until).min()
    }

    fn take_due(&self, now: Instant) -> Option<Group> {
        let mut groups = self.lock();
        let at = groups.iter().position(|group| group.until <= now)?;
        let group = groups.remove(at)?;
        self.bytes.fetch_sub(group.bytes, Relaxed);
        Some(group)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sets(unsettled: Vec<Unsettled>) -> Vec<IdSet> {
    let mut sets: BTreeMap<_, IdSet> = BTreeMap::new();
    for one in unsettled {
        let set = sets
            .entry((one.destination, one.is_trace, one.is_copy))
            .or_insert_with(|| IdSet {
                destination: one.destination,
                is_trace: one.is_trace,
                is_copy: one.is_copy,
                first_ns: one.first_ns,
                ids: Ids::default(),
            });
        set.first_ns = set.first_ns.min(one.first_ns);
        set.ids.push(&one.id);
    }
    sets.into_values().collect()
}

impl<D: BulkDocument> Upsert<'_, D> {
    /// Resolves names again whose documents are in indices that are not known: they were rolled
    /// over.
    pub(super) async fn learn_places(&self, client: &Client) {
        let mut last = None;
        for (at, place) in &self.places {
            let document = &self.documents[*at];
            let day = client.index_of(document);
            if last.as_ref() == Some(&(day.index.clone(), place.clone())) {
                continue;
            }
            let destination = client.destinations.get(document.destination());
            let is_data_stream = destination.is_data_stream;
            client
                .targets
                .learn(client, &day.index, is_data_stream, place)
                .await;
            last = Some((day.index.clone(), place.clone()));
        }
    }

    /// Notes copies or continuations of document number `at` that are not settled.
    pub(super) fn note_unsettled_of(&mut self, at: usize, unsettled: Vec<Unsettled>) {
        let own = unsettled.into_iter().map(|one| Unsettled { at, ..one });
        self.unsettled.extend(own);
    }

    /// Notes the stored documents that are not settled.
    pub(super) fn note_unsettled(&mut self, client: &Client) {
        if !client.targets.any_unsettled() {
            return;
        }
        let now = Instant::now();
        for (at, document) in self.documents.iter().enumerate() {
            if !matches!(self.outcomes[at], DocumentOutcome::Stored(_)) {
                continue;
            }
            let name = self.name(client, at);
            let Target::Generations(all) = client.targets.known(&name) else {
                continue;
            };
            if let Some(until) = all.unsettled_until(&self.place(client, at), now) {
                self.unsettled.push(Unsettled {
                    at,
                    id: document.id().into(),
                    destination: document.destination(),
                    is_trace: document.is_trace(),
                    is_copy: document.is_copy(),
                    first_ns: document.first_ns(),
                    until,
                });
            }
        }
    }
}

/// Looks for siblings of the documents of an output when they are due. Never returns.
pub(super) async fn run(context: Arc<DeliveryContext>, pause: Duration) {
    loop {
        match context.settling.first() {
            Some(until) => tokio::select! {
                () = sleep_until(until) => {}
                () = context.settling.added.notified() => continue,
            },
            None => context.settling.added.notified().await,
        }
        while let Some(group) = context.settling.take_due(Instant::now()) {
            let Group { sets, claims, .. } = group;
            let (left, again) = settle(&context.upserter, sets, pause).await;
            if left.is_empty() {
                claims.into_iter().for_each(RecordClaim::confirm);
                continue;
            }
            context.settling.put(again, left, claims);
        }
    }
}

/// Waits until documents are settled, and joins them with siblings that came.
///
/// # Errors
/// Why that is not possible now; writing the documents again is safe.
pub(super) async fn wait_until_settled(
    upserter: &Upserter,
    unsettled: Vec<Unsettled>,
    pause: Duration,
) -> Result<(), String> {
    const MAX_ATTEMPTS: u32 = 3;
    let mut until = unsettled.iter().map(|one| one.until).max();
    let mut left = sets(unsettled);
    for _ in 0..MAX_ATTEMPTS {
        let Some(due) = until.filter(|_| !left.is_empty()) else {
            return Ok(());
        };
        sleep_until(due).await;
        let (rest, again) = settle(upserter, left, pause).await;
        (left, until) = (rest, Some(again));
    }
    if left.is_empty() {
        return Ok(());
    }
    Err("the generation before a rollover cannot be read".into())
}

/// Looks for siblings of documents and joins them. Returns those that are to be looked for again,
/// and when.
async fn settle(upserter: &Upserter, sets: Vec<IdSet>, pause: Duration) -> (Vec<IdSet>, Instant) {
    let mut left = Vec::new();
    let mut again = Instant::now() + half_jitter(pause);
    for set in sets {
        match settle_set(upserter, &set).await {
            Ok(rewritten) if rewritten.is_empty() => {}
            Ok(rewritten) => {
                // They were written soon after a later rollover.
                let until = rewritten.iter().map(|one| one.until).max();
                again = again.max(until.unwrap_or(again));
                left.extend(self::sets(rewritten));
            }
            Err(reason) => {
                let name = upserter.client.destinations.indices(set.destination);
                tracing::debug!(name = name.text(), %reason, "older generations cannot be looked at; trying again");
                left.push(set);
            }
        }
    }
    (left, again)
}

/// Looks for siblings of documents of one kind and joins them. Returns what is not settled yet.
async fn settle_set(upserter: &Upserter, set: &IdSet) -> Result<Vec<Unsettled>, String> {
    let client = &upserter.client;
    let destination = client.destinations.get(set.destination);
    let day = destination.indices.of(set.first_ns);
    let target = client
        .targets
        .refresh(client, &day.index, destination.is_data_stream)
        .await;
    let Target::Generations(all) = target else {
        // It was removed.
        return Ok(Vec::new());
    };
    let candidates = all.candidates(set.first_ns, client.trace_life);
    if candidates.len() < 2 {
        return Ok(Vec::new());
    }
    let said = |error: RequestError| error.reason().to_owned();
    let mut unsettled = Vec::new();
    let ids: Vec<&str> = set.ids.iter().collect();
    for ids in ids.chunks((MAX_LOOKUPS / candidates.len()).max(1)) {
        let wanted: Vec<_> = ids
            .iter()
            .flat_map(|id| candidates.iter().map(move |index| (*index, *id)))
            .collect();
        let found = mget::mget(client, &wanted, Fields::None).await.map_err(said)?;
        let mut siblings = Vec::new();
        for (id, found) in ids.iter().zip(found.chunks(candidates.len())) {
            let mut holders = Vec::new();
            for (index, item) in candidates.iter().zip(found) {
                match item {
                    MgetItem::Missing => {}
                    MgetItem::Found { .. } => holders.push(*index),
                    MgetItem::Failed { reason, .. } => return Err(reason.clone()),
                }
            }
            if holders.len() > 1
                && let Some(newest) = holders.pop()
            {
                siblings.push((newest, *id));
            }
        }
        for siblings in siblings.chunks(MAX_REWRITES) {
            unsettled.extend(write_again(upserter, set, siblings).await?);
        }
    }
    Ok(unsettled)
}

/// Writes documents again that have siblings, which joins them. Returns what is not settled yet.
async fn write_again(
    upserter: &Upserter,
    set: &IdSet,
    siblings: &[(&str, &str)],
) -> Result<Vec<Unsettled>, String> {
    let found = mget::mget(&upserter.client, siblings, Fields::All).await;
    let found = found.map_err(|error| error.reason().to_owned())?;
    let owned = |json: &Bytes, id: &str| OwnedDocument {
        id: id.to_owned(),
        is_trace: set.is_trace,
        first_ns: set.first_ns,
        destination: set.destination,
        json: json.clone(),
        is_copy: set.is_copy,
    };
    let documents: Vec<OwnedDocument> = siblings
        .iter()
        .zip(&found)
        .filter_map(|((_, id), found)| match found {
            MgetItem::Found { source, .. } => Some(owned(source, id)),
            // Another writer joined it.
            MgetItem::Missing | MgetItem::Failed { .. } => None,
        })
        .collect();
    if documents.is_empty() {
        return Ok(Vec::new());
    }
    tracing::debug!(
        documents = documents.len(),
        "joining documents that were created on both sides of a rollover"
    );
    match upserter.write(&documents).await {
        WriteResult::AllCreated => Ok(Vec::new()),
        WriteResult::PerDocument(outcomes, _, unsettled) => {
            let open = outcomes.iter().find_map(|outcome| match outcome {
                DocumentOutcome::Stored(_) => None,
                DocumentOutcome::Retry(_) => Some("it could not be joined yet".to_owned()),
                DocumentOutcome::Blocked(reason) => Some(reason.clone()),
                DocumentOutcome::Rejected(rejection) | DocumentOutcome::Refused(rejection) => {
                    Some(rejection.reason.clone())
                }
            });
            open.map_or(Ok(unsettled), Err)
        }
        WriteResult::Failed(error) => Err(error.reason().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_kept_in_one_buffer() {
        let mut ids = Ids::default();
        let long = "x".repeat(512);
        for id in ["a", "", "é\u{1f600}", &long] {
            ids.push(id);
        }
        let all: Vec<&str> = ids.iter().collect();
        assert_eq!(all, ["a", "", "é\u{1f600}", long.as_str()]);
    }

    #[test]
    fn claims_are_kept_until_the_documents_are_settled() {
        let settling = Settling::default();
        let now = Instant::now();
        let one = |destination, seconds| Unsettled {
            at: 0,
            id: "a".into(),
            destination: DestinationId(destination),
            is_trace: true,
            is_copy: false,
            first_ns: 5,
            until: now + Duration::from_secs(seconds),
        };
        settling.add(vec![one(0, 9), one(1, 5), one(0, 3)], Vec::new());
        settling.add(vec![one(0, 4)], Vec::new());
        assert_eq!(settling.bytes(), 2 * GROUP_BYTES + 4 * 3);
        assert_eq!(settling.first(), Some(now + Duration::from_secs(4)));
        let after = |seconds| now + Duration::from_secs(seconds);
        assert!(settling.take_due(now).is_none());
        let first = settling.take_due(after(4)).map(|group| group.sets.len());
        assert_eq!(first, Some(1));
        assert!(settling.take_due(after(8)).is_none());
        let last = settling.take_due(after(9)).unwrap();
        assert_eq!(last.sets.len(), 2);
        assert_eq!(last.sets[0].ids.iter().count(), 2);
        assert_eq!(settling.bytes(), 0);
    }
}
