//! Shape registry: learns the shapes of records, and predicts that of the next one.

use std::collections::HashMap;

use twox_hash::XxHash3_64;

use super::{Inspected, Shape, ShapeId};
use crate::document::msgpack::{Token, read_token, skip};
use crate::document::names::FieldNames;
use crate::record::view::RecordView;

/// Maximum number of fields of a shape.
const MAX_FIELDS: u32 = 128;
/// Maximum bytes of all names of a shape.
const MAX_NAME_BYTES: usize = 4096;
/// Maximum number of shapes.
const MAX_SHAPES: usize = 4096;
/// Number of hashes to remember of shapes seen once, a power of two.
const SEEN_HASHES: usize = 4096;
/// Size of the prediction table, which is indexed by the number of fields; a power of two.
const PREDICTIONS: usize = 64;

/// The registry of shapes.
#[derive(Debug)]
pub struct ShapeRegistry {
    view: RecordView,
    inspected: Inspected,
    shapes: Vec<Shape>,
    /// By length-prefixed names. `None` for names that cannot be a shape.
    known: HashMap<Box<[u8]>, Option<ShapeId>, foldhash::quality::RandomState>,
    predictions: [Option<ShapeId>; PREDICTIONS],
    /// Hashes of shapes seen once. A shape is only learned when it repeats.
    seen: Box<[u64]>,
    encoded: Vec<u8>,
}

impl ShapeRegistry {
    /// An empty registry. Fields named in `watched` are marked as such, for rules that inspect
    /// values.
    pub fn new(names: FieldNames, watched: Vec<String>) -> Self {
        Self {
            view: RecordView::new(names),
            inspected: Inspected {
                watched,
                captured: Vec::new(),
            },
            shapes: Vec::new(),
            known: HashMap::default(),
            predictions: [None; PREDICTIONS],
            seen: vec![0; SEEN_HASHES].into(),
            encoded: Vec::new(),
        }
    }

    /// Marks fields with these names, at most 255, as captured, for routes.
    #[must_use]
    pub fn capturing(mut self, names: Vec<String>) -> Self {
        self.inspected.captured = names;
        self
    }

    /// What the names of a record's fields mean.
    #[inline]
    pub fn view(&self) -> &RecordView {
        &self.view
    }

    /// The shape with this number.
    #[inline]
    pub fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id.0 as usize)
    }

    /// The predicted shape of a record with this number of fields: that of the last such record.
    #[inline]
    pub fn predict(&self, fields: u32) -> Option<ShapeId> {
        self.predictions[fields as usize % PREDICTIONS]
    }

    /// The shape of a record that was not predicted. Learned when its names repeat. The caller must
    /// still check the values.
    #[inline(never)]
    pub fn find(&mut self, record: &[u8]) -> Option<ShapeId> {
        let (Token::Map(fields), mut at) = read_token(record, 0)? else {
            return None;
        };
        if fields > MAX_FIELDS {
            return None;
        }
        self.encoded.clear();
        for _ in 0..fields {
            let (Token::Str(name), value) = read_token(record, at)? else {
                return None;
            };
            self.encoded.extend_from_slice(&(name.len() as u32).to_le_bytes());
            self.encoded.extend_from_slice(name);
            if self.encoded.len() > MAX_NAME_BYTES {
                return None;
            }
            at = skip(record, value)?;
        }
        let found = match self.known.get(&*self.encoded) {
            Some(found) => *found,
            None => self.learn(),
        };
        if found.is_some() {
            self.predictions[fields as usize % PREDICTIONS] = found;
        }
        found
    }

    fn learn(&mut self) -> Option<ShapeId> {
        if self.known.len() >= MAX_SHAPES {
            return None;
        }
        let hash = XxHash3_64::oneshot(&self.encoded) | 1;
        let place = self.seen.get_mut(hash as usize / 2 % SEEN_HASHES)?;
        if std::mem::replace(place, hash) != hash {
            return None;
        }
        let mut fields = Vec::new();
        let mut rest = self.encoded.as_slice();
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (name, more) = more.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            fields.push(name);
            rest = more;
        }
        let id = Shape::new(&self.view, &self.inspected, &fields).map(|shape| {
            self.shapes.push(shape);
            ShapeId(self.shapes.len() as u32 - 1)
        });
        self.known.insert(self.encoded.as_slice().into(), id);
        id
    }
}
