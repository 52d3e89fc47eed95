//! Names of fields at the top level of records that may hold the trace id or the text, for look-ups
//! that do not depend on how many the configuration has.

use std::collections::HashMap;

use forward_protocol::entries::{Key, MapPairs, Pair};
use windrow_trace::{FieldNames, as_text, read_token};

/// A number for each name.
type Ranks = HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>;

/// The names, each with its preference.
#[derive(Debug, Default)]
pub(in crate::gather) struct RootNames {
    keys: Ranks,
    texts: Ranks,
}

/// The text of a record.
pub(super) struct TextField<'a> {
    rank: usize,
    /// Number of the field in the record.
    pub(super) number: usize,
    pub(super) text: &'a [u8],
}

impl RootNames {
    pub(in crate::gather) fn new(names: &FieldNames) -> Self {
        let ranks = |of: &mut dyn Iterator<Item = &str>| {
            let mut ranks = Ranks::default();
            for (rank, name) in of.enumerate() {
                ranks.entry(name.as_bytes().into()).or_insert(rank);
            }
            ranks
        };
        Self {
            keys: ranks(&mut names.key_paths()),
            texts: ranks(&mut names.text.iter().map(String::as_str)),
        }
    }

    /// Whether the field may hold the trace id.
    pub(super) fn is_key(&self, pair: &Pair<'_>) -> bool {
        name(pair).is_some_and(|name| self.keys.contains_key(name))
    }

    /// Whether the field may hold the text.
    pub(super) fn is_text(&self, pair: &Pair<'_>) -> bool {
        name(pair).is_some_and(|name| self.texts.contains_key(name))
    }

    /// The text of a record: that of the most preferred name. Of equal names the last counts.
    pub(super) fn text_field<'a>(&self, record: &'a [u8]) -> Option<TextField<'a>> {
        let mut best: Option<TextField<'a>> = None;
        for (number, pair) in MapPairs::new(record).enumerate() {
            let Some(&rank) = name(&pair).and_then(|name| self.texts.get(name)) else {
                continue;
            };
            let value = read_token(pair.value, 0).and_then(|(value, _)| as_text(value));
            if let Some(text) = value
                && best.as_ref().is_none_or(|best| rank <= best.rank)
            {
                best = Some(TextField { rank, number, text });
            }
        }
        best
    }
}

/// The name of a field, if it is a text.
pub(super) fn name<'a>(pair: &Pair<'a>) -> Option<&'a [u8]> {
    match pair.key {
        Key::Text(name) => Some(name),
        Key::Other(_) => None,
    }
}
