//! The short form of a trace's lines, for while nobody looks at them.
//!
//! Owns the form. It says only what cannot be told from the line before, so that the headers of lines, a quarter of a
//! usual trace, nearly vanish. It lives in memory alone: it has no version, and nothing in it is checked twice.

use super::lines::{Head, Lines, NO_TEXT, Span};

/// What is needed beside the bytes of the short form.
#[derive(Debug)]
pub(super) struct Packed {
    /// Bytes of the lines in their usual form.
    bytes: u32,
    count: u32,
    received: usize,
}

/// Appends the short form of the lines to `out`.
pub(super) fn pack(lines: &Lines, out: &mut Vec<u8>) -> Packed {
    let (mut time, mut position) = (0i64, 0u32);
    for (head, body) in lines.raw() {
        put(out, zigzag(head.time.wrapping_sub(time)));
        put(out, u64::from(head.part));
        put(out, u64::from(head.position.wrapping_sub(position)));
        put(out, u64::from(head.shape.wrapping_add(1)));
        put(out, u64::from(head.record));
        put(out, u64::from(head.metadata));
        put(out, u64::from(head.text.len.wrapping_add(1)));
        if head.record > 0 && head.text.len != NO_TEXT {
            put(out, u64::from(head.text.at));
        }
        out.extend_from_slice(body);
        (time, position) = (head.time, head.position);
    }
    Packed {
        bytes: lines.buffer().len() as u32,
        count: lines.len(),
        received: lines.received(),
    }
}

/// The lines as they were when they were packed; `bytes` begins with their short form.
pub(super) fn unpack(packed: &Packed, bytes: &[u8]) -> Option<Lines> {
    let mut lines = Lines::new(packed.bytes as usize, 0);
    let mut from = Cursor { bytes, at: 0 };
    let (mut time, mut position) = (0i64, 0u32);
    for _ in 0..packed.count {
        time = time.wrapping_add(unzigzag(from.varint()?));
        let part = from.varint()? as u32;
        position = position.wrapping_add(from.varint()? as u32);
        let shape = (from.varint()? as u32).wrapping_sub(1);
        let record = from.varint()? as u32;
        let metadata = from.varint()? as u32;
        let length = (from.varint()? as u32).wrapping_sub(1);
        let at = if record > 0 && length != NO_TEXT {
            from.varint()? as u32
        } else {
            0
        };
        let head = Head {
            time,
            part,
            position,
            shape,
            record,
            metadata,
            text: Span { at, len: length },
        };
        let body = bytes.get(from.at..from.at + head.body())?;
        from.at += body.len();
        lines.push_raw(&head, body);
    }
    lines.set_received(packed.received);
    Some(lines)
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift = (shift + 7) & 63;
        }
    }
}

#[inline]
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::lines::NewLine;
    use super::super::shape::ShapeId;
    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            lines in prop::collection::vec(
                (any::<i64>(), any::<u32>(), any::<u32>(), 0..3u32, 1..400usize, 0..5usize, any::<bool>()),
                0..30,
            ),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut before = Lines::new(1, 0);
            for (number, &(time, part, position, shape, record, metadata, text)) in lines.iter().enumerate() {
                before.push(&NewLine {
                    // Some are newer than the one before, which is stripped then.
                    time: if number % 3 == 0 { time } else { i64::MAX },
                    part: part % 3,
                    position,
                    shape: ShapeId::from_u32(shape.wrapping_sub(1)),
                    record: &vec![number as u8; record],
                    metadata: &vec![255; metadata],
                    text: text.then(|| Span::new(record / 2, record / 3)),
                });
            }
            let mut bytes = b"before".to_vec();
            let packed = pack(&before, &mut bytes);
            bytes.extend_from_slice(&behind);
            let mut after = unpack(&packed, &bytes[6..]).unwrap();
            prop_assert_eq!(after.buffer(), before.buffer());
            prop_assert_eq!((after.len(), after.received()), (before.len(), before.received()));
            // And they go on as if nothing had been.
            for lines in [&mut before, &mut after] {
                lines.push(&NewLine {
                    time: i64::MAX,
                    part: 2,
                    position: u32::MAX,
                    shape: ShapeId::from_u32(0),
                    record: b"one more",
                    metadata: b"",
                    text: None,
                });
            }
            prop_assert_eq!(after.buffer(), before.buffer());
        }
    }
}
