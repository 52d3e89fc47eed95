//! Files and folders with log content: only the server's user can open them, and no symbolic link
//! leads a write elsewhere. Identity of open files.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use rustix::fs::OFlags;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Permissions of users that are neither the owner nor in the group.
const OTHERS: u32 = 0o007;
const OTHERS_WRITE: u32 = 0o002;

/// Options for a file that only its owner can open once it is created. A symbolic link in its place
/// is an error.
pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(FILE_MODE)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Creates a folder, and those above it, that only the owner can open. Durable when it returns: what
/// is confirmed later must not vanish with its folder.
pub(crate) fn create_private_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_private_folder(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        created => created?,
    }
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // A folder may be writable and not readable.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Takes the permissions of others away from a file or folder, if it is there and belongs to this
/// user. Those of the group stay: Kubernetes' `fsGroup` relies on them.
pub(crate) fn close_to_others(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mode = metadata.mode() & 0o7777;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if metadata.is_symlink() || mode & OTHERS == 0 || !is_ours {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))
}

/// Refuses a folder in which every user can create and replace files.
pub(crate) fn refuse_open_folder(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.mode() & OTHERS_WRITE == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "every user can write to it; run `chmod o-w` on it, or use a folder of its own inside it",
    ))
}

/// Refuses a symbolic link.
pub(crate) fn refuse_symlink(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => Err(io::Error::other("it is a symbolic link")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a file to the owner of another one, if this user may do that: the superuser can run a
/// replay, and the server must be able to open what it leaves.
pub(crate) fn give_to_owner_of(file: &File, other: &Metadata) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.uid() != other.uid() && rustix::process::geteuid().is_root() {
        fchown(file, Some(other.uid()), Some(other.gid()))?;
    }
    Ok(())
}

/// Device and inode. While the file is open, no other file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The identity of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_metadata(&file.metadata()?))
    }

    /// The identity of the file that a path leads to, if there is one.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::from_metadata(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn from_metadata(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn folders_are_created_one_in_the_other_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let (above, path) = (folder.path().join("a"), folder.path().join("a/b"));
        create_private_folder(&path).unwrap();
        create_private_folder(&path).unwrap();
        assert_eq!((mode(&above), mode(&path)), (0o700, 0o700));
        fs::write(path.join("file"), "").unwrap();
        let error = create_private_folder(&path.join("file")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn others_lose_their_permissions_and_the_group_keeps_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        for (before, after) in [(0o644, 0o640), (0o660, 0o660), (0o600, 0o600)] {
            fs::set_permissions(&path, Permissions::from_mode(before)).unwrap();
            close_to_others(&path).unwrap();
            assert_eq!(mode(&path), after);
        }
        close_to_others(&folder.path().join("absent")).unwrap();
    }

    #[test]
    fn a_folder_is_refused_when_every_user_can_write_to_it() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, refused) in [
            (0o700, false),
            (0o2770, false),
            (0o2775, false),
            (0o777, true),
            (0o1777, true),
        ] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(refuse_open_folder(folder.path()).is_err(), refused, "{mode:o}");
        }
    }
}
