//! All that the journal asks of a file system, as a trait, and the real one.
//!
//! The trait exists so that the tests can put a disk under the journal that fails and crashes on purpose. It
//! owns no policy: what to do after an error is decided by the writer and the keeper.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};

use super::blocks::BLOCK;

/// The folder for files in which damage was found, inside the journal's folder.
pub(super) const QUARANTINE: &str = "quarantine";

/// One folder. Names are relative to it; only the quarantine has names with a slash.
pub(super) trait Storage: Send + Sync + 'static {
    /// Names and sizes of the plain files in the folder (`sub` empty) or in a folder below.
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>>;
    /// A new, empty file open for reading and writing. An older one of this name is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// An existing file open for reading, and for writing if `write`.
    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn StorageFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A second name for the same file.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    fn create_folder(&self, name: &str) -> io::Result<()>;
    /// Makes creations, removals and renames in the folder durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Bytes that this process may still allocate.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file. It has no position: every access says where.
pub(super) trait StorageFile: Send + 'static {
    /// From now on writes go past the page cache, or through it. Past it, only whole blocks are taken, from memory that
    /// begins at a block (see `blocks.rs`). An error where that cannot be: nothing has changed then.
    fn set_direct(&mut self, direct: bool) -> io::Result<()>;
    /// Writes some of the bytes and says how many.
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads some bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Reserves space and extends the file to `len` with zeros. `Unsupported` where the file system cannot.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content (and the length that is needed to read it) durable.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Makes the content and everything about the file durable.
    fn sync_all(&mut self) -> io::Result<()>;
}

/// The most slices that one write takes (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// Writes everything, however many short writes that takes.
pub(super) fn write_all_at(
    file: &mut dyn StorageFile,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let some = &slices[..slices.len().min(MAX_SLICES)];
        match file.write_at(some, offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::WriteZero,
                    "the disk took no more bytes",
                ));
            }
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills the buffer from `offset` on as far as the file goes; returns how many bytes there were.
pub(super) fn read_full_at(file: &dyn StorageFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// No space on the disk, or none for this user: it may come back, so writers wait instead of failing.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The real file system.
#[derive(Debug)]
pub(super) struct Disk {
    folder: PathBuf,
    /// Held open so that syncing the folder needs no lookup.
    handle: File,
}

impl Disk {
    /// The folder must exist.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            handle: File::open(folder)?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Storage for Disk {
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(self.path(sub))? {
            let entry = entry?;
            let about = match entry.metadata() {
                Ok(about) => about,
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                out.push((name, about.len()));
            }
        }
        Ok(out)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        // Logs are nobody else's business.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        Ok(Box::new(options.open(self.path(name))?))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(
            OpenOptions::new().read(true).write(write).open(self.path(name))?,
        ))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::hard_link(self.path(from), self.path(to))
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        match std::fs::create_dir(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        match self.handle.sync_all() {
            // Some network and FUSE file systems know no sync of a folder; they have no other way to offer.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let about = rustix::fs::fstatvfs(&self.handle)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }
}

impl StorageFile for File {
    fn set_direct(&mut self, direct: bool) -> io::Result<()> {
        if direct {
            // Older kernels do not say it: then the first write will tell.
            let about = rustix::fs::statx(&*self, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
            let known = about
                .ok()
                .filter(|about| about.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
            // 0: not at all.
            let fits = |align: u32| align != 0 && (BLOCK as u32).is_multiple_of(align);
            if known.is_some_and(|about| !fits(about.stx_dio_offset_align) || !fits(about.stx_dio_mem_align))
            {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        let flags = rustix::fs::fcntl_getfl(&*self)? - OFlags::DIRECT;
        let wanted = if direct { flags | OFlags::DIRECT } else { flags };
        Ok(rustix::fs::fcntl_setfl(&*self, wanted)?)
    }

    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&*self, slices, offset)?)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&*self, FallocateFlags::empty(), 0, len)?)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        Self::sync_data(self)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        Self::sync_all(self)
    }
}
