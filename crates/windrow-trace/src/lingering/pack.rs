//! The short form of a trace's lines, for while nobody looks at them.
//!
//! Owns the form: the headers of lines, a quarter of a usual trace, are cut to what usual lines need. It lives in memory
//! alone, so it has no version. It is read where it lies (`lines`), or made `Lines` again (`unpack`).
//!
//! ```text
//! 0 | time 8 | position 2 | text 2 | part 1 | shape 1                          a line of which only the text is left
//! 1 | time 8 | position 2 | text 2 | part 1 | shape 1 | record 2 | text at 2   one that is whole, without metadata
//! 2 | the header as it is                                                     any other
//! ```
//!
//! Each is followed by what stands behind the line's header.

use crate::document::content::Span;
use crate::open::lines::{HEADER, Head, Lines, NO_TEXT};

/// Bytes of a short header, with its first byte.
const SHORT: usize = 15;
/// Bytes that a whole line has more.
const MORE: usize = 4;
/// In a short header: no shape, no text.
const NO_SHAPE: u8 = u8::MAX;
const SHORT_NO_TEXT: u16 = u16::MAX;

/// What is needed beside the bytes of the short form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    bytes: u32,
    count: u32,
    /// Bytes of the records as they came; they had room for less than 4 GiB.
    received: u32,
}

impl Packed {
    /// How many lines it is.
    pub(crate) fn len(&self) -> u32 {
        self.count
    }
}

/// Appends the short form of the lines to `out`.
pub(crate) fn pack(lines: &Lines, out: &mut Vec<u8>) -> Packed {
    for (head, body) in lines.raw() {
        match short(&head) {
            Some(bytes) if head.record > 0 => {
                let [a, b] = (head.record as u16).to_le_bytes();
                let [c, d] = (head.text.at as u16).to_le_bytes();
                let mut whole = [0; SHORT + MORE];
                whole[..SHORT].copy_from_slice(&bytes);
                whole[SHORT..].copy_from_slice(&[a, b, c, d]);
                out.extend_from_slice(&whole);
            }
            Some(bytes) => out.extend_from_slice(&bytes),
            None => {
                out.push(2);
                out.extend_from_slice(&head.encode());
            }
        }
        out.extend_from_slice(body);
    }
    Packed {
        bytes: lines.buffer().len() as u32,
        count: lines.len(),
        received: u32::try_from(lines.received()).unwrap_or(u32::MAX),
    }
}

/// The short header of a line that can have one.
#[inline]
fn short(head: &Head) -> Option<[u8; SHORT]> {
    let shape = match head.shape {
        u32::MAX => NO_SHAPE,
        shape => u8::try_from(shape).ok().filter(|shape| *shape != NO_SHAPE)?,
    };
    let text = match head.text.len {
        NO_TEXT => SHORT_NO_TEXT,
        length => u16::try_from(length).ok().filter(|text| *text != SHORT_NO_TEXT)?,
    };
    u16::try_from(head.record).ok()?;
    u16::try_from(head.text.at).ok()?;
    let position = u16::try_from(head.position).ok()?;
    if head.metadata > 0 {
        return None;
    }
    let mut bytes = [0; SHORT];
    bytes[0] = u8::from(head.record > 0);
    bytes[1..9].copy_from_slice(&head.time.to_le_bytes());
    bytes[9..11].copy_from_slice(&position.to_le_bytes());
    bytes[11..13].copy_from_slice(&text.to_le_bytes());
    bytes[13] = u8::try_from(head.part).ok()?;
    bytes[14] = shape;
    Some(bytes)
}

/// The lines in the short form, and where in `bytes` stands what is behind each header.
pub(crate) fn lines<'a>(packed: &Packed, bytes: &'a [u8]) -> impl Iterator<Item = (Head, usize)> + use<'a> {
    let mut at = 0;
    (0..packed.count).map_while(move |_| {
        let (head, body) = header(bytes, at)?;
        at = body + head.body();
        Some((head, body))
    })
}

/// The header at a byte, and where it ends.
#[inline]
fn header(bytes: &[u8], at: usize) -> Option<(Head, usize)> {
    let kind = *bytes.get(at)?;
    if kind == 2 {
        let head = Head::decode(bytes.get(at + 1..)?.first_chunk()?);
        return Some((head, at + 1 + HEADER));
    }
    let short: &[u8; SHORT] = bytes.get(at..)?.first_chunk()?;
    let word = |at: usize| u16::from_le_bytes([short[at], short[at + 1]]);
    let text = word(11);
    let mut head = Head {
        time: i64::from_le_bytes(*short[1..9].first_chunk()?),
        part: u32::from(short[13]),
        position: u32::from(word(9)),
        shape: match short[14] {
            NO_SHAPE => u32::MAX,
            shape => u32::from(shape),
        },
        record: 0,
        metadata: 0,
        text: Span {
            at: 0,
            len: match text {
                SHORT_NO_TEXT => NO_TEXT,
                length => u32::from(length),
            },
        },
    };
    let mut end = at + SHORT;
    if kind == 1 {
        let more: &[u8; MORE] = bytes.get(end..)?.first_chunk()?;
        head.record = u32::from(u16::from_le_bytes([more[0], more[1]]));
        head.text.at = u32::from(u16::from_le_bytes([more[2], more[3]]));
        end += MORE;
    }
    Some((head, end))
}

/// The lines as they were when they were packed; `bytes` begins with their short form.
pub(crate) fn unpack(packed: &Packed, bytes: &[u8]) -> Option<Lines> {
    let mut all = Lines::new(packed.bytes as usize);
    for (head, body) in lines(packed, bytes) {
        all.push_raw(&head, bytes.get(body..body + head.body())?);
    }
    all.set_received(packed.received as usize);
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::document::shape::ShapeId;
    use crate::open::lines::NewLine;

    /// Of the kind that short headers take, and just not.
    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0..200u32, 1 => 65_530..65_540u32, 1 => any::<u32>()]
    }

    fn size() -> impl Strategy<Value = usize> {
        prop_oneof![3 => Just(0), 1 => 1..5usize]
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            lines in prop::collection::vec(
                (any::<i64>(), number(), number(), prop_oneof![0..3u32, 250..260u32], 1..400usize, size(), any::<bool>()),
                0..30,
            ),
            behind in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut before = Lines::new(1);
            for (number, &(time, part, position, shape, record, metadata, text)) in lines.iter().enumerate() {
                let whole = vec![number as u8; record];
                before.push(&NewLine {
                    // Some are newer than the one before, which is stripped then.
                    time: if number % 3 == 0 { time } else { i64::MAX },
                    part,
                    position,
                    shape: ShapeId::from_u32(shape.wrapping_sub(1)),
                    record: &whole,
                    metadata: &vec![255; metadata],
                    text: text.then(|| &whole[record / 2..record / 2 + record / 3]),
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
