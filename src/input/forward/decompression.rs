//! Size checks of compressed payloads on a bounded number of threads.
//!
//! Owns the order of the checks. A short one runs where it is called. Longer ones wait in one of two
//! queues, by the size that the payload claims, so that large payloads do not hold up the others. A
//! payload that claims too little loses its turn and waits in the other queue.

use bytes::Bytes;
use forward_protocol::entries::{Compression, Decompressor, Oversize};

use crate::runtime::CpuPool;

/// Largest payload that is checked where the check is called.
const MAX_INLINE_BYTES: usize = 64 << 10;
/// Its largest output: a few milliseconds.
const MAX_INLINE_OUTPUT_BYTES: usize = 4 << 20;
/// Largest output of the payloads of the first queue.
const MAX_SMALL_OUTPUT_BYTES: usize = 8 << 20;
/// Deflate cannot make more than 1032 bytes out of one.
const MAX_DEFLATE_RATIO: usize = 1032;
/// Assumed where a payload claims no size.
const TYPICAL_RATIO: usize = 10;

/// Threads of the checks: as many large ones as half of the cores, and as many small ones.
#[derive(Debug, Default)]
pub struct DecompressionPool {
    small: CpuPool,
    large: CpuPool,
}

/// Checks that a payload decompresses to at most `limit` bytes, if that takes a few milliseconds at
/// most. `None`: [`DecompressionPool::check_size`] must check it.
pub(super) fn check_inline(
    decompressor: &mut Decompressor,
    compression: Compression,
    bytes: &[u8],
    limit: usize,
) -> Option<Result<(), Oversize>> {
    if compression == Compression::Gzip && bytes.len() <= limit / MAX_DEFLATE_RATIO {
        return Some(decompressor.check_size(compression, bytes, limit));
    }
    let claimed = claimed_output(compression, bytes);
    if bytes.len() >= MAX_INLINE_BYTES || claimed > MAX_INLINE_OUTPUT_BYTES {
        return None;
    }
    let checked = decompressor.check_size(compression, bytes, limit.min(MAX_INLINE_OUTPUT_BYTES));
    (checked.is_ok() || limit <= MAX_INLINE_OUTPUT_BYTES).then_some(checked)
}

impl DecompressionPool {
    /// Checks that a payload decompresses to at most `limit` bytes. Gives the payload back, so that
    /// its buffer is not shared when this returns.
    pub(super) async fn check_size(
        &self,
        compression: Compression,
        bytes: Bytes,
        limit: usize,
    ) -> (Bytes, Result<(), Oversize>) {
        let check = move |bytes: Bytes, limit| {
            // A decompressor of its own: that of the connection stays where it is.
            let checked = Decompressor::new().check_size(compression, &bytes, limit);
            (bytes, checked)
        };
        let mut bytes = bytes;
        if claimed_output(compression, &bytes) <= MAX_SMALL_OUTPUT_BYTES {
            let small = limit.min(MAX_SMALL_OUTPUT_BYTES);
            let (back, checked) = self.small.run(move || check(bytes, small)).await;
            if checked.is_ok() || limit <= MAX_SMALL_OUTPUT_BYTES {
                return (back, checked);
            }
            bytes = back;
        }
        self.large.run(move || check(bytes, limit)).await
    }
}

/// The output that a payload claims: in the trailer of the last gzip member (RFC 1952, 2.3.1), in
/// the header of the first zstd frame (RFC 8878, 3.1.1.1). Nothing proves it.
fn claimed_output(compression: Compression, bytes: &[u8]) -> usize {
    let claimed = match compression {
        Compression::Gzip => bytes
            .last_chunk()
            .map(|size| u64::from(u32::from_le_bytes(*size))),
        Compression::Zstd => zstd_content_size(bytes),
    };
    let claimed = claimed.and_then(|size| usize::try_from(size).ok());
    claimed.unwrap_or_else(|| bytes.len().saturating_mul(TYPICAL_RATIO))
}

fn zstd_content_size(bytes: &[u8]) -> Option<u64> {
    let descriptor = *bytes.get(4)?;
    let single_segment = descriptor & 0x20 != 0;
    let dictionary_id = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let rest = bytes.get(5 + usize::from(!single_segment) + dictionary_id..)?;
    match descriptor >> 6 {
        0 if single_segment => rest.first().map(|size| u64::from(*size)),
        0 => None,
        1 => rest
            .first_chunk()
            .map(|size| u64::from(u16::from_le_bytes(*size)) + 256),
        2 => rest
            .first_chunk()
            .map(|size| u64::from(u32::from_le_bytes(*size))),
        _ => rest.first_chunk().map(|size| u64::from_le_bytes(*size)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    const MIB: usize = 1 << 20;
    const LIMIT: usize = 128 * MIB;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    const BLOCK_BYTES: usize = 128 << 10;

    /// A zstd frame of `blocks` blocks, each the same byte 131072 times (RFC 8878, 3.1.1.2), with
    /// the content size in its header or without.
    fn zstd_zeros(blocks: usize, with_size: bool) -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd];
        let size = u32::try_from(blocks * BLOCK_BYTES).unwrap().to_le_bytes();
        // The window descriptor says 128 KiB.
        frame.extend_from_slice(if with_size { &[0x80, 0x38] } else { &[0x00, 0x38] });
        frame.extend_from_slice(if with_size { &size } else { &[] });
        for number in 1..=blocks {
            block(&mut frame, 1, &[0], number == blocks);
        }
        frame
    }

    /// A zstd frame of two blocks that are not compressed.
    fn zstd_raw() -> Vec<u8> {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
        block(&mut frame, 0, &[7; BLOCK_BYTES], false);
        block(&mut frame, 0, &[7; BLOCK_BYTES], true);
        frame
    }

    fn block(frame: &mut Vec<u8>, kind: u32, content: &[u8], last: bool) {
        let header = (BLOCK_BYTES as u32) << 3 | kind << 1 | u32::from(last);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(content);
    }

    async fn check(pool: &DecompressionPool, compression: Compression, bytes: &[u8], limit: usize) -> bool {
        if let Some(checked) = check_inline(&mut Decompressor::new(), compression, bytes, limit) {
            return checked.is_ok();
        }
        let bytes = Bytes::copy_from_slice(bytes);
        pool.check_size(compression, bytes, limit).await.1.is_ok()
    }

    #[test]
    fn claimed_sizes_are_read() {
        assert_eq!(claimed_output(Compression::Gzip, &gzip(&[7; 70_000])), 70_000);
        assert_eq!(claimed_output(Compression::Zstd, &zstd_zeros(8, true)), MIB);
        let without = zstd_zeros(8, false);
        assert_eq!(
            claimed_output(Compression::Zstd, &without),
            without.len() * TYPICAL_RATIO
        );
        // Single segment: the size has one byte, or two that count from 256.
        let size = |header: &[u8]| zstd_content_size(&[&[0x28, 0xb5, 0x2f, 0xfd], header].concat());
        assert_eq!(size(&[0x20, 200]), Some(200));
        assert_eq!(size(&[0x60, 1, 1]), Some(257 + 256));
        assert_eq!(
            size(&[0x61, 9, 1, 1]),
            Some(257 + 256),
            "after the id of a dictionary"
        );
        assert_eq!(size(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        for end in 0..9 {
            claimed_output(Compression::Zstd, &zstd_zeros(1, true)[..end]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_limit_holds_whatever_a_payload_claims() {
        let pool = DecompressionPool::default();
        let mut lying = gzip(&vec![7; 32 * MIB]);
        *lying.last_chunk_mut().unwrap() = 1u32.to_le_bytes();
        let zeros = [zstd_zeros(256, true), zstd_zeros(256, false)];
        for (compression, payload) in [
            (Compression::Gzip, &lying),
            (Compression::Zstd, &zeros[0]),
            (Compression::Zstd, &zeros[1]),
        ] {
            for (limit, fits) in [(32 * MIB, true), (32 * MIB - 1, false), (MIB, false)] {
                assert_eq!(check(&pool, compression, payload, limit).await, fits, "{limit}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn bombs_take_neither_threads_nor_turns_from_others() {
        let pool = Arc::new(DecompressionPool::default());
        let small = Arc::new(zstd_raw());
        let bomb = Arc::new(zstd_zeros(LIMIT >> 17, false));
        let stop = Arc::new(AtomicBool::new(false));
        let mut bombs = Vec::new();
        for _ in 0..300 {
            let (pool, bomb, stop) = (Arc::clone(&pool), Arc::clone(&bomb), Arc::clone(&stop));
            bombs.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    check(&pool, Compression::Zstd, &bomb, LIMIT).await;
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begin = Instant::now();
        let checked = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { check(&pool, Compression::Zstd, &small, LIMIT).await }
        });
        assert!(checked.await.unwrap());
        let (waited, threads) = (begin.elapsed(), own_threads());
        stop.store(true, Ordering::Relaxed);
        bombs.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        assert!(threads < 40, "{threads} threads");
    }

    fn own_threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }
}
