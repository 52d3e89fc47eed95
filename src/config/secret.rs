//! Secrets: strings that are never shown, given in the configuration or read from a file.
//!
//! Clones share their value, so that a secret that is read again changes wherever it is used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Longest file with a secret, or with users.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A string that `Debug` and the resolved configuration hide.
#[derive(Clone)]
pub struct Secret(Arc<Shared>);

struct Shared {
    value: RwLock<Arc<str>>,
    source: Source,
}

#[derive(PartialEq, Eq)]
enum Source {
    /// The configuration itself.
    Value,
    /// The whole content of a file.
    File(PathBuf),
    /// The password of this user, in a file of users.
    User(PathBuf, String),
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: impl AsRef<str>) -> Self {
        Self::from_source(secret.as_ref(), Source::Value)
    }

    fn from_source(value: &str, source: Source) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value.into()),
            source,
        }))
    }

    /// Reads a secret from a file; line ends at its end do not belong to it.
    pub(crate) fn from_file(path: &Path) -> Result<Self, String> {
        Ok(Self::from_source(
            &read_secret(path)?,
            Source::File(path.to_owned()),
        ))
    }

    /// The secret.
    #[must_use]
    pub fn expose(&self) -> Arc<str> {
        Arc::clone(&self.0.value.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it comes from a file.
    #[must_use]
    pub fn is_from_file(&self) -> bool {
        self.0.source != Source::Value
    }

    /// Reads the file of the secret again; true if it has changed. Blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be read, or is empty; the secret stays as it was.
    pub fn reload(&self) -> Result<bool, String> {
        let value = match &self.0.source {
            Source::Value => return Ok(false),
            Source::File(path) => read_secret(path).map_err(|what| format!("{}: {what}", path.display()))?,
            Source::User(path, name) => {
                let users = read_users(path).map_err(|what| format!("{}: {what}", path.display()))?;
                let found = users.into_iter().find(|(other, _)| other == name);
                found
                    .ok_or_else(|| format!("{}: no user {name:?}", path.display()))?
                    .1
            }
        };
        let mut current = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let changed = **current != *value;
        *current = value.into();
        Ok(changed)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source && self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Names and passwords of a file with one `NAME:PASSWORD` a line. Empty lines and lines that begin
/// with `#` are skipped.
pub(super) fn passwords_from_file(path: &Path) -> Result<Vec<(String, Secret)>, String> {
    let users = read_users(path)?;
    for (at, (name, _)) in users.iter().enumerate() {
        if users.iter().take(at).any(|(other, _)| other == name) {
            return Err(format!("user {name:?} is listed twice"));
        }
    }
    let passwords = users.into_iter().map(|(name, password)| {
        let source = Source::User(path.to_owned(), name.clone());
        (name, Secret::from_source(&password, source))
    });
    Ok(passwords.collect())
}

fn read_secret(path: &Path) -> Result<String, String> {
    let text = read(path)?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err("the file is empty".into()),
        secret => Ok(secret.to_owned()),
    }
}

fn read_users(path: &Path) -> Result<Vec<(String, String)>, String> {
    let text = read(path)?;
    let lines = text.lines().enumerate();
    let users = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    users
        .map(|(at, line)| match line.split_once(':') {
            None => Err(format!("line {}: no colon between name and password", at + 1)),
            Some(("", _)) => Err(format!("line {}: the name is empty", at + 1)),
            Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        })
        .collect()
}

/// Messages name what is wrong, never the content.
fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened ({error})"))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read ({error})"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("it is longer than {MAX_FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_read_again_changes_in_all_its_clones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "one\r\n").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        let clone = secret.clone();
        assert_eq!(&*clone.expose(), "one");
        assert_eq!(secret.reload(), Ok(false));
        std::fs::write(&path, " two \n").unwrap();
        assert_eq!(secret.reload(), Ok(true));
        assert_eq!(&*clone.expose(), " two ");
        std::fs::write(&path, "\n").unwrap();
        assert!(secret.reload().unwrap_err().contains("empty"));
        assert_eq!(&*clone.expose(), " two ", "it stays as it was");
    }

    #[test]
    fn passwords_of_users_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "# users\nann:a:b\n\nbob:\n").unwrap();
        let users = passwords_from_file(&path).unwrap();
        let shown: Vec<_> = users
            .iter()
            .map(|(name, password)| (&**name, password.expose().to_string()))
            .collect();
        assert_eq!(shown, [("ann", "a:b".to_owned()), ("bob", String::new())]);
        std::fs::write(&path, "ann:new\n").unwrap();
        assert_eq!(users[0].1.reload(), Ok(true));
        assert_eq!(&*users[0].1.expose(), "new");
        assert!(users[1].1.reload().unwrap_err().contains("no user \"bob\""));
        std::fs::write(&path, "ann:hush\nann:hush\n").unwrap();
        let error = passwords_from_file(&path).unwrap_err();
        assert!(error.contains("twice") && !error.contains("hush"), "{error}");
    }
}
