//! Environment of the tests: cache folders, programs on PATH, and what to do when one is missing.
//!
//! A test without something that it needs says so in a line that begins with `SKIPPED:`,
//! written past the test harness's capture; with `CI=true` it fails instead, except for what no
//! registry offers (Fluent Bit).

use std::fmt;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A requirement of a test that this machine lacks.
#[derive(Debug, Clone)]
pub struct Missing {
    what: String,
    excused: bool,
}

impl Missing {
    /// `what` is missing; with `CI=true` that fails the test.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            excused: false,
        }
    }

    /// `what` is missing, and no package registry has it: never a failure.
    pub fn excused(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            excused: true,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Unwraps a requirement of a test, or ends the test with a visible line (see [`skip`]).
#[macro_export]
macro_rules! need {
    ($what:expr) => {
        match $what {
            Ok(there) => there,
            Err(missing) => {
                $crate::env::skip(&missing);
                return;
            }
        }
    };
}

/// Prints that the running test is skipped.
///
/// # Panics
/// With `CI=true`, unless the missing thing is excused.
pub fn skip(missing: &Missing) {
    let here = std::thread::current();
    let test = here.name().unwrap_or("a test");
    assert!(
        missing.excused || std::env::var("CI").as_deref() != Ok("true"),
        "{missing} (CI=true: everything that a test needs must be there)"
    );
    // The handle itself, not eprintln!: the test harness captures only the macro.
    writeln!(std::io::stderr(), "SKIPPED: {test}: {missing}").expect("stderr takes a line");
}

/// The path of a program on PATH.
///
/// # Errors
/// When there is none.
pub fn program(name: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| Missing::new(format!("no {name} on PATH")))
}

/// The user's cache folder for one kind of thing, created.
///
/// # Panics
/// When it cannot be created.
pub fn cache(kind: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let folder = base.join("windrow-testkit").join(kind);
    std::fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot create the cache folder {}: {error}", folder.display()));
    folder
}

/// [`cache`] for what is built from `source`: another source, another folder.
pub fn cache_of(kind: &str, source: &str) -> PathBuf {
    cache(&format!("{kind}-{:016x}", fingerprint(source)))
}

fn fingerprint(source: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    source.hash(&mut hasher);
    hasher.finish()
}

/// Puts a script into a cache folder, under a name of its own for each content: tests of another
/// checkout may run another one there at the same time.
///
/// # Panics
/// When it cannot be written.
pub fn script(folder: &Path, name: &str, extension: &str, source: &str) -> PathBuf {
    let file = folder.join(format!("{name}-{:016x}.{extension}", fingerprint(source)));
    let failed = |error| panic!("cannot write {}: {error}", file.display());
    if !file.is_file() {
        // Never half there: another process may be about to run it.
        let part = folder.join(format!("{name}-{}.part", std::process::id()));
        std::fs::write(&part, source).unwrap_or_else(failed);
        std::fs::rename(&part, &file).unwrap_or_else(failed);
    }
    file
}

/// Runs `make` in `folder` once for all runs on this machine: another process that does the same is
/// waited for, and a half-made folder is made again.
///
/// # Errors
/// The error of `make`.
///
/// # Panics
/// When the folder cannot be locked or marked.
pub fn once(folder: &Path, make: impl FnOnce() -> Result<(), Missing>) -> Result<(), Missing> {
    let lock = File::create(folder.join("lock")).expect("the cache folder is writable");
    lock.lock().expect("the cache folder can be locked");
    let ready = folder.join("ready");
    if !ready.is_file() {
        make()?;
        File::create(ready).expect("the cache folder is writable");
    }
    Ok(())
}

/// Runs a set-up command to its end.
///
/// # Errors
/// When it cannot start or fails, with the end of its output.
pub fn run(command: &mut Command) -> Result<String, Missing> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| Missing::new(format!("cannot run {name}: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let all = said + &String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = all.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join(" | ");
    Err(Missing::new(format!("{name} failed ({}): {tail}", output.status)))
}

/// Writes a small file unless it has that content already.
///
/// # Panics
/// When it cannot be written.
pub fn write_same(file: &Path, content: &str) {
    if std::fs::read_to_string(file).ok().as_deref() != Some(content) {
        std::fs::write(file, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
}
