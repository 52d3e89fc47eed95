//! Small disk for one server: a tmpfs in a mount namespace that only this server and its restarts
//! see. Needs no root where the system lets users have namespaces. The mount ends with the process
//! that holds it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::env::Missing;
use crate::process::Process;

/// Commands that enter a namespace: as an ordinary user, and as root where user namespaces are not
/// allowed.
const NAMESPACE_COMMANDS: [(&[&str], &[&str]); 2] = [
    (
        &["--user", "--map-root-user", "--mount"],
        &["--user", "--mount", "--preserve-credentials"],
    ),
    (&["--mount"], &["--mount"]),
];

/// A mounted tmpfs. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Process,
    inside: PathBuf,
    enter: Vec<String>,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts a file system of `bytes`.
    ///
    /// # Errors
    /// When this machine does not let this user mount anything.
    ///
    /// # Panics
    /// When the process that holds it cannot be started.
    pub fn mount(bytes: u64) -> Result<Self, Missing> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inside = folder.path().to_owned();
        let script = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat"#;
        for (unshare, enter) in NAMESPACE_COMMANDS {
            let mut command = Command::new("unshare");
            command
                .args(unshare)
                .args(["sh", "-c", script, "sh", &bytes.to_string()])
                .arg(&inside);
            let mut holder = Process::start("the holder of a small disk", &mut command);
            let mounted = crate::wait::until("a mount, or a refusal", Duration::from_secs(30), || {
                if holder.stdout().iter().any(|line| line == "mounted") {
                    Ok(true)
                } else if holder.poll().is_some() {
                    Ok(false)
                } else {
                    Err("neither".to_owned())
                }
            });
            if mounted {
                let pid = holder.pid().to_string();
                let words = ["nsenter", "--target", &pid];
                return Ok(Self {
                    enter: words.iter().chain(enter).map(|&word| word.to_owned()).collect(),
                    holder,
                    inside,
                    _folder: folder,
                });
            }
        }
        Err(Missing::excused(
            "this machine lets this user mount nothing (unshare --mount)",
        ))
    }

    /// Where it is mounted, for programs that run inside (see [`SmallDisk::enter`]).
    pub fn inside(&self) -> &Path {
        &self.inside
    }

    /// The same folder, for this process.
    pub fn outside(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.holder.pid());
        let below = self.inside.strip_prefix("/").unwrap_or(&self.inside);
        Path::new(&root).join(below)
    }

    /// Prefix of the command line of a program that runs inside.
    pub fn enter(&self) -> &[String] {
        &self.enter
    }
}
