//! Names of segment files: the number in the header decides, not the name.
//!
//! A crash between two renames leaves a file named `.renamed`, which the next recovery handles.

use std::path::Path;

use tracing::{error, warn};

use crate::error::OpenError;
use crate::format::{FileKind, file_kind, renamed_name, segment_name};
use crate::quarantine::{QUARANTINE, quarantine_copy};
use crate::scanner::read_segment_header;
use crate::storage::Storage;

/// Gives each segment file with a valid header the name of its segment. A second file of the same
/// segment is moved to the quarantine.
pub(super) fn restore_names(storage: &dyn Storage, dir: &Path) -> Result<(), OpenError> {
    let names = || storage.list("").map_err(OpenError::during("list", dir));
    let mut changed = false;
    // Names are freed first: two files may have each other's name.
    for (name, _) in names()? {
        let FileKind::Segment(number) = file_kind(&name) else {
            continue;
        };
        let path = dir.join(&name);
        let header = read_segment_header(storage, &name).map_err(OpenError::during("read", &path))?;
        let Ok(header) = header else { continue };
        if header.number == number {
            continue;
        }
        changed = true;
        warn!(
            segment = header.number,
            "the journal file {name} holds segment {}: it was renamed or copied while Windrow was stopped",
            header.number
        );
        let renamed = renamed_name(header.number);
        let free = names()?.iter().all(|(other, _)| *other != renamed);
        match free {
            true => storage
                .rename(&name, &renamed)
                .map_err(OpenError::during("rename", &path))?,
            false => set_aside(storage, dir, &name, header.number)?,
        }
    }
    for (name, _) in names()? {
        let FileKind::Renamed(number) = file_kind(&name) else {
            continue;
        };
        changed = true;
        let own_name = segment_name(number);
        if names()?.iter().any(|(other, _)| *other == own_name) {
            let path = dir.join(&own_name);
            let header = read_segment_header(storage, &own_name);
            match header.map_err(OpenError::during("read", &path))? {
                Ok(_) => {
                    set_aside(storage, dir, &name, number)?;
                    continue;
                }
                // What lies under the name is not known to be this segment, the other file is.
                Err(_) => set_aside(storage, dir, &own_name, number)?,
            }
        }
        let path = dir.join(&name);
        storage
            .rename(&name, &own_name)
            .map_err(OpenError::during("rename", &path))?;
    }
    match changed {
        true => storage.sync_folder().map_err(OpenError::during("sync", dir)),
        false => Ok(()),
    }
}

fn set_aside(storage: &dyn Storage, dir: &Path, name: &str, number: u64) -> Result<(), OpenError> {
    error!("the journal file {name} is not the only one of its segment; moving it to {QUARANTINE}");
    quarantine_copy(storage, name, number)
        .map_err(OpenError::during("move to the quarantine", dir.join(name)))
}
