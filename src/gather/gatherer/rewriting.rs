//! Gathering of records that may mean other records: parts of lines, and JSON in a text.
//!
//! Rare, and kept away from the hot path in `message`. Both ends of the work are there: a record
//! comes as `Walked`, and what it means is passed to `add`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use forward_protocol::entries::{Entries, Group, Time};

use super::Gatherer;
use super::origin::{Arrival, MessageOrigin};
use super::prefetch::{PrefetchPipeline, Walked};
use super::sections::Section;
use super::tally::Tally;
use crate::claim::RecordClaim;
use crate::gather::classifier::{Classification, classify_slow};
use crate::gather::metadata;
use crate::gather::rewrite::{Fragment, Offer, is_candidate, joined_record};
use crate::gather::router::Routable;
use windrow_trace::{MadeId, PartId, record_cost};

/// A message whose journal record was released before a restart.
pub(super) struct StoredMessage<'a> {
    pub(super) part: PartId,
    /// Number of its first record in the part.
    pub(super) first: u32,
    /// When it was received (µs).
    pub(super) received: i64,
    pub(super) tag: Arc<str>,
    pub(super) arrival: Arrival<'a>,
}

impl Gatherer {
    /// Adds a record that cannot wait in the pipeline, or what it means, after those in it, so that
    /// the lines of a trace stay in order.
    #[inline(never)]
    pub(super) fn add_alone(
        &mut self,
        walked: &Walked<'_>,
        pipeline: Option<&mut PrefetchPipeline<'_>>,
        scratch: &mut Vec<u8>,
        origin: &mut MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        if let Some(pipeline) = pipeline {
            self.drain(pipeline, scratch, origin, tally);
        }
        let metadata = metadata::merge(walked.metadata, walked.group, scratch);
        if !is_candidate(walked.classification) && !self.partial.is_any_open() {
            self.add(walked, metadata, origin, tally);
            return;
        }
        // Counted as it came: where a section ends does not depend on what a record means.
        self.count_in_section(record_cost(walked.record, metadata), origin);
        let origin = &*origin;
        let fragment = || Fragment {
            part: origin.part,
            section: origin.section.number,
            position: walked.number,
            received: origin.received,
            time: walked.time.or_received(origin.received.saturating_mul(1000)),
            tag: Arc::clone(origin.tag),
            claim: origin.claim.clone(),
            record: walked.record.to_vec(),
            metadata: metadata.to_vec(),
            is_stored: false,
        };
        let names = &self.root_names;
        let offer = self
            .partial
            .offer(names, walked.record, origin.tag, origin.now, fragment);
        match offer {
            Offer::Whole => {
                self.add_meant(walked, metadata, origin, tally);
                return;
            }
            Offer::Kept => tally.invalid_times += u64::from(walked.time == Time::Invalid),
            Offer::Repeated => {
                self.account.duplicate.fetch_add(1, Ordering::Relaxed);
            }
            Offer::Complete(fragments) => self.add_line(fragments, Some(origin), origin.now),
        }
        self.write_given_back(origin.now);
    }

    /// Adds the record that `walked` means.
    fn add_meant(
        &mut self,
        walked: &Walked<'_>,
        metadata: &[u8],
        origin: &MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        let mut json_text = std::mem::take(&mut self.json_text);
        let (shapes, complete) = (&mut self.shapes, &self.settings.complete);
        let has_id = |record: &[u8]| {
            let mut made = MadeId::default();
            classify_slow(shapes, complete, record, &mut made)
                .id(&made)
                .is_some()
        };
        match json_text.record(&self.root_names, walked.record, has_id) {
            None => self.add_to_section(walked, metadata, origin, tally),
            Some(record) => {
                let mut made = MadeId::default();
                let classification = self.classify(record, walked.metadata, walked.group, &mut made);
                let routable = Routable {
                    tag: origin.tag,
                    record,
                    classification: &classification,
                    metadata: walked.metadata,
                    group: walked.group,
                };
                let destination = self.destination(&routable, None, tally);
                let means = Walked {
                    record,
                    classification: &classification,
                    id: self.trace_id(classification.id(&made), destination),
                    destination,
                    ..*walked
                };
                self.add_to_section(&means, metadata, origin, tally);
            }
        }
        self.json_text = json_text;
    }

    /// Classifies a record that did not come as it is.
    fn classify<'r>(
        &mut self,
        record: &'r [u8],
        metadata: Option<&'r [u8]>,
        group: Option<Group<'r>>,
        made: &mut MadeId,
    ) -> Classification<'r> {
        let mut classification = classify_slow(&mut self.shapes, &self.settings.complete, record, made);
        if metadata.is_some() || group.is_some() {
            classification.read_metadata(self.shapes.view(), metadata, group, made);
        }
        classification
    }

    /// Adds the line that consists of `fragments`, in the place of the last of them. `current`: the
    /// message that is being gathered.
    fn add_line(&mut self, fragments: Vec<Fragment>, current: Option<&MessageOrigin<'_>>, now: i64) {
        let (Some(first), Some(last)) = (fragments.first(), fragments.last()) else {
            return;
        };
        let received = fragments.iter().filter(|part| !part.is_stored).count() as u64;
        if last.is_stored {
            // So is the line.
            self.account.duplicate.fetch_add(received, Ordering::Relaxed);
        } else {
            self.account
                .joined
                .fetch_add(received.saturating_sub(1), Ordering::Relaxed);
            let record = joined_record(&self.root_names, &fragments);
            let mut claims: Vec<RecordClaim> = Vec::new();
            for fragment in &fragments {
                if !claims.iter().any(|claim| claim.is_same(&fragment.claim)) {
                    claims.push(fragment.claim.clone());
                }
            }
            let is_current = |origin: &&MessageOrigin<'_>| {
                claims.len() == 1 && last.claim.is_same(origin.claim) && last.part == origin.part
            };
            match current.filter(is_current) {
                Some(origin) => {
                    self.add_by_itself(&record, first.time, last, origin);
                    claims.into_iter().for_each(RecordClaim::confirm);
                }
                None => {
                    let claim = RecordClaim::combined(claims);
                    self.add_from(&record, first.time, last, claim, now);
                }
            }
        }
        fragments.into_iter().for_each(|part| part.claim.confirm());
    }

    /// Adds `record` in the place of `fragment`, which a message before the current one brought.
    fn add_from(&mut self, record: &[u8], time: i64, fragment: &Fragment, claim: RecordClaim, now: i64) {
        let section = Section {
            number: fragment.section,
            bytes: 0,
        };
        let source = self.begin_section(fragment.part, fragment.received, section, &fragment.tag, &claim);
        let (earliest, latest) = self.settings.time_bounds(fragment.received);
        let origin = MessageOrigin {
            source,
            part: fragment.part,
            section,
            received: fragment.received,
            now,
            earliest,
            latest,
            tag: &fragment.tag,
            claim: &claim,
            nesting: 0,
            positions: &[],
            may_repeat: false,
        };
        self.add_by_itself(record, time, fragment, &origin);
        self.end(Some(source));
        claim.confirm();
    }

    /// Adds `record` in the place of `fragment`; what cannot be kept is rejected by itself.
    fn add_by_itself(&mut self, record: &[u8], time: i64, fragment: &Fragment, origin: &MessageOrigin<'_>) {
        let mut tally = Tally {
            rejectable_bytes: record.len(),
            ..Tally::default()
        };
        let metadata = Some(&*fragment.metadata).filter(|metadata| !metadata.is_empty());
        let mut made = MadeId::default();
        let classification = self.classify(record, metadata, None, &mut made);
        let routable = Routable {
            tag: origin.tag,
            record,
            classification: &classification,
            metadata,
            group: None,
        };
        let destination = self.destination(&routable, None, &mut tally);
        let walked = Walked {
            time: Time::At(time),
            record,
            metadata,
            classification: &classification,
            id: self.trace_id(classification.id(&made), destination),
            destination,
            group: None,
            number: fragment.position,
        };
        self.add_meant(&walked, &fragment.metadata, origin, &mut tally);
        self.account_for(&tally, None, record, origin);
    }

    /// Writes parts whose line is not complete as they came.
    pub(super) fn write_given_back(&mut self, now: i64) {
        for fragment in self.partial.take_given_back() {
            if !fragment.is_stored {
                self.add_from(
                    &fragment.record,
                    fragment.time,
                    &fragment,
                    fragment.claim.clone(),
                    now,
                );
            }
            fragment.claim.confirm();
        }
    }

    /// Writes the parts of lines that have waited too long.
    pub(super) fn expire_parts(&mut self, now: i64) {
        self.partial.expire(now);
        self.write_given_back(now);
    }

    /// Takes the parts of lines in a message that was released before a restart, as a line may end
    /// in a record that was not. `counted` records precede `entries`. Returns their number.
    #[cold]
    pub(super) fn stored_parts(
        &mut self,
        entries: &mut Entries<'_>,
        message: &StoredMessage<'_>,
        counted: u32,
    ) -> u32 {
        let Arrival { now, claim, .. } = message.arrival;
        let mut count = 0;
        for entry in entries {
            let position = message.first.wrapping_add(counted).wrapping_add(count);
            count += 1;
            let Ok(entry) = entry else { continue };
            let fragment = || Fragment {
                part: message.part,
                // Not used: it is stored.
                section: 0,
                position,
                received: message.received,
                time: entry.time.or_received(message.received.saturating_mul(1000)),
                tag: Arc::clone(&message.tag),
                claim: claim.clone(),
                record: entry.record.to_vec(),
                metadata: Vec::new(),
                is_stored: true,
            };
            let names = &self.root_names;
            if let Offer::Complete(fragments) =
                self.partial
                    .offer(names, entry.record, &message.tag, now, fragment)
            {
                self.add_line(fragments, None, now);
            }
        }
        self.write_given_back(now);
        count
    }
}
