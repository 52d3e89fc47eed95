//! The random number that a folder is given when it is made: with an lsn it names a record for ever.
//!
//! Owns the file that it stands in. It stands in the header of each segment too, and these are believed first.

use std::io::{self, IoSlice};
use std::path::Path;

use tracing::warn;

use super::error::OpenError;
use super::lock::about;
use super::storage::{Storage, read_full_at, write_all_at};

const FILE: &str = "instance";
/// The file until it is written; what is left of it after a crash means nothing.
pub(super) const TEMPORARY: &str = "instance.new";

/// The number that the folder was given: as the newest segment says (`known`), else the file, else a new one.
pub(super) fn settle(storage: &dyn Storage, dir: &Path, known: Option<u64>) -> Result<u64, OpenError> {
    let path = dir.join(FILE);
    let stored = read(storage).map_err(about("read", &path))?;
    let instance = match (known, stored) {
        (Some(known), Some(stored)) if known == stored => return Ok(known),
        (None, Some(stored)) => return Ok(stored),
        (Some(known), _) => {
            warn!(
                "the file {} does not fit the journal's segments; it is written anew",
                path.display()
            );
            known
        }
        (None, None) => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes)
                .map_err(|error| about("draw a number for", &path)(io::Error::other(error.to_string())))?;
            u64::from_le_bytes(bytes)
        }
    };
    write(storage, instance).map_err(about("write", &path))?;
    Ok(instance)
}

fn read(storage: &dyn Storage) -> io::Result<Option<u64>> {
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
    write_all_at(&mut *file, &mut [IoSlice::new(text.as_bytes())], 0)?;
    file.sync_all()?;
    drop(file);
    storage.rename(TEMPORARY, FILE)?;
    storage.sync_folder()
}
