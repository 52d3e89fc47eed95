//! Static fields: pairs that are added to every record.

use forward_protocol::msgpack::{Reader, write_map_len, write_str};

/// Containers inside each other that are skipped in a record; deeper ones were refused before.
const MAX_DEPTH: u32 = 100;

/// The static fields of a logger, encoded.
#[derive(Debug, Clone, Default)]
pub(crate) struct StaticFields {
    fields: Vec<StaticField>,
}

#[derive(Debug, Clone)]
struct StaticField {
    key: String,
    /// Key and value in MessagePack.
    pair: Vec<u8>,
}

impl StaticFields {
    /// Adds a field; one with the same key is replaced.
    pub(crate) fn set(&mut self, key: &str, value: &[u8]) {
        let mut pair = Vec::with_capacity(key.len() + value.len() + 5);
        write_str(&mut pair, key.as_bytes());
        pair.extend_from_slice(value);
        self.fields.retain(|field| field.key != key);
        self.fields.push(StaticField {
            key: key.to_owned(),
            pair,
        });
    }

    /// Appends the fields to the map that begins at `start` and ends with `out`, except those whose
    /// key the map has already.
    pub(crate) fn append(&self, out: &mut Vec<u8>, start: usize) {
        if self.fields.is_empty() {
            return;
        }
        let mut reader = Reader::at(out, start);
        let Ok(pairs) = reader.map_len() else { return };
        let header = reader.position() - start;
        let mut missing: Vec<&StaticField> = self.fields.iter().collect();
        for _ in 0..pairs {
            let Ok(key) = reader.str_or_bin() else { return };
            missing.retain(|field| field.key.as_bytes() != key);
            if reader.raw(MAX_DEPTH).is_err() {
                return;
            }
        }
        let Ok(count) = u32::try_from(missing.len()) else {
            return;
        };
        for field in missing {
            out.extend_from_slice(&field.pair);
        }
        let mut new_header = Vec::with_capacity(5);
        write_map_len(&mut new_header, pairs.saturating_add(count));
        out.splice(start..start + header, new_header);
    }
}
