//! Puts the bytes of commits together and writes them as whole blocks, so that they can go past the page cache.
//!
//! It owns the memory that is written from and what stands in the block in which the last commit ended. That block is
//! written again with the next commit: its first bytes are durable, and they are the same each time, so that they survive
//! however much of the write a crash leaves. Behind the last record there are zeros up to the end of the block.
//!
//! It does not sync, and it knows nothing of records.

use std::io::{self, IoSlice};

use tracing::debug;

use super::storage::StorageFile;

/// What is written begins and ends at a multiple of this, in the file and in memory. No usual disk has larger sectors.
pub(super) const BLOCK: usize = 4096;
/// The most bytes that are put together: a commit that is larger is written in several pieces.
const MOST: usize = 1 << 20;
/// Memory to begin with; single messages need no more.
const LEAST: usize = 4 * BLOCK;

/// The end of one file.
pub(super) struct Blocks {
    /// Longer than what is used of it, which begins at the first aligned byte.
    memory: Vec<u8>,
    /// Where the bytes in memory stand in the file: always a multiple of a block.
    at: u64,
    /// How many there are.
    filled: usize,
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
                self.at += self.filled as u64;
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

    /// The commit is complete: writes the rest of it, and keeps what stands in the block that is not full.
    pub(super) fn finish(&mut self, file: &mut dyn StorageFile) -> io::Result<()> {
        let (filled, whole) = (self.filled, self.filled.next_multiple_of(BLOCK));
        self.aligned()[filled..whole].fill(0);
        self.write(file, whole)?;
        let tail = filled % BLOCK;
        self.aligned().copy_within(filled - tail..filled, 0);
        self.at += (filled - tail) as u64;
        self.filled = tail;
        Ok(())
    }

    /// Free bytes, after an attempt to have this many.
    fn room_for(&mut self, more: usize) -> usize {
        let size = self.memory.len() - BLOCK;
        let wanted = (self.filled + more).min(MOST);
        if size < wanted {
            let filled = self.filled;
            let size = wanted.next_power_of_two().min(MOST);
            let mut larger = Self {
                memory: vec![0; size + BLOCK],
                ..*self
            };
            larger.aligned()[..filled].copy_from_slice(&self.aligned()[..filled]);
            *self = larger;
        }
        self.memory.len() - BLOCK - self.filled
    }

    fn aligned(&mut self) -> &mut [u8] {
        let skip = self.memory.as_ptr().align_offset(BLOCK);
        let size = self.memory.len() - BLOCK;
        &mut self.memory[skip..skip + size]
    }

    /// Writes the first `len` bytes, a number of blocks.
    fn write(&mut self, file: &mut dyn StorageFile, len: usize) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = self.at + done as u64;
            let slice = IoSlice::new(&self.aligned()[done..len]);
            match file.write_at(&[slice], at) {
                Ok(0) => {
                    let why = "the disk took no more bytes";
                    return Err(io::Error::new(io::ErrorKind::WriteZero, why));
                }
                Ok(written) => {
                    done += written;
                    if self.direct && !done.is_multiple_of(BLOCK) {
                        // Full, most likely: the next write says so, and it does not begin where a block does.
                        self.leave_direct(file)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.direct && error.kind() == io::ErrorKind::InvalidInput => {
                    debug!(%error, "the file system writes nothing past the page cache");
                    self.leave_direct(file)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn leave_direct(&mut self, file: &mut dyn StorageFile) -> io::Result<()> {
        file.set_direct(false)?;
        self.direct = false;
        Ok(())
    }
}
