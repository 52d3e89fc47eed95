//! Metadata of an entry, joined with those of its group of events.

use forward_protocol::entries::Group;
use forward_protocol::msgpack::{write_map_len, write_str};
use windrow_trace::{Token, read_token};

/// The entry's `own` metadata as one MessagePack map, with those of its group under the key
/// `group`.
#[inline]
pub(super) fn merge<'a>(
    own: Option<&'a [u8]>,
    group: Option<Group<'a>>,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    match (own, group) {
        (own, None) => own.unwrap_or_default(),
        (own, Some(group)) => with_group(own.unwrap_or_default(), group, scratch),
    }
}

#[inline(never)]
fn with_group<'a>(own: &[u8], group: Group<'_>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    let pairs = match read_token(own, 0) {
        Some((Token::Map(n), next)) => Some((n, next)),
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
