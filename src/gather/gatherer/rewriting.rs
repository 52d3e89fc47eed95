//! Gathering of records that may mean other records.
//!
//! Rare, and kept away from the hot path in `message`.

use super::Gatherer;
use super::message::MessageOrigin;
use super::prefetch::{PrefetchPipeline, Walked};
use super::tally::Tally;
use crate::gather::classifier::classify_slow;
use crate::gather::metadata;
use crate::gather::settings::Settings;

impl Gatherer {
    /// Adds the record that `walked` means, after those in the pipeline, so that the lines of a
    /// trace stay in order.
    #[inline(never)]
    pub(super) fn add_candidate(
        &mut self,
        walked: &Walked<'_>,
        pipeline: Option<&mut PrefetchPipeline<'_>>,
        scratch: &mut Vec<u8>,
        origin: MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        if let Some(pipeline) = pipeline {
            self.drain(pipeline, scratch, origin, tally);
        }
        let metadata = metadata::merge(walked.metadata, walked.group, scratch);
        self.add_meant(walked, metadata, origin, tally);
    }

    /// Adds the record that `walked` means.
    fn add_meant(
        &mut self,
        walked: &Walked<'_>,
        metadata: &[u8],
        origin: MessageOrigin<'_>,
        tally: &mut Tally,
    ) {
        let mut json_text = std::mem::take(&mut self.json_text);
        let Settings { names, complete, .. } = &self.settings;
        let shapes = &mut self.shapes;
        let has_id = |record: &[u8]| classify_slow(shapes, names, complete, record).trace_id.is_some();
        let means = json_text.record(names, walked.record, has_id);
        match means {
            None => self.add(walked, metadata, origin, tally),
            Some(record) => {
                let Settings { names, complete, .. } = &self.settings;
                let classification = classify_slow(&mut self.shapes, names, complete, record);
                let means = Walked {
                    record,
                    classification,
                    id: classification.trace_id.map(|id| self.table.trace_id(id)),
                    guess: None,
                    ..*walked
                };
                self.add(&means, metadata, origin, tally);
            }
        }
        self.json_text = json_text;
    }
}
