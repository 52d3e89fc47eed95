//! Instance number: a random number drawn when the folder is created. With an lsn it names a record
//! globally.
//!
//! Owns the file `instance`. Segment headers hold the number too, and take precedence over the
//! file.

use std::io::{self, IoSlice};
use std::path::Path;

use tracing::warn;

use crate::error::OpenError;
use crate::storage::{Storage, read_full_at, write_all_at};

const FILE: &str = "instance";
/// Name of the file while it is written. A leftover of a crash is ignored.
pub(crate) const TEMPORARY: &str = "instance.new";

/// The folder's number: `known` from the newest segment, else from the file, else a new one.
pub(crate) fn load_or_create(
    storage: &dyn Storage,
    dir: &Path,
    known: Option<u64>,
) -> Result<u64, OpenError> {
    let path = dir.join(FILE);
    let stored = read(storage).map_err(OpenError::during("read", &path))?;
    let instance = match (known, stored) {
        (Some(known), Some(stored)) if known == stored => return Ok(known),
        (None, Some(stored)) => return Ok(stored),
        (Some(known), _) => {
            warn!(
                "the file {} does not match the journal's segments; rewriting it",
                path.display()
            );
            known
        }
        (None, None) => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).map_err(|error| {
                OpenError::during("draw a random number for", &path)(io::Error::other(error.to_string()))
            })?;
            u64::from_le_bytes(bytes)
        }
    };
    write(storage, instance).map_err(OpenError::during("write", &path))?;
    Ok(instance)
}

/// Reads the number from the file; `None` if there is none or it is unreadable.
pub(crate) fn read(storage: &dyn Storage) -> io::Result<Option<u64>> {
    let file = match storage.open(FILE, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = [0; 16];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    let text = std::str::from_utf8(&bytes[..read])
        .ok()
        .filter(|text| text.len() == 16);
    Ok(text.and_then(|text| u64::from_str_radix(text, 16).ok()))
}

fn write(storage: &dyn Storage, instance: u64) -> io::Result<()> {
    let mut file = storage.create(TEMPORARY)?;
    let text = format!("{instance:016x}\n");
    write_all_at(&mut *file, &mut [IoSlice::new(text.as_bytes())], 0, &mut false)?;
    file.sync_all()?;
    drop(file);
    storage.rename(TEMPORARY, FILE)?;
    storage.sync_folder()
}
