//! Trace ids of the records of a message, found as gathering finds them: by paths, in metadata, and
//! in a JSON object in the text.
//!
//! For splitting a chunk before it is gathered. Does not gather, and keeps no record.

use forward_protocol::entries::{Entries, Group};
use windrow_trace::{FieldNames, MadeId, ShapeRegistry, record_cost};

use super::classifier::{Classification, NoCapture, RecordClassifier, classify_slow};
use super::metadata;
use super::rewrite::{JsonText, RootNames, is_candidate, is_fragment};
use super::settings::Settings;
use crate::config::ParseJson;

/// What the finder has to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct IdSettings {
    names: FieldNames,
    parse_json: ParseJson,
    max_depth: u32,
}

impl IdSettings {
    /// Takes what is needed from the settings of gathering.
    pub(crate) fn of(settings: &Settings) -> Self {
        Self {
            names: settings.names.clone(),
            parse_json: settings.parse_json,
            max_depth: settings.frame.depth,
        }
    }

    /// Depth of MessagePack values.
    pub(crate) fn max_depth(&self) -> u32 {
        self.max_depth
    }
}

/// A record of a message.
#[derive(Debug)]
pub(crate) struct FoundRecord<'a, 'i> {
    /// Where its entry begins and ends in the walked bytes.
    pub(crate) entry: std::ops::Range<usize>,
    /// Bytes of the record, with which the entry ends.
    pub(crate) record_bytes: usize,
    /// Its trace id, if it has one.
    pub(crate) id: Option<&'i [u8]>,
    /// What it counts towards a section.
    pub(crate) cost: usize,
    /// The group of events that it is in.
    pub(crate) group: Option<Group<'a>>,
}

/// Why a message has to stay in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Indivisible {
    /// It has a part of a line, whose other parts come to this instance.
    PartOfLine,
    /// It has an entry that is no record.
    BadEntry,
}

/// Finds trace ids. Learns the shapes of records, and keeps buffers for reuse.
#[derive(Debug)]
pub(crate) struct IdFinder {
    shapes: ShapeRegistry,
    root_names: RootNames,
    json_text: JsonText,
    scratch: Vec<u8>,
}

impl IdFinder {
    pub(crate) fn new(settings: &IdSettings) -> Self {
        Self {
            shapes: ShapeRegistry::new(settings.names.clone(), Vec::new()),
            root_names: RootNames::new(&settings.names),
            json_text: JsonText::new(settings.parse_json, settings.max_depth),
            scratch: Vec::new(),
        }
    }

    /// Walks the entries in `bytes` and calls `each` with each record in order.
    ///
    /// # Errors
    ///
    /// [`Indivisible`], with which the walk ends.
    pub(crate) fn walk<'a>(
        &mut self,
        bytes: &'a [u8],
        mut walk: Entries<'a>,
        mut each: impl FnMut(FoundRecord<'a, '_>),
    ) -> Result<(), Indivisible> {
        let mut made = MadeId::default();
        let mut nothing = NoCapture::<1>;
        let mut classification = Classification::default();
        loop {
            let mut classifier = RecordClassifier::new(&self.shapes, &[], &mut nothing, &mut classification);
            let Some(next) = walk.next_with(&mut classifier) else {
                return Ok(());
            };
            let has_shape = classifier.finish();
            let entry = next.map_err(|_| Indivisible::BadEntry)?;
            let range = entry.offset..bytes.len() - walk.rest();
            if !has_shape {
                classification = classify_slow(&mut self.shapes, &[], entry.record, &mut made);
            }
            let group = walk.group();
            let record_bytes = entry.record.len();
            let mut cost = record_cost(entry.record, &[]);
            if entry.metadata.is_some() || group.is_some() {
                let view = self.shapes.view();
                classification.read_metadata(view, entry.metadata, group, &mut made);
                cost += metadata::merge(entry.metadata, group, &mut self.scratch).len();
            }
            if is_candidate(&classification) {
                if is_fragment(&self.root_names, entry.record) {
                    return Err(Indivisible::PartOfLine);
                }
                self.candidate(
                    entry.record,
                    entry.metadata,
                    &classification,
                    &mut made,
                    |id| {
                        each(FoundRecord {
                            entry: range,
                            record_bytes,
                            id,
                            cost,
                            group,
                        });
                    },
                    group,
                );
                continue;
            }
            each(FoundRecord {
                entry: range,
                record_bytes,
                id: classification.id(&made),
                cost,
                group,
            });
        }
    }

    /// Calls `found` with the id of what a record means that may mean another one.
    #[cold]
    fn candidate<'a>(
        &mut self,
        record: &'a [u8],
        own: Option<&'a [u8]>,
        classification: &Classification<'a>,
        made: &mut MadeId,
        found: impl FnOnce(Option<&[u8]>),
        group: Option<Group<'a>>,
    ) {
        let shapes = &mut self.shapes;
        let has_id = |record: &[u8]| {
            let mut made = MadeId::default();
            classify_slow(shapes, &[], record, &mut made).id(&made).is_some()
        };
        match self.json_text.record(&self.root_names, record, has_id) {
            None => found(classification.id(made)),
            Some(record) => {
                let mut made = MadeId::default();
                let mut means = classify_slow(&mut self.shapes, &[], record, &mut made);
                if own.is_some() || group.is_some() {
                    means.read_metadata(self.shapes.view(), own, group, &mut made);
                }
                found(means.id(&made));
            }
        }
    }
}
