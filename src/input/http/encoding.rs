//! Content encodings: gzip, zstd and deflate, decompressed in steps within the budget of all receive
//! buffers, so that a bomb takes neither memory nor the threads of others.

use std::io::Read;

use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::{HeaderMap, header};

use super::answer::Problem;
use super::body::grow;
use super::work_pool::WorkPool;
use crate::input::forward::{Context, Reservation};

/// First step of decompression.
const MIN_STEP_BYTES: usize = 64 << 10;
/// Largest step: a few milliseconds.
const MAX_STEP_BYTES: usize = 2 << 20;
/// A longer output gets a buffer of the limit: one that grows would be there twice for a moment, and
/// what is not written takes no memory.
const MAX_GROWN_BYTES: usize = 1 << 20;
/// Smallest window that a zstd decoder must support (RFC 9659), as a power of two.
const MIN_ZSTD_WINDOW_LOG: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input) enum Encoding {
    Gzip,
    Zstd,
    Deflate,
}

impl Encoding {
    /// The encoding that the headers name.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut found = None;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let text = value.to_str().unwrap_or("?");
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                let encoding = Self::named(name)?;
                if found.is_some() && encoding.is_some() {
                    return Err(Problem::Unsupported(format!(
                        "the body is encoded twice ({text}); use one of gzip, zstd, deflate"
                    )));
                }
                found = found.or(encoding);
            }
        }
        Ok(found)
    }

    /// The encoding of this name; `None` for none.
    pub(in crate::input) fn named(name: &str) -> Result<Option<Self>, Problem> {
        match &*name.to_ascii_lowercase() {
            "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "zstd" => Ok(Some(Self::Zstd)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(Problem::Unsupported(format!(
                "Content-Encoding {name:?} is not known; use gzip, zstd, deflate or none"
            ))),
        }
    }

    fn reader(self, bytes: &[u8], limit: usize) -> std::io::Result<Box<dyn Read + Send + '_>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            // RFC 9110 means zlib; some clients send the bare stream.
            Self::Deflate if is_zlib(bytes) => Box::new(ZlibDecoder::new(bytes)),
            Self::Deflate => Box::new(DeflateDecoder::new(bytes)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)?;
                // A frame that was compressed in one piece has a window of its whole size. Memory of
                // a window is touched only as far as it is filled.
                let window = limit.max(1).ilog2() + 1;
                decoder.window_log_max(window.clamp(MIN_ZSTD_WINDOW_LOG, 30))?;
                Box::new(decoder)
            }
        })
    }
}

fn is_zlib(bytes: &[u8]) -> bool {
    match bytes {
        [first, second, ..] => first & 0x0f == 8 && (u32::from(*first) << 8 | u32::from(*second)) % 31 == 0,
        _ => false,
    }
}

/// Decompresses a body to at most `limit` bytes. `memory` counts the result besides `bytes`.
pub(super) async fn decompress(
    encoding: Encoding,
    bytes: &Bytes,
    limit: usize,
    context: &Context,
    work: &WorkPool,
    memory: &mut Reservation<'_>,
) -> Result<Bytes, Problem> {
    let damaged = |error: &std::io::Error| {
        Problem::Malformed(format!("the body is no valid {encoding:?} data: {error}"))
    };
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    let mut reader = encoding.reader(bytes, limit).map_err(|error| damaged(&error))?;
    // A zstd decoder keeps its window besides.
    let copies = if encoding == Encoding::Zstd { 2 } else { 1 };
    let mut out = Vec::new();
    loop {
        let step = out.len().clamp(MIN_STEP_BYTES, MAX_STEP_BYTES);
        // One byte beyond the limit shows that it is exceeded.
        let step = step.min(limit + 1 - out.len());
        let capacity = out.len() + step;
        grow(memory, bytes.len() + copies * capacity, context).await?;
        let begin = out.len();
        let read = work.run(step, || {
            if out.capacity() < out.len() + step {
                let grown = if capacity > MAX_GROWN_BYTES {
                    limit + 1
                } else {
                    capacity
                };
                out.reserve_exact(grown - out.len());
            }
            (&mut reader).take(step as u64).read_to_end(&mut out)
        });
        let read = read.await.map_err(|error| damaged(&error))?;
        if out.len() > limit {
            return Err(Problem::TooLarge {
                what: " when it is decompressed",
                limit,
            });
        }
        if read < step || out.len() == begin {
            return Ok(out.into());
        }
    }
}
