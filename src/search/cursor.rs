//! Cursor of a page: the sort key of its last trace. It names a place in the order and not a
//! number of traces, so that a page stays the same while documents arrive.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{SearchError, Sort};

/// Where a page ends. The meaning of the keys depends on the order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// First letter of the order.
    s: char,
    /// Duration in ms or rank of the level, in orders that sort by it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rank: i64,
    /// Time of the trace, in the unit of the store.
    pub time: i64,
    /// Ids at this place that were on a page, where times are not unique.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Cursor {
    /// A cursor of this order.
    #[must_use]
    pub fn new(sort: Sort, rank: i64, time: i64, ids: Vec<String>) -> Self {
        Self {
            s: letter(sort),
            rank,
            time,
            ids,
        }
    }

    /// Its text, opaque to clients.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Reads the text of a cursor of this order.
    ///
    /// # Errors
    /// It is no cursor, or one of another order.
    pub fn decode(text: &str, sort: Sort) -> Result<Self, SearchError> {
        let wrong = |message: &str| SearchError::Invalid {
            key: "cursor",
            message: message.into(),
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match cursor {
            Some(cursor) if cursor.s == letter(sort) => Ok(cursor),
            Some(_) => Err(wrong(
                "the cursor belongs to another order: keep sort, or leave the cursor out",
            )),
            None => Err(wrong(
                "it is no cursor: give \"next\" of the page before, or leave it out",
            )),
        }
    }
}

fn letter(sort: Sort) -> char {
    match sort {
        Sort::Newest => 'n',
        Sort::Oldest => 'o',
        Sort::Slowest => 's',
        Sort::Worst => 'w',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_for_its_order() {
        let cursor = Cursor::new(Sort::Worst, 5, -7, vec!["ü\"".into()]);
        let text = cursor.encode();
        assert_eq!(Cursor::decode(&text, Sort::Worst), Ok(cursor));
        for (text, sort) in [
            (text.as_str(), Sort::Newest),
            ("x", Sort::Worst),
            ("", Sort::Worst),
        ] {
            assert!(Cursor::decode(text, sort).is_err(), "{text}");
        }
    }
}
