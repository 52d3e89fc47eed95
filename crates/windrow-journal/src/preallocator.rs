//! Segment preallocation: prepares the file of the next segment, new or recycled.
//!
//! Overwriting allocated blocks costs the kernel half of what filling new ones costs, and its sync
//! does not wait for the file system's journal. A recycled file is named `.spare` until it has the
//! header of its new segment: a file with a segment's name must never have the header of another.
//!
//! The maintenance thread decides when to prepare or recycle a file, the writer when to begin a
//! segment.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::debug;

use crate::format::{SEGMENT_HEADER_BYTES, segment_name, spare_name};
use crate::storage::{Storage, StorageFile, is_no_space};
use crate::sync::lock;

/// Smallest file that is preallocated on a nearly full disk, unless segments are configured
/// smaller.
const MIN_PREALLOCATED_BYTES: u64 = 1 << 20;
/// Size of a file that is preallocated on a full disk so that the segment before it can be
/// unlinked.
const EMERGENCY_BYTES: u64 = 64 << 10;
/// Spare files kept at most.
const MAX_SPARE_FILES: usize = 2;

pub(crate) struct Preallocator {
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    files: Mutex<Files>,
}

struct Files {
    next_number: u64,
    ready: Option<PreallocatedFile>,
    /// Recycled segments; their files are named `.spare`.
    spare_files: Vec<u64>,
}

/// A segment file that is allocated and durable, and has no header yet.
pub(crate) struct PreallocatedFile {
    pub(crate) number: u64,
    pub(crate) file: Box<dyn StorageFile>,
    pub(crate) capacity: u64,
    /// The recycled segment whose spare file this is.
    pub(crate) recycled_from: Option<u64>,
}

/// What [`Preallocator::prepare_ahead`] did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Preallocation {
    /// A file is ready, or none is wanted.
    Done,
    NoSpace,
    Failed,
}

impl Preallocator {
    pub(crate) fn new(storage: Arc<dyn Storage>, segment_bytes: u64, next_number: u64) -> Self {
        Self {
            storage,
            segment_bytes,
            files: Mutex::new(Files {
                next_number,
                ready: None,
                spare_files: Vec::new(),
            }),
        }
    }

    /// The file that is ready, or one that is made at once. `emergency`: as small as possible, and
    /// the reserve for others is used.
    pub(crate) fn take(&self, emergency: bool) -> io::Result<PreallocatedFile> {
        let mut files = lock(&self.files);
        match files.ready.take() {
            Some(file) => Ok(file),
            None => self.prepare(&mut files, emergency),
        }
    }

    /// Prepares the next file unless one is ready. `used_bytes` returns the bytes of all segments;
    /// the new file must fit below `limit_bytes` with them.
    pub(crate) fn prepare_ahead(&self, limit_bytes: u64, used_bytes: impl FnOnce() -> u64) -> Preallocation {
        let mut files = lock(&self.files);
        if !files.spare_files.is_empty() && !self.has_free_space() {
            self.remove_spare_files(&mut files);
        }
        if files.ready.is_some() || used_bytes() + self.segment_bytes > limit_bytes {
            return Preallocation::Done;
        }
        match self.prepare(&mut files, false) {
            Ok(file) => {
                files.ready = Some(file);
                Preallocation::Done
            }
            Err(error) if is_no_space(&error) => Preallocation::NoSpace,
            Err(error) => {
                debug!(%error, "cannot preallocate the next journal segment");
                Preallocation::Failed
            }
        }
    }

    /// Calls `decide` with the bytes that the ready file and the spare files take once one more is
    /// kept, or `None` if there are enough. Until `decide` returns, no file is prepared or
    /// recycled.
    pub(crate) fn decide_recycling<T>(&self, decide: impl FnOnce(Option<u64>) -> T) -> T {
        let files = lock(&self.files);
        let spare = files.spare_files.len();
        let bytes = self.segment_bytes.saturating_mul(spare as u64 + 2);
        decide((spare < MAX_SPARE_FILES).then_some(bytes))
    }

    /// Keeps the file of a segment that is not needed any more as a spare file.
    pub(crate) fn recycle(&self, number: u64) -> io::Result<()> {
        self.storage.rename(&segment_name(number), &spare_name(number))?;
        lock(&self.files).spare_files.push(number);
        Ok(())
    }

    /// Gives a recycled file that has its new header the name of its segment, durably.
    pub(crate) fn finish(&self, prepared: &PreallocatedFile) -> io::Result<()> {
        let Some(recycled) = prepared.recycled_from else {
            return Ok(());
        };
        self.storage
            .rename(&spare_name(recycled), &segment_name(prepared.number))?;
        self.storage.sync_folder()
    }

    /// Removes a preallocated file. Recovery removes it if that fails.
    pub(crate) fn discard(&self, prepared: PreallocatedFile) {
        let PreallocatedFile {
            number,
            file,
            recycled_from,
            ..
        } = prepared;
        drop(file);
        let _ = self.storage.remove(&segment_name(number));
        if let Some(recycled) = recycled_from {
            let _ = self.storage.remove(&spare_name(recycled));
        }
    }

    /// Removes all files that are ready or spare.
    pub(crate) fn discard_all(&self) {
        let mut files = lock(&self.files);
        if let Some(prepared) = files.ready.take() {
            self.discard(prepared);
        }
        self.remove_spare_files(&mut files);
    }

    /// The disk has room for a segment and for other programs.
    pub(crate) fn has_free_space(&self) -> bool {
        let free = self.storage.free_bytes();
        free.map_or(true, |free| free >= self.segment_bytes + self.reserve_bytes())
    }

    /// Bytes that preallocation leaves to others: if the dead letter queue could not write, nothing
    /// would ever be released.
    fn reserve_bytes(&self) -> u64 {
        self.segment_bytes / 8
    }

    fn prepare(&self, files: &mut Files, emergency: bool) -> io::Result<PreallocatedFile> {
        while let Some(recycled) = files.spare_files.pop() {
            match self.prepare_spare(recycled, files.next_number) {
                Ok(prepared) => {
                    files.next_number += 1;
                    return Ok(prepared);
                }
                Err(error) => {
                    debug!(segment = recycled, %error, "cannot recycle a journal file");
                    let _ = self.storage.remove(&spare_name(recycled));
                }
            }
        }
        self.prepare_new(&mut files.next_number, emergency)
    }

    fn prepare_spare(&self, recycled: u64, number: u64) -> io::Result<PreallocatedFile> {
        // Its old name must be gone durably before anything is written to it.
        self.storage.sync_folder()?;
        let mut file = self.storage.open(&spare_name(recycled), true)?;
        let capacity = match file.allocate(self.segment_bytes) {
            Ok(()) => self.segment_bytes,
            // It is used at its present length.
            Err(_) => file.len()?,
        };
        file.sync_all()?;
        Ok(PreallocatedFile {
            number,
            file,
            capacity,
            recycled_from: Some(recycled),
        })
    }

    /// Creates a file, smaller than a segment if the disk is nearly full.
    fn prepare_new(&self, next_number: &mut u64, emergency: bool) -> io::Result<PreallocatedFile> {
        let min = MIN_PREALLOCATED_BYTES.min(self.segment_bytes);
        let (mut capacity, reserve) = if emergency {
            (min.min(EMERGENCY_BYTES), 0)
        } else {
            (self.segment_bytes, self.reserve_bytes())
        };
        loop {
            let free = self.storage.free_bytes();
            let created = match free.map_or(true, |free| free >= capacity + reserve) {
                true => self.create(next_number, capacity),
                false => Err(io::ErrorKind::StorageFull.into()),
            };
            match created {
                Err(error) if is_no_space(&error) && capacity / 4 >= min => capacity /= 4,
                other => return other,
            }
        }
    }

    fn create(&self, next_number: &mut u64, capacity: u64) -> io::Result<PreallocatedFile> {
        let number = *next_number;
        *next_number += 1;
        let name = segment_name(number);
        let mut file = self.storage.create(&name)?;
        let allocated = match file.allocate(capacity.max(SEGMENT_HEADER_BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        };
        let durable = allocated
            .and_then(|()| file.sync_all())
            .and_then(|()| self.storage.sync_folder());
        match durable {
            Ok(()) => Ok(PreallocatedFile {
                number,
                file,
                capacity,
                recycled_from: None,
            }),
            Err(error) => {
                drop(file);
                let _ = self.storage.remove(&name);
                Err(error)
            }
        }
    }

    fn remove_spare_files(&self, files: &mut Files) {
        for recycled in files.spare_files.drain(..) {
            let _ = self.storage.remove(&spare_name(recycled));
        }
    }
}
