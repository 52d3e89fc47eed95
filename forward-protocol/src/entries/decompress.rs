//! [`Decompressor`]: gzip and zstd payloads, with several members or frames and a limit on the
//! output.
//!
//! Output before a defect is kept.
//!
//! The output buffer grows with the actual output and never beyond the limit. The streaming walk
//! over the entries is in `pieces`.

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
    /// Detects the format by its magic number, which cannot begin a stream of entries.
    #[inline]
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x1f, 0x8b, ..] => Some(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The output of a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decompressed {
    /// The decoded bytes, up to the defect if there is one.
    pub bytes: Vec<u8>,
    /// The damage of the payload, if any.
    pub damage: Option<Damage>,
}

/// Damage of a compressed payload, and where in the compressed bytes it was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The compressed data violates its format.
    #[error("the compressed data is corrupt near byte {at}")]
    Corrupt {
        /// Where, in the compressed bytes.
        at: usize,
    },
    /// The data was decoded but its checksum or length does not match: some of it may be wrong.
    #[error("the checksum of the compressed data that ends at byte {at} does not match")]
    Checksum {
        /// Where the member ends, in the compressed bytes.
        at: usize,
    },
    /// The compressed data ends too early.
    #[error("the compressed data ends too early")]
    Truncated,
    /// Bytes other than zero follow the last gzip member. The data before them is complete.
    #[error("{len} bytes of garbage follow the compressed data at byte {at}")]
    Trailing {
        /// Where they begin, in the compressed bytes.
        at: usize,
        /// How many there are.
        len: usize,
    },
    /// This build does not support the format: the crate's feature is off.
    #[error("this build does not support {0:?}")]
    Unsupported(Compression),
}

/// The payload decompresses to more than the limit. Decoding stopped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the payload of {compressed} bytes decompresses to more than the limit of {limit} bytes")]
pub struct Oversize {
    /// Length of the compressed payload.
    pub compressed: usize,
    /// The limit.
    pub limit: usize,
}

/// Decompresses a payload to at most `limit` bytes. For many payloads keep a [`Decompressor`].
///
/// # Errors
/// [`Oversize`] as soon as the output exceeds `limit` bytes. Damage is not an error: see
/// [`Decompressed::damage`].
pub fn decompress(compression: Compression, bytes: &[u8], limit: usize) -> Result<Decompressed, Oversize> {
    Decompressor::new().decompress(compression, bytes, limit)
}

/// Decompresses payloads and reuses its working memory between them.
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
    /// A decompressor; it allocates its working memory when first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses a payload to at most `limit` bytes.
    ///
    /// # Errors
    /// [`Oversize`]; see [`decompress`].
    pub fn decompress(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Decompressed, Oversize> {
        let mut out = Output::new(Vec::new(), Sink::Collect, limit);
        // An estimate from the received length that avoids most reallocations.
        out.bytes
            .reserve(bytes.len().saturating_mul(4).min(limit).min(8 << 20));
        let compressed = bytes.len();
        let outcome = self.run(compression, bytes, &mut out);
        let damage = outcome.map_err(|Stopped| Oversize { compressed, limit })?;
        Ok(Decompressed {
            bytes: out.bytes,
            damage,
        })
    }

    /// Checks that the output is at most `limit` bytes, without keeping it. Free when the length of
    /// the payload already proves it, as for gzip below a thousandth of the limit.
    ///
    /// # Errors
    /// [`Oversize`]. Damage is not reported here; for a damaged payload
    /// [`Decompressor::decompress`] may return slightly more or less than was counted here.
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
        let mut out = Output::new(scratch, Sink::Count, limit);
        let outcome = self.run(compression, bytes, &mut out);
        self.scratch = out.bytes;
        let compressed = bytes.len();
        outcome
            .map(|_| ())
            .map_err(|Stopped| Oversize { compressed, limit })
    }

    /// Streams the output to `consume`, which is called once `first` bytes are there. It removes
    /// what it has consumed from the front and returns the length at which it wants to be called
    /// again, more than it left. `None` when it broke; otherwise the unconsumed rest, and the
    /// damage.
    pub(super) fn stream(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        first: usize,
        consume: &mut Consumer<'_>,
    ) -> Option<(Vec<u8>, Option<Damage>)> {
        let sink = Sink::Stream { next: first, consume };
        let mut out = Output::new(std::mem::take(&mut self.scratch), sink, usize::MAX);
        out.bytes.clear();
        let outcome = self.run(compression, bytes, &mut out);
        let rest = out.bytes;
        outcome.ok().map(|damage| (rest, damage))
    }

    /// Keeps this buffer for the next payload, up to [`MAX_RETAINED_BYTES`].
    pub(super) fn recycle(&mut self, scratch: Vec<u8>) {
        if scratch.capacity() <= MAX_RETAINED_BYTES {
            self.scratch = scratch;
        }
    }

    #[cfg(all(test, feature = "gzip"))]
    pub(super) fn retained_bytes(&self) -> usize {
        self.scratch.capacity()
    }

    fn run(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        out: &mut Output<'_, '_>,
    ) -> Result<Option<Damage>, Stopped> {
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

/// The largest buffer that is kept from one payload to the next.
const MAX_RETAINED_BYTES: usize = 4 << 20;

/// Consumes decoded bytes from the front; see [`Decompressor::stream`].
pub(super) type Consumer<'t> = dyn FnMut(&mut Vec<u8>) -> ControlFlow<(), usize> + 't;

/// The output buffer, what happens to its bytes, and the limit.
#[cfg_attr(
    not(any(feature = "gzip", feature = "zstd")),
    expect(dead_code, reason = "without any format nothing is decoded")
)]
struct Output<'o, 't> {
    bytes: Vec<u8>,
    sink: Sink<'o, 't>,
    /// Bytes decoded so far.
    total: usize,
    limit: usize,
}

/// What happens to decoded bytes.
#[cfg_attr(
    not(any(feature = "gzip", feature = "zstd")),
    expect(dead_code, reason = "without any format nothing is decoded")
)]
enum Sink<'o, 't> {
    Collect,
    /// Only counted.
    Count,
    /// Passed to `consume` once `next` bytes are there.
    Stream {
        next: usize,
        consume: &'o mut Consumer<'t>,
    },
}

/// The limit was exceeded, or the consumer broke.
struct Stopped;

impl<'o, 't> Output<'o, 't> {
    fn new(bytes: Vec<u8>, sink: Sink<'o, 't>, limit: usize) -> Self {
        Self {
            bytes,
            sink,
            total: 0,
            limit,
        }
    }
}

#[cfg(any(feature = "gzip", feature = "zstd"))]
impl Output<'_, '_> {
    /// Reserves room for at least one byte, so that exceeding the limit is detected.
    fn make_room(&mut self) {
        /// Bytes reserved at a time.
        const STEP_BYTES: usize = 64 << 10;
        if matches!(self.sink, Sink::Count) {
            self.bytes.clear();
        }
        if self.bytes.capacity() - self.bytes.len() < STEP_BYTES / 4 {
            let allowed = self.limit.saturating_sub(self.total).saturating_add(1);
            self.bytes
                .reserve_exact(self.bytes.len().max(STEP_BYTES).min(allowed));
        }
    }

    fn produced(&mut self, n: usize) -> Result<(), Stopped> {
        self.total = self.total.saturating_add(n);
        if self.total > self.limit {
            return Err(Stopped);
        }
        match &mut self.sink {
            Sink::Stream { next, consume } if self.bytes.len() >= *next => match consume(&mut self.bytes) {
                ControlFlow::Continue(wanted) => {
                    *next = wanted;
                    Ok(())
                }
                ControlFlow::Break(()) => Err(Stopped),
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
) -> Result<Option<Damage>, Stopped> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        // Some writers pad with zeros to a block.
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
            out.produced(progress)?;
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

/// The length of the gzip member header at the front of `bytes` (RFC 1952, section 2.3); `None`
/// when it is truncated or absent.
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
fn zstandard(bytes: &[u8], out: &mut Output<'_, '_>) -> Result<Option<Damage>, Stopped> {
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
            // Writes into the spare capacity of the Vec.
            let mut buffer = OutBuffer::around_pos(&mut out.bytes, before);
            decoder.run(&mut input, &mut buffer)
        };
        let progress = out.bytes.len() - before;
        out.produced(progress)?;
        match status {
            // 0: a frame is complete and flushed.
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
