//! The next segment's file: made before it is needed, or kept from a segment that is done with.
//!
//! To write over blocks that a file has costs the kernel half of what it costs to fill new ones, and a sync of them need
//! not wait for the file system's own journal. A file that is kept has a name of its own (`.spare`) until it has the
//! header of its new segment: under the name of a segment there never is a file with the header of another.
//!
//! When a file is made or kept is decided by the keeper, when it is begun by the writer.

use std::io;

use tracing::debug;

use super::format::{SEGMENT_HEADER_BYTES, segment_name, spare_name};
use super::shared::{Shared, lock};
use super::storage::{Storage, StorageFile, is_no_space};

/// The smallest segment that is begun when the disk is nearly full (or the configured size, if smaller).
const SMALLEST: u64 = 1 << 20;

/// The segment after the one in use.
pub(super) struct Ahead {
    pub(super) next_number: u64,
    pub(super) ready: Option<Prepared>,
    /// Segments whose files are to be used again.
    pub(super) spares: Vec<u64>,
}

/// A segment file that is allocated and durable, and has no header yet.
pub(super) struct Prepared {
    pub(super) number: u64,
    pub(super) file: Box<dyn StorageFile>,
    pub(super) capacity: u64,
    /// It was the file of this segment before, and has the name of a spare one until it has its header.
    pub(super) spare: Option<u64>,
}

impl Shared {
    /// The prepared segment, or one that is prepared now.
    pub(super) fn take_prepared(&self, in_need: bool) -> io::Result<Prepared> {
        let mut ahead = lock(&self.ahead);
        match ahead.ready.take() {
            Some(prepared) => Ok(prepared),
            None => self.prepare(&mut ahead, in_need),
        }
    }

    pub(super) fn prepare(&self, ahead: &mut Ahead, in_need: bool) -> io::Result<Prepared> {
        while let Some(spare) = ahead.spares.pop() {
            match self.use_again(spare, ahead.next_number) {
                Ok(prepared) => {
                    ahead.next_number += 1;
                    return Ok(prepared);
                }
                Err(error) => {
                    debug!(segment = spare, %error, "a journal file cannot be used again");
                    let _ = self.storage.remove(&spare_name(spare));
                }
            }
        }
        prepare_new(self, &mut ahead.next_number, in_need)
    }

    /// The file of a dead segment as that of a new one.
    fn use_again(&self, spare: u64, number: u64) -> io::Result<Prepared> {
        // Nothing is written to it before its old name is gone for good.
        self.storage.sync_folder()?;
        let mut file = self.storage.open(&spare_name(spare), true)?;
        let capacity = match file.allocate(self.segment_bytes) {
            Ok(()) => self.segment_bytes,
            // As long as it is, it will do.
            Err(_) => file.len()?,
        };
        file.sync_all()?;
        Ok(Prepared {
            number,
            file,
            capacity,
            spare: Some(spare),
        })
    }

    /// Gives a prepared file that has its header now the name of its segment, durably.
    pub(super) fn name_prepared(&self, prepared: &Prepared) -> io::Result<()> {
        let Some(spare) = prepared.spare else {
            return Ok(());
        };
        self.storage
            .rename(&spare_name(spare), &segment_name(prepared.number))?;
        self.storage.sync_folder()
    }

    /// Removes a prepared file. If it stays, recovery removes it.
    pub(super) fn discard(&self, prepared: Prepared) {
        let Prepared {
            number, file, spare, ..
        } = prepared;
        drop(file);
        let _ = self.storage.remove(&segment_name(number));
        if let Some(spare) = spare {
            let _ = self.storage.remove(&spare_name(spare));
        }
    }

    pub(super) fn remove_spares(&self, ahead: &mut Ahead) {
        for spare in ahead.spares.drain(..) {
            let _ = self.storage.remove(&spare_name(spare));
        }
    }

    /// Whether the disk has room for others beside what is kept here.
    pub(super) fn has_room(&self) -> bool {
        let free = self.storage.free_bytes();
        free.map_or(true, |free| free >= self.segment_bytes + self.segment_bytes / 8)
    }
}

/// Makes a segment file: allocated, and durable in its folder. On a nearly full disk it becomes smaller, and
/// some space is left for others (the dead letter must be able to write, or nothing would ever be released).
fn prepare_new(shared: &Shared, next_number: &mut u64, in_need: bool) -> io::Result<Prepared> {
    let smallest = SMALLEST.min(shared.segment_bytes);
    let mut capacity = if in_need {
        smallest.min(64 << 10)
    } else {
        shared.segment_bytes
    };
    let reserve = if in_need { 0 } else { shared.segment_bytes / 8 };
    loop {
        let enough = shared
            .storage
            .free_bytes()
            .map_or(true, |free| free >= capacity + reserve);
        let made = match enough {
            true => make(&*shared.storage, next_number, capacity),
            false => Err(io::ErrorKind::StorageFull.into()),
        };
        match made {
            Err(error) if is_no_space(&error) && capacity / 4 >= smallest => capacity /= 4,
            other => return other,
        }
    }
}

fn make(storage: &dyn Storage, next_number: &mut u64, capacity: u64) -> io::Result<Prepared> {
    let number = *next_number;
    *next_number += 1;
    let name = segment_name(number);
    let mut file = storage.create(&name)?;
    let allocated = match file.allocate(capacity.max(SEGMENT_HEADER_BYTES)) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    };
    let durable = allocated
        .and_then(|()| file.sync_all())
        .and_then(|()| storage.sync_folder());
    match durable {
        Ok(()) => Ok(Prepared {
            number,
            file,
            capacity,
            spare: None,
        }),
        Err(error) => {
            drop(file);
            let _ = storage.remove(&name);
            Err(error)
        }
    }
}
