//! Decompressing payloads: several gzip members or zstd frames in one payload, a limit on what comes out, and
//! whatever was decoded before a defect.
//!
//! A payload is not decoded all at once on trust: the output grows with what really comes out and stops at the limit.
//! Walking what comes out piece by piece, so that it is never there as a whole, is in `pieces`.

use std::ops::ControlFlow;

/// How a payload is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// Zstandard (RFC 8878), one or more frames.
    Zstd,
}

impl Compression {
    /// What the first bytes say. Neither magic can begin a stream of entries.
    #[inline]
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What came out of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decompressed {
    /// Everything that could be decoded, from the start up to the defect if there is one.
    pub bytes: Vec<u8>,
    /// What is wrong with the payload.
    pub damage: Option<Damage>,
}

/// What is wrong with a compressed payload, and where in the compressed bytes it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The compressed data is not what its format demands.
    #[error("the compressed data is corrupt near byte {at}")]
    Corrupt {
        /// Where, in the compressed bytes.
        at: usize,
    },
    /// The data was decoded but its checksum or length does not agree: some of it may be wrong.
    #[error("the checksum of the compressed data that ends at byte {at} does not agree")]
    Checksum {
        /// Where the member ends, in the compressed bytes.
        at: usize,
    },
    /// The compressed data ends too early.
    #[error("the compressed data ends too early")]
    Truncated,
    /// Bytes other than zero stand behind the last gzip member. What stands before them is complete.
    #[error("{len} bytes that belong to nothing stand behind the compressed data, from byte {at} on")]
    Trailing {
        /// Where they begin, in the compressed bytes.
        at: usize,
        /// How many there are.
        len: usize,
    },
    /// This build cannot read the format: the crate's feature is off.
    #[error("this build cannot read {0:?}")]
    Unsupported(Compression),
}

/// More comes out of the payload than the limit allows. Decoding stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the payload of {compressed} bytes decompresses to more than the limit of {limit} bytes")]
pub struct Oversize {
    /// Length of the compressed payload.
    pub compressed: usize,
    /// The limit.
    pub limit: usize,
}

/// Decompresses a payload; at most `limit` bytes may come out. To decompress many payloads keep a [`Decompressor`].
///
/// # Errors
/// [`Oversize`] as soon as more than `limit` bytes would come out. Damage is no error: see [`Decompressed::damage`].
pub fn decompress(compression: Compression, bytes: &[u8], limit: usize) -> Result<Decompressed, Oversize> {
    Decompressor::new().decompress(compression, bytes, limit)
}

/// Decompresses payloads one after the other and keeps its working memory between them.
#[derive(Default)]
pub struct Decompressor {
    #[cfg(feature = "gzip")]
    inflate: Option<flate2::Decompress>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

/// Deflate cannot make more than 1032 bytes out of one (a run of 258 bytes takes at least 2 bits).
const DEFLATE_RATIO: usize = 1032;

impl Decompressor {
    /// A decompressor without working memory; it is made when first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses a payload; at most `limit` bytes may come out.
    ///
    /// # Errors
    /// [`Oversize`]; see [`decompress`].
    pub fn decompress(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Decompressed, Oversize> {
        let mut out = Output::new(Vec::new(), Keep::All, limit);
        // A guess that saves most regrowing, from bytes that are really there.
        out.bytes
            .reserve(bytes.len().saturating_mul(4).min(limit).min(8 << 20));
        let compressed = bytes.len();
        let outcome = self.run(compression, bytes, &mut out);
        let damage = outcome.map_err(|Stop| Oversize { compressed, limit })?;
        Ok(Decompressed {
            bytes: out.bytes,
            damage,
        })
    }

    /// Makes sure that at most `limit` bytes will come out, without keeping them. Costs nothing when the length of
    /// the payload already proves it, as it does for gzip below a thousandth of the limit.
    ///
    /// # Errors
    /// [`Oversize`]. Damage is not reported here; of a damaged payload [`Decompressor::decompress`] may salvage some
    /// more or less than was counted here.
    pub fn check_size(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        limit: usize,
    ) -> Result<(), Oversize> {
        if compression == Compression::Gzip && bytes.len() <= limit / DEFLATE_RATIO {
            return Ok(());
        }
        let scratch = std::mem::take(&mut self.scratch);
        let mut out = Output::new(scratch, Keep::Nothing, limit);
        let outcome = self.run(compression, bytes, &mut out);
        self.scratch = out.bytes;
        let compressed = bytes.len();
        outcome.map(|_| ()).map_err(|Stop| Oversize { compressed, limit })
    }

    /// Gives what comes out to `take` whenever there is so much that `take` wants it: it removes what it has done with
    /// from the front, and says how many bytes it wants to see next time, more than it has left. `None` when it wanted
    /// no more; otherwise what is left at the end, and the damage.
    pub(super) fn in_pieces(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        first: usize,
        take: &mut Take<'_>,
    ) -> Option<(Vec<u8>, Option<Damage>)> {
        let keep = Keep::Pieces { next: first, take };
        let mut out = Output::new(std::mem::take(&mut self.scratch), keep, usize::MAX);
        out.bytes.clear();
        let outcome = self.run(compression, bytes, &mut out);
        let rest = out.bytes;
        outcome.ok().map(|damage| (rest, damage))
    }

    /// Keeps this memory for the next payload, if it is not too much.
    pub(super) fn recycle(&mut self, scratch: Vec<u8>) {
        if scratch.capacity() <= KEPT {
            self.scratch = scratch;
        }
    }

    #[cfg(all(test, feature = "gzip"))]
    pub(super) fn kept(&self) -> usize {
        self.scratch.capacity()
    }

    fn run(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        out: &mut Output<'_, '_>,
    ) -> Result<Option<Damage>, Stop> {
        match compression {
            #[cfg(feature = "gzip")]
            Compression::Gzip => gzip(
                self.inflate.get_or_insert_with(|| flate2::Decompress::new(false)),
                bytes,
                out,
            ),
            #[cfg(feature = "zstd")]
            Compression::Zstd => zstandard(bytes, out),
            #[cfg(not(all(feature = "gzip", feature = "zstd")))]
            other => {
                let _ = (bytes, out);
                Ok(Some(Damage::Unsupported(other)))
            }
        }
    }
}

/// The most memory that is kept from one payload to the next.
const KEPT: usize = 4 << 20;

/// Takes from the front of what is decoded; see [`Decompressor::in_pieces`].
pub(super) type Take<'t> = dyn FnMut(&mut Vec<u8>) -> ControlFlow<(), usize> + 't;

/// Where decoded bytes go, and how many more may come.
#[cfg_attr(
    not(any(feature = "gzip", feature = "zstd")),
    expect(dead_code, reason = "without any format nothing is decoded")
)]
struct Output<'o, 't> {
    bytes: Vec<u8>,
    keep: Keep<'o, 't>,
    /// Decoded so far.
    total: usize,
    limit: usize,
}

/// What is to be done with decoded bytes.
#[cfg_attr(
    not(any(feature = "gzip", feature = "zstd")),
    expect(dead_code, reason = "without any format nothing is decoded")
)]
enum Keep<'o, 't> {
    All,
    /// They are only counted.
    Nothing,
    /// They are taken as soon as there are `next`.
    Pieces {
        next: usize,
        take: &'o mut Take<'t>,
    },
}

/// More than the limit came out, or enough for whoever takes pieces.
#[cfg_attr(
    not(any(feature = "gzip", feature = "zstd")),
    expect(dead_code, reason = "without any format nothing is decoded")
)]
struct Stop;

impl<'o, 't> Output<'o, 't> {
    fn new(bytes: Vec<u8>, keep: Keep<'o, 't>, limit: usize) -> Self {
        Self {
            bytes,
            keep,
            total: 0,
            limit,
        }
    }
}

#[cfg(any(feature = "gzip", feature = "zstd"))]
impl Output<'_, '_> {
    /// Makes room for more: at least one byte, so that too much output is noticed as such.
    fn make_room(&mut self) {
        /// How many bytes are made room for at a time.
        const STEP: usize = 64 << 10;
        if matches!(self.keep, Keep::Nothing) {
            self.bytes.clear();
        }
        if self.bytes.capacity() - self.bytes.len() < STEP / 4 {
            let allowed = self.limit.saturating_sub(self.total).saturating_add(1);
            self.bytes.reserve_exact(self.bytes.len().max(STEP).min(allowed));
        }
    }

    fn came(&mut self, n: usize) -> Result<(), Stop> {
        self.total = self.total.saturating_add(n);
        if self.total > self.limit {
            return Err(Stop);
        }
        match &mut self.keep {
            Keep::Pieces { next, take } if self.bytes.len() >= *next => match take(&mut self.bytes) {
                ControlFlow::Continue(wanted) => {
                    *next = wanted;
                    Ok(())
                }
                ControlFlow::Break(()) => Err(Stop),
            },
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "gzip")]
fn gzip(
    inflate: &mut flate2::Decompress,
    bytes: &[u8],
    out: &mut Output<'_, '_>,
) -> Result<Option<Damage>, Stop> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        // Some writers pad to a block with zeros (tar and tape habits): no harm.
        if rest.iter().all(|byte| *byte == 0) {
            break;
        }
        let Some(header) = gzip_header(rest) else {
            let damage = if at > 0 && !rest.starts_with(&[0x1f, 0x8b]) {
                Damage::Trailing { at, len: rest.len() }
            } else if rest.len() < 18 {
                Damage::Truncated
            } else {
                Damage::Corrupt { at }
            };
            return Ok(Some(damage));
        };
        at += header;
        inflate.reset(false);
        let mut crc = flate2::Crc::new();
        loop {
            out.make_room();
            let before = out.bytes.len();
            let taken = inflate.total_in();
            let input = bytes.get(at..).unwrap_or_default();
            let status = inflate.decompress_vec(input, &mut out.bytes, flate2::FlushDecompress::None);
            let decoded = out.bytes.get(before..).unwrap_or_default();
            crc.update(decoded);
            let (progress, taken) = (decoded.len(), (inflate.total_in() - taken) as usize);
            at += taken;
            out.came(progress)?;
            match status {
                Ok(flate2::Status::StreamEnd) => break,
                Ok(_) if progress == 0 && taken == 0 => return Ok(Some(Damage::Truncated)),
                Ok(_) => {}
                Err(_) => return Ok(Some(Damage::Corrupt { at })),
            }
        }
        let Some(trailer) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return Ok(Some(Damage::Truncated));
        };
        at += trailer.len();
        let [a, b, c, d, e, f, g, h] = *trailer;
        if u32::from_le_bytes([a, b, c, d]) != crc.sum() || u32::from_le_bytes([e, f, g, h]) != crc.amount() {
            return Ok(Some(Damage::Checksum { at }));
        }
    }
    Ok(None)
}

/// The length of the gzip member header at the front of `bytes` (RFC 1952, section 2.3); `None` when it is not whole
/// or none.
#[cfg(feature = "gzip")]
fn gzip_header(bytes: &[u8]) -> Option<usize> {
    const FHCRC: u8 = 2;
    const FEXTRA: u8 = 4;
    const FNAME: u8 = 8;
    const FCOMMENT: u8 = 16;
    let [0x1f, 0x8b, 8, flags, ..] = *bytes else {
        return None;
    };
    let mut at = 10;
    if flags & FEXTRA != 0 {
        let len = bytes.get(at..)?.first_chunk::<2>()?;
        at += 2 + usize::from(u16::from_le_bytes(*len));
    }
    for flag in [FNAME, FCOMMENT] {
        if flags & flag != 0 {
            at += bytes.get(at..)?.iter().position(|byte| *byte == 0)? + 1;
        }
    }
    if flags & FHCRC != 0 {
        at += 2;
    }
    (at <= bytes.len()).then_some(at)
}

#[cfg(feature = "zstd")]
fn zstandard(bytes: &[u8], out: &mut Output<'_, '_>) -> Result<Option<Damage>, Stop> {
    use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

    let Ok(mut decoder) = Decoder::new() else {
        return Ok(Some(Damage::Corrupt { at: 0 }));
    };
    let mut input = InBuffer::around(bytes);
    let mut whole = true;
    while input.pos() < bytes.len() || !whole {
        out.make_room();
        let before = out.bytes.len();
        let taken = input.pos();
        let status = {
            // Writes into the spare room of the Vec, behind what is there.
            let mut buffer = OutBuffer::around_pos(&mut out.bytes, before);
            decoder.run(&mut input, &mut buffer)
        };
        let progress = out.bytes.len() - before;
        out.came(progress)?;
        match status {
            // 0 says that a frame is complete and all of it has come out.
            Ok(hint) => whole = hint == 0,
            Err(_) => return Ok(Some(Damage::Corrupt { at: input.pos() })),
        }
        if progress == 0 && input.pos() == taken {
            return Ok(Some(Damage::Truncated));
        }
        if whole && input.pos() < bytes.len() && decoder.reinit().is_err() {
            return Ok(Some(Damage::Corrupt { at: input.pos() }));
        }
    }
    Ok(None)
}
