//! What gathering looks for in a record while it is walked: the trace id, and whether it completes its trace.
//!
//! Owns the order of preference of the id's names, and how an entry's metadata and its group's become one map.

use forward_protocol::entries::{Entry, Key, Pair, Visitor};
use forward_protocol::msgpack::{write_map_len, write_str};

use crate::config::Rule;
use crate::trace::{Head, Names, as_text, head, write_value};

/// What one walk over a record finds.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// The trace id, and how preferred the name is that it stands under.
    pub(super) key: Option<(usize, &'a [u8])>,
    pub(super) completes: bool,
}

/// Looks at the pairs of a record for the trace id and for completion, while the record is walked.
pub(super) struct Look<'s, 'a> {
    pub(super) names: &'s Names,
    pub(super) complete: &'s [Rule],
    pub(super) found: Found<'a>,
}

impl<'a> Visitor<'a> for Look<'_, 'a> {
    #[inline]
    fn record(&mut self) {
        self.found = Found::default();
    }

    #[inline]
    fn pair(&mut self, pair: Pair<'a>) {
        let Key::Text(name) = pair.key else { return };
        if let Some(rank) = self.names.keys.iter().position(|key| key.as_bytes() == name)
            && self.found.key.is_none_or(|(best, _)| rank < best)
            && let Some((value, _)) = head(pair.value, 0)
            && let Some(id) = as_text(value).filter(|id| !id.is_empty())
        {
            self.found.key = Some((rank, id));
        }
        if !self.found.completes {
            self.found.completes = self.complete.iter().any(|rule| {
                let concerned = match &rule.field {
                    Some(field) => field.as_bytes() == name,
                    None => self.names.text.iter().any(|text| text.as_bytes() == name),
                };
                concerned && passes(rule, pair.value)
            });
        }
    }
}

fn passes(rule: &Rule, value: &[u8]) -> bool {
    let Some((head, _)) = head(value, 0) else {
        return false;
    };
    match as_text(head) {
        Some(text) => rule.test.passes(text),
        None => {
            let mut text = Vec::new();
            write_value(&mut text, value, 0);
            rule.test.passes(&text)
        }
    }
}

/// The metadata of an entry, with those of its group under `group`.
pub(super) fn metadata<'a>(entry: &Entry<'a>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let own = entry.metadata.unwrap_or_default();
    let Some(group) = entry.group else { return own };
    scratch.clear();
    let pairs = match head(own, 0) {
        Some((Head::Map(n), next)) => Some((n, next)),
        _ => None,
    };
    write_map_len(scratch, pairs.map_or(0, |(n, _)| n) + 1);
    if let Some((_, next)) = pairs {
        scratch.extend_from_slice(&own[next..]);
    }
    write_str(scratch, b"group");
    let put = |out: &mut Vec<u8>, map: &[u8]| match map {
        [] => write_map_len(out, 0),
        map => out.extend_from_slice(map),
    };
    write_map_len(scratch, 2);
    write_str(scratch, b"metadata");
    put(scratch, group.metadata);
    write_str(scratch, b"attributes");
    put(scratch, group.attributes);
    scratch
}
