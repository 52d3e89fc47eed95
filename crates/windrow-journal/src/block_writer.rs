//! Buffer that writes commits as whole blocks, as direct I/O (`O_DIRECT`) requires.
//!
//! Owns the bytes of the block in which the last commit ended. The next commit writes that block
//! again: its durable bytes are the same each time, so they survive whatever part of the write a
//! crash leaves. The last block is padded with zeros. Block-aligned payloads are written without a
//! copy. Does not sync.

use std::io::{self, IoSlice};

use bytes::Bytes;

use crate::storage::{BLOCK_BYTES, StorageFile, write_all_at};

/// A commit larger than this is written in several parts.
const MAX_BUFFER_BYTES: usize = 1 << 20;
/// Initial size; enough for commits of single messages.
const MIN_BUFFER_BYTES: usize = 4 * BLOCK_BYTES;
/// Payloads written without a copy in one write.
const MAX_UNCOPIED_SLICES: usize = 64;

/// Whole blocks of a payload that are written without a copy.
struct UncopiedSlice {
    /// They follow this many buffered bytes, a multiple of a block.
    buffered_before: usize,
    bytes: Bytes,
}

pub(crate) struct BlockWriter {
    /// One block longer than its capacity: the first aligned byte is where the buffer starts.
    memory: Vec<u8>,
    /// File offset of the first byte that is not written yet, a multiple of a block.
    offset: u64,
    /// Buffered bytes.
    filled: usize,
    /// Ascending by `buffered_before`.
    uncopied: Vec<UncopiedSlice>,
    /// The file is open for direct I/O.
    direct: bool,
}

impl BlockWriter {
    /// For a file that is written from its first byte.
    pub(crate) fn new(direct: bool) -> Self {
        Self {
            memory: vec![0; MIN_BUFFER_BYTES + BLOCK_BYTES],
            offset: 0,
            filled: 0,
            uncopied: Vec::new(),
            direct,
        }
    }

    /// False once the file system has refused direct I/O.
    pub(crate) fn direct(&self) -> bool {
        self.direct
    }

    /// Buffers `bytes`; writes when the buffer is full.
    pub(crate) fn put(&mut self, file: &mut dyn StorageFile, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.reserve(bytes.len());
            if room == 0 {
                self.write(file, self.filled)?;
                self.filled = 0;
                continue;
            }
            let (fitting, rest) = bytes.split_at(room.min(bytes.len()));
            let filled = self.filled;
            self.aligned()[filled..filled + fitting.len()].copy_from_slice(fitting);
            self.filled += fitting.len();
            bytes = rest;
        }
        Ok(())
    }

    /// Puts bytes that are block-aligned in memory at the next block of the file, with zeros before
    /// them and without copying their whole blocks.
    pub(crate) fn put_aligned(&mut self, file: &mut dyn StorageFile, bytes: &Bytes) -> io::Result<()> {
        let padding = self.filled.next_multiple_of(BLOCK_BYTES) - self.filled;
        if padding > 0 {
            self.put(file, &[0; BLOCK_BYTES][..padding])?;
        }
        if self.uncopied.len() == MAX_UNCOPIED_SLICES {
            self.write(file, self.filled)?;
            self.filled = 0;
        }
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        self.uncopied.push(UncopiedSlice {
            buffered_before: self.filled,
            bytes: bytes.slice(..whole),
        });
        self.put(file, &bytes[whole..])
    }

    /// Ends the commit: writes everything, and keeps the bytes of a last block that is not full.
    pub(crate) fn finish(&mut self, file: &mut dyn StorageFile) -> io::Result<()> {
        let (filled, whole) = (self.filled, self.filled.next_multiple_of(BLOCK_BYTES));
        self.aligned()[filled..whole].fill(0);
        self.write(file, whole)?;
        let tail = filled % BLOCK_BYTES;
        self.aligned().copy_within(filled - tail..filled, 0);
        self.filled = tail;
        if tail > 0 {
            // The next commit writes this block again.
            self.offset -= BLOCK_BYTES as u64;
        }
        Ok(())
    }

    /// Grows the buffer for `more` bytes, up to its limit; returns the free bytes.
    fn reserve(&mut self, more: usize) -> usize {
        let size = self.memory.len() - BLOCK_BYTES;
        let wanted = (self.filled + more).min(MAX_BUFFER_BYTES);
        if size < wanted {
            let filled = aligned(&mut self.memory)[..self.filled].to_vec();
            let size = wanted.next_power_of_two().min(MAX_BUFFER_BYTES);
            self.memory = vec![0; size + BLOCK_BYTES];
            self.aligned()[..filled.len()].copy_from_slice(&filled);
        }
        self.memory.len() - BLOCK_BYTES - self.filled
    }

    fn aligned(&mut self) -> &mut [u8] {
        aligned(&mut self.memory)
    }

    /// Writes the first `len` buffered bytes, whole blocks, and the uncopied slices between them.
    fn write(&mut self, file: &mut dyn StorageFile, len: usize) -> io::Result<()> {
        let mut buffered = &*aligned(&mut self.memory);
        let mut slices = Vec::with_capacity(2 * self.uncopied.len() + 1);
        let mut before = 0;
        for slice in &self.uncopied {
            let (part, rest) = buffered.split_at(slice.buffered_before - before);
            slices.extend([part, &slice.bytes].map(IoSlice::new));
            (buffered, before) = (rest, slice.buffered_before);
        }
        slices.push(IoSlice::new(&buffered[..len - before]));
        self.offset += write_all_at(file, &mut slices, self.offset, &mut self.direct)?;
        self.uncopied.clear();
        Ok(())
    }
}

/// The part of `memory` that starts at a block boundary.
fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(BLOCK_BYTES);
    let size = memory.len() - BLOCK_BYTES;
    &mut memory[skip..skip + size]
}
