//! Messages and bare records in the place of entries. Fluent Bit sometimes puts whole messages (`[tag,
//! entries]`) among the entries of another one, or in the place of its options. Their records are
//! gathered under their own tags. Simple clients leave out the time of an entry.

use std::sync::Arc;

use forward_protocol::frame::{Payload, messages};
use forward_protocol::msgpack::{write_array_len, write_nil, write_str};

use super::Gatherer;
use super::origin::MessageOrigin;
use super::sections::Section;
use super::tally::Tally;
use windrow_trace::PartId;

/// Messages that are nested deeper are bad entries.
const MAX_NESTING: u32 = 8;
/// Most that the number of a message adds to its time of reception (µs).
const MAX_ORDER: u32 = 999;

impl Gatherer {
    /// Gathers `bytes`, if they are a message or a record without a time: record `number` of the message that they are in.
    /// Compressed ones are not taken: a small message could become a large one twice.
    #[cold]
    #[inline(never)]
    pub(super) fn nested_message(
        &mut self,
        bytes: &[u8],
        number: u32,
        origin: &MessageOrigin<'_>,
        tally: &mut Tally,
    ) -> bool {
        let limits = self.settings.frame;
        let of_record;
        let (bytes, is_record) = match bytes.first() {
            Some(0x80..=0x8f | 0xde | 0xdf) => {
                of_record = message_of_record(bytes);
                (of_record.as_slice(), true)
            }
            _ => (bytes, false),
        };
        let Some(Ok(message)) = messages(bytes, limits)
            .next()
            .filter(|_| origin.nesting < MAX_NESTING)
        else {
            return false;
        };
        let Payload::Entries(mut entries) = message.payload(limits.depth) else {
            return false;
        };
        tally.nested += 1;
        let tag = String::from_utf8_lossy(message.tag);
        let tag: Arc<str> = match is_record {
            true => Arc::clone(origin.tag),
            false => format!("{}{tag}", self.settings.tag_prefix).into(),
        };
        // A part of its own, with numbers of its own, that is the same after a resend.
        let place = [&origin.part.0[..], &number.to_be_bytes()].concat();
        let (_, part) = PartId::of_chunk(message.tag, &place, message.body);
        // Keeps the order of lines with equal times.
        let received = origin.received.saturating_add(i64::from(number.min(MAX_ORDER)));
        let section = Section::default();
        let source = self.begin_section(part, received, section, &tag, origin.claim);
        let mut inner = MessageOrigin {
            source,
            part,
            section,
            received,
            tag: &tag,
            nesting: origin.nesting + 1,
            positions: &[],
            ..*origin
        };
        let mut position = 0;
        if let Some(bytes) = message.nested
            && self.nested_message(bytes, u32::MAX, &inner, tally)
        {
            tally.records += 1;
        }
        // Too many bad entries end the walk over the outer message as well.
        let _ended = self.entries(&mut entries, &mut inner, &mut position, tally);
        self.end(Some(inner.source));
        true
    }
}

/// A message with a record that has no time, for that of its reception.
fn message_of_record(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.len() + 3);
    write_array_len(&mut out, 3);
    write_str(&mut out, b"");
    write_nil(&mut out);
    out.extend_from_slice(record);
    out
}
