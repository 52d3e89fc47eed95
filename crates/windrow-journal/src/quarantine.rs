//! Quarantine: the folder that keeps damaged segment files. Files in it are never removed by the
//! journal.

use std::io;

use crate::format::segment_name;
use crate::storage::Storage;

/// Name of the quarantine, inside the journal's folder.
pub(crate) const QUARANTINE: &str = "quarantine";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QuarantineMode {
    /// Adds a name in the quarantine; the segment stays in use under its own name.
    Link,
    /// Moves the file; the segment is not used any more.
    Move,
}

/// Puts the file of a segment into the quarantine.
pub(crate) fn quarantine(storage: &dyn Storage, number: u64, mode: QuarantineMode) -> io::Result<()> {
    let name = segment_name(number);
    let quarantined = format!("{QUARANTINE}/{name}");
    storage.create_folder(QUARANTINE)?;
    match mode {
        QuarantineMode::Move => storage.rename(&name, &quarantined),
        QuarantineMode::Link => match storage.link(&name, &quarantined) {
            // Linked by a previous run.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        },
    }
}

/// Moves a file that is no segment of its own into the quarantine, as `<number>.seg.copy`: the name
/// of the segment stays free.
pub(crate) fn quarantine_copy(storage: &dyn Storage, name: &str, number: u64) -> io::Result<()> {
    storage.create_folder(QUARANTINE)?;
    let taken = storage.list(QUARANTINE)?;
    let mut copy_name = format!("{}.copy", segment_name(number));
    while taken.iter().any(|(other, _)| *other == copy_name) {
        copy_name.push_str(".copy");
    }
    storage.rename(name, &format!("{QUARANTINE}/{copy_name}"))
}
