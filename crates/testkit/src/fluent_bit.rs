//! A real Fluent Bit, where the machine has one: on PATH or named by `FLUENT_BIT`. No package
//! registry has it, so a test without it is skipped visibly, never failed.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::env::{self, Missing};
use crate::process::Process;

/// The binary.
#[derive(Debug, Clone)]
pub struct FluentBit {
    binary: PathBuf,
}

/// Finds the binary.
///
/// # Errors
/// When there is none.
pub fn find() -> Result<FluentBit, Missing> {
    let named = std::env::var_os("FLUENT_BIT")
        .map(PathBuf::from)
        .filter(|path| path.is_file());
    let binary = named.map_or_else(|| env::program("fluent-bit"), Ok);
    binary
        .map(|binary| FluentBit { binary })
        .map_err(|_| Missing::excused("no fluent-bit binary; set FLUENT_BIT"))
}

impl FluentBit {
    /// Runs it with a configuration in the classic format and the given files in its own scratch
    /// folder, for which `@FOLDER@` stands in the configuration.
    ///
    /// # Panics
    /// When it cannot start.
    pub fn start_with(&self, configuration: &str, files: &[(&str, &str)]) -> Running {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().display().to_string();
        // As its tail input makes a tag of a path.
        let tag = path.trim_start_matches('/').replace('/', ".").replace("..", ".");
        let main = (
            "fluent-bit.conf",
            &*configuration
                .replace("@FOLDER@", &path)
                .replace("@FOLDER_AS_TAG@", &tag),
        );
        for (name, content) in [main].iter().chain(files) {
            std::fs::write(folder.path().join(name), content).expect("a writable folder");
        }
        let mut command = Command::new(&self.binary);
        command
            .arg("-c")
            .arg(folder.path().join("fluent-bit.conf"))
            .current_dir(folder.path());
        Running {
            process: Process::start("fluent-bit", &mut command),
            folder,
        }
    }
}

/// A running Fluent Bit; dropping it kills it.
#[derive(Debug)]
pub struct Running {
    process: Process,
    folder: TempDir,
}

impl Running {
    /// Its scratch folder, for files to tail.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Appends to one of its files.
    ///
    /// # Panics
    /// When that fails.
    pub fn append(&self, name: &str, content: &str) {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.path().join(name));
        file.and_then(|mut file| file.write_all(content.as_bytes()))
            .expect("a writable folder");
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.last_words(60)
    }
}
