//! File system interface of the journal: a trait, and its implementation for a real folder.
//!
//! The trait lets tests run the journal on a disk that fails and crashes on purpose. Owns no
//! policy: the writer and the maintenance thread decide what follows from an error.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FallocateFlags, OFlags, StatxFlags};
use rustix::io::Errno;
use tracing::debug;

/// A symbolic link in the place of a file is an error.
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// Size of a block, in bytes: commits begin and end at multiples of it, in the file and in memory.
/// No common disk has larger sectors.
pub const BLOCK_BYTES: usize = 4096;

/// One folder. Names are relative to it; only names in the quarantine contain a slash.
pub(crate) trait Storage: Send + Sync + 'static {
    /// Names and sizes (bytes) of the regular files in the folder (`sub` empty) or in its folder
    /// `sub`.
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>>;
    /// Creates or truncates a file and opens it for reading and writing.
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>>;
    /// Opens an existing file for reading, and for writing if `write`.
    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn StorageFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Creates a hard link.
    fn link(&self, from: &str, to: &str) -> io::Result<()>;
    fn create_folder(&self, name: &str) -> io::Result<()>;
    /// Makes creations, removals, links and renames in the folder durable.
    fn sync_folder(&self) -> io::Result<()>;
    /// Free bytes that this process may allocate.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file, accessed at explicit offsets.
pub(crate) trait StorageFile: Send + 'static {
    /// Switches direct I/O on or off. Direct writes take whole blocks from block-aligned memory
    /// only. After an error the mode is unchanged.
    fn set_direct(&mut self, direct: bool) -> io::Result<()>;
    /// Writes some of the bytes; returns how many.
    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Reads some bytes; returns 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Reserves space and extends the file to `len` with zeros. `Unsupported` where the file system
    /// cannot.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// Makes the content, and the metadata needed to read it, durable (`fdatasync`).
    fn sync_data(&mut self) -> io::Result<()>;
    /// Makes the content and all metadata durable (`fsync`).
    fn sync_all(&mut self) -> io::Result<()>;
}

/// Slices that one write takes at most (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// Writes all slices, however many short writes that takes; returns the bytes written.
///
/// `direct` tells whether the file is open for direct I/O. It is switched off, here and for the
/// file, when the file system refuses a direct write or ends one within a block.
pub(crate) fn write_all_at(
    file: &mut dyn StorageFile,
    mut slices: &mut [IoSlice<'_>],
    start: u64,
    direct: &mut bool,
) -> io::Result<u64> {
    let mut offset = start;
    // Drops leading empty slices.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(&slices[..slices.len().min(MAX_SLICES)], offset) {
            Ok(0) => {
                let message = "the disk accepted no more bytes";
                return Err(io::Error::new(io::ErrorKind::WriteZero, message));
            }
            Ok(written) => {
                IoSlice::advance_slices(&mut slices, written);
                offset += written as u64;
                if *direct && !written.is_multiple_of(BLOCK_BYTES) {
                    // The disk is probably full. The rest does not begin at a block; buffered, it
                    // gets the real error.
                    leave_direct_io(file, direct)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if *direct && error.kind() == io::ErrorKind::InvalidInput => {
                debug!(%error, "the file system refuses direct I/O; writing through the page cache");
                leave_direct_io(file, direct)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(offset - start)
}

fn leave_direct_io(file: &mut dyn StorageFile, direct: &mut bool) -> io::Result<()> {
    file.set_direct(false)?;
    *direct = false;
    Ok(())
}

/// Fills the buffer from `offset` on, up to the end of the file; returns the bytes read.
pub(crate) fn read_full_at(file: &dyn StorageFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
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

/// The disk or the user's quota is full. That passes, so appends wait instead of failing.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// The device itself failed (`EIO`).
pub(crate) fn is_device_error(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::IO)
}

/// A folder on a real file system.
#[derive(Debug)]
pub(crate) struct DiskStorage {
    folder: PathBuf,
    /// Kept open so that syncing the folder needs no lookup.
    handle: File,
}

impl DiskStorage {
    /// The folder must exist.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            handle: File::open(folder)?,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Storage for DiskStorage {
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(self.path(sub))? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                out.push((name, metadata.len()));
            }
        }
        Ok(out)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        // Payloads may be confidential.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(NO_FOLLOW)
            .mode(0o600);
        Ok(Box::new(options.open(self.path(name))?))
    }

    fn open(&self, name: &str, write: bool) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(
            OpenOptions::new()
                .read(true)
                .write(write)
                .custom_flags(NO_FOLLOW)
                .open(self.path(name))?,
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
        match DirBuilder::new().mode(0o700).create(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        match self.handle.sync_all() {
            // Some network and FUSE file systems cannot sync a folder and offer no alternative.
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
        let stats = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}

impl StorageFile for File {
    fn set_direct(&mut self, direct: bool) -> io::Result<()> {
        if direct {
            // Kernels before 6.1 do not report alignment: there the first write tells.
            let stat = rustix::fs::statx(&*self, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
            let reported = stat
                .ok()
                .filter(|stat| stat.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
            // 0: no direct I/O.
            let fits = |align: u32| align != 0 && (BLOCK_BYTES as u32).is_multiple_of(align);
            if reported.is_some_and(|stat| !fits(stat.stx_dio_offset_align) || !fits(stat.stx_dio_mem_align))
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
