//! Puts the bytes of commits together and writes them as whole blocks, so that they can go past the page cache.
//!
//! What begins at a block, in the file and in memory, is written from where it is. All else is copied together first.
//!
//! It owns the memory for that and what stands in the block in which the last commit ended. That block is
//! written again with the next commit: its first bytes are durable, and they are the same each time, so that they survive
//! however much of the write a crash leaves. Behind the last record there are zeros up to the end of the block.
//!
//! It does not sync, and it knows nothing of records.

use std::io::{self, IoSlice};

use bytes::Bytes;
use tracing::debug;

use super::storage::StorageFile;

/// Bytes of a block: what is written begins and ends at a multiple of this, in the file and in memory. No usual disk has
/// larger sectors.
pub const BLOCK: usize = 4096;
/// The most bytes that are put together: a commit that is larger is written in several pieces.
const MOST: usize = 1 << 20;
/// The most pieces that are written from where they are with one write.
const PIECES: usize = 64;
/// Memory to begin with; single messages need no more.
const LEAST: usize = 4 * BLOCK;

/// Whole blocks that are not copied.
struct Piece {
    /// Behind so many bytes of the memory: whole blocks.
    behind: usize,
    bytes: Bytes,
}

/// The end of one file.
pub(super) struct Blocks {
    /// Longer than what is used of it, which begins at the first aligned byte.
    memory: Vec<u8>,
    /// Where the bytes in memory stand in the file, or those of the first piece before them: always a multiple of a block.
    at: u64,
    /// How many there are.
    filled: usize,
    /// What is written from where it is, in order.
    pieces: Vec<Piece>,
    /// The file is written past the page cache.
    direct: bool,
}

impl Blocks {
    /// For a file of which everything is going to be written.
    pub(super) fn new(direct: bool) -> Self {
        Self {
            memory: vec![0; LEAST + BLOCK],
            at: 0,
            filled: 0,
            pieces: Vec::new(),
            direct,
        }
    }

    /// Whether the file is written past the page cache: not any more after the file system refused it.
    pub(super) fn direct(&self) -> bool {
        self.direct
    }

    /// More of the commit. Some of it may be written at once.
    pub(super) fn put(&mut self, file: &mut dyn StorageFile, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room_for(bytes.len());
            if room == 0 {
                self.write(file, self.filled)?;
                self.filled = 0;
                continue;
            }
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            let filled = self.filled;
            self.aligned()[filled..filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = rest;
        }
        Ok(())
    }

    /// The same for what begins at a block in memory: it begins at one in the file as well, with zeros before it.
    pub(super) fn put_at_block(&mut self, file: &mut dyn StorageFile, bytes: &Bytes) -> io::Result<()> {
        let missing = self.filled.next_multiple_of(BLOCK) - self.filled;
        if missing > 0 {
            self.put(file, &[0; BLOCK][..missing])?;
        }
        if self.pieces.len() == PIECES {
            self.write(file, self.filled)?;
            self.filled = 0;
        }
        let whole = bytes.len() - bytes.len() % BLOCK;
        self.pieces.push(Piece {
            behind: self.filled,
            bytes: bytes.slice(..whole),
        });
        self.put(file, &bytes[whole..])
    }

    /// The commit is complete: writes the rest of it, and keeps what stands in the block that is not full.
    pub(super) fn finish(&mut self, file: &mut dyn StorageFile) -> io::Result<()> {
        let (filled, whole) = (self.filled, self.filled.next_multiple_of(BLOCK));
        self.aligned()[filled..whole].fill(0);
        self.write(file, whole)?;
        let tail = filled % BLOCK;
        self.aligned().copy_within(filled - tail..filled, 0);
        self.filled = tail;
        if tail > 0 {
            // It is written again with what comes.
            self.at -= BLOCK as u64;
        }
        Ok(())
    }

    /// Free bytes, after an attempt to have this many.
    fn room_for(&mut self, more: usize) -> usize {
        let size = self.memory.len() - BLOCK;
        let wanted = (self.filled + more).min(MOST);
        if size < wanted {
            let filled = aligned(&mut self.memory)[..self.filled].to_vec();
            let size = wanted.next_power_of_two().min(MOST);
            self.memory = vec![0; size + BLOCK];
            self.aligned()[..filled.len()].copy_from_slice(&filled);
        }
        self.memory.len() - BLOCK - self.filled
    }

    fn aligned(&mut self) -> &mut [u8] {
        aligned(&mut self.memory)
    }

    /// Writes the first `len` bytes of the memory, whole blocks, and the pieces between them.
    fn write(&mut self, file: &mut dyn StorageFile, len: usize) -> io::Result<()> {
        let mut memory = &*aligned(&mut self.memory);
        let mut slices = Vec::with_capacity(2 * self.pieces.len() + 1);
        let mut before = 0;
        for piece in &self.pieces {
            let (now, rest) = memory.split_at(piece.behind - before);
            slices.extend([now, &piece.bytes].map(IoSlice::new));
            (memory, before) = (rest, piece.behind);
        }
        slices.push(IoSlice::new(&memory[..len - before]));
        let mut slices = &mut *slices;
        // Those without bytes leave.
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match file.write_at(slices, self.at) {
                Ok(0) => {
                    let why = "the disk took no more bytes";
                    return Err(io::Error::new(io::ErrorKind::WriteZero, why));
                }
                Ok(written) => {
                    self.at += written as u64;
                    IoSlice::advance_slices(&mut slices, written);
                    if self.direct && !written.is_multiple_of(BLOCK) {
                        // Full, most likely: the next write says so, and it does not begin where a block does.
                        leave_direct(file, &mut self.direct)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => {
                    debug!(%error, "the file system writes nothing past the page cache");
                    leave_direct(file, &mut self.direct)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.pieces.clear();
        Ok(())
    }
}

/// What of the memory begins at a block.
fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let skip = memory.as_ptr().align_offset(BLOCK);
    let size = memory.len() - BLOCK;
    &mut memory[skip..skip + size]
}

fn leave_direct(file: &mut dyn StorageFile, direct: &mut bool) -> io::Result<()> {
    file.set_direct(false)?;
    *direct = false;
    Ok(())
}
