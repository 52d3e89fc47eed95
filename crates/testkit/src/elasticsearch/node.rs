//! Java process of a node: class path from Maven (kept in the user's cache), start, SIGKILL,
//! restart.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Client;
use crate::env::{self, Missing};
use crate::ports;
use crate::process::Process;

/// Time for a start: the first one on a busy machine is slow.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// Product and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    version: &'static str,
    main: &'static str,
    /// Oldest Java that runs it.
    java: u32,
}

impl Kind {
    /// Elasticsearch 8.18.8, Java 17 or later.
    pub const ELASTICSEARCH: Self = Self {
        name: "elasticsearch",
        version: "8.18.8",
        main: "org.elasticsearch.node.TestNode",
        java: 17,
    };
    /// Elasticsearch 9.0.4, Java 21 or later.
    pub const ELASTICSEARCH_9: Self = Self {
        version: "9.0.4",
        java: 21,
        ..Self::ELASTICSEARCH
    };
    /// OpenSearch 2.19.5, Java 17 or later.
    pub const OPENSEARCH: Self = Self {
        name: "opensearch",
        version: "2.19.5",
        main: "OpenSearchNode",
        java: 17,
    };

    /// `name version`.
    pub fn title(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    fn sources(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{}-node", self.name))
    }
}

/// A running node. Dropping it kills it; the data folder goes too.
#[derive(Debug)]
pub struct Node {
    kind: Kind,
    class_path: OsString,
    port: u16,
    data: TempDir,
    process: Option<Process>,
}

impl Node {
    /// Starts a node on a free port and an empty folder, and waits until it answers.
    ///
    /// # Errors
    /// When Java or Maven is missing, or Maven cannot get the packages.
    ///
    /// # Panics
    /// When the node does not come up.
    pub fn start(kind: Kind) -> Result<Self, Missing> {
        Self::start_on(kind, ports::free())
    }

    /// [`Self::start`] on a given port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(kind: Kind, port: u16) -> Result<Self, Missing> {
        let class_path = class_path(kind)?;
        let mut node = Self {
            kind,
            class_path,
            port,
            data: data_folder(kind),
            process: None,
        };
        node.start_again();
        Ok(node)
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port, kept over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client for it.
    pub fn client(&self) -> Client {
        Client::new(self.url())
    }

    /// Kills it with SIGKILL. Its folder stays for [`Self::start_again`].
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts it again on the same folder and port.
    ///
    /// # Panics
    /// When it does not come up within two minutes.
    pub fn start_again(&mut self) {
        self.kill();
        let mut command = Command::new(java(self.kind, "java"));
        command
            .args([
                "-Xms512m",
                "-Xmx1g",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=4",
                "-cp",
            ])
            .arg(&self.class_path)
            .arg(self.kind.main)
            .arg(self.port.to_string())
            .arg(self.data.path());
        let mut process = Process::start(&self.kind.title(), &mut command);
        process.line("READY", READY_TIMEOUT, |line| {
            line.starts_with("READY ").then_some(())
        });
        self.process = Some(process);
    }
}

/// `NAME` of `$JAVA_HOME`, or of the newest Java in the usual folder if this product needs one that
/// is newer than the usual 17, or the one on PATH.
fn java(kind: Kind, name: &str) -> OsString {
    let home = std::env::var_os("JAVA_HOME").map(PathBuf::from);
    let home = home.or_else(|| newest_java(kind.java).filter(|_| kind.java > Kind::ELASTICSEARCH.java));
    home.map_or_else(
        || name.into(),
        |home| home.join("bin").join(name).into_os_string(),
    )
}

/// The folder of the newest Java that is installed, if it has at least this version.
fn newest_java(least: u32) -> Option<PathBuf> {
    let homes = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten();
    let versions = homes.filter_map(|home| {
        let release = fs::read_to_string(home.path().join("release")).ok()?;
        let version = release
            .lines()
            .find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
        let major: u32 = version.split(['.', '"']).next()?.parse().ok()?;
        Some((major, home.path()))
    });
    let newest = versions.max()?;
    (newest.0 >= least).then_some(newest.1)
}

/// A folder that the next run removes if this one cannot: a static node is never dropped.
fn data_folder(kind: Kind) -> TempDir {
    let prefix = format!("windrow-{}-", kind.name);
    let base = std::env::temp_dir();
    for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        let alive = Path::new("/proc").join(pid).is_dir();
        if pid.parse::<u32>().is_ok() && !alive {
            // Another test program may be doing the same.
            fs::remove_dir_all(entry.path()).ok();
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{prefix}{}-", std::process::id()))
        .tempdir_in(base)
        .expect("a temporary folder")
}

/// Compiles the node's own classes and asks Maven for the jars, once for all runs.
fn class_path(kind: Kind) -> Result<OsString, Missing> {
    if std::env::var_os("JAVA_HOME").is_none() {
        env::program("java")?;
        if kind.java > Kind::ELASTICSEARCH.java && newest_java(kind.java).is_none() {
            return Err(Missing::new(format!(
                "no Java {} for {}; set JAVA_HOME",
                kind.java,
                kind.title()
            )));
        }
    }
    let sources = kind.sources();
    let files = java_files(&sources.join("src"));
    // The folder's name changes with the sources, so that an edited node is compiled again.
    let stamp: u64 = files
        .iter()
        .chain([&sources.join("pom.xml")])
        .filter_map(|file| fs::read(file).ok())
        .flatten()
        .fold(17, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let cache = env::cache(&format!("{}-{}-{stamp:x}", kind.name, kind.version));
    let list = cache.join("classpath");
    let classes = cache.join("classes");
    env::once(&cache, || {
        let maven = env::program("mvn")?;
        fs::create_dir_all(&classes).map_err(|error| Missing::new(format!("no cache folder: {error}")))?;
        env::run(
            Command::new(maven)
                .args(["-B", "-q", "-f"])
                .arg(sources.join("pom.xml"))
                .arg(format!("-D{}={}", kind.name, kind.version))
                .arg("dependency:build-classpath")
                .arg(format!("-Dmdep.outputFile={}", list.display())),
        )?;
        let jars =
            fs::read_to_string(&list).map_err(|error| Missing::new(format!("no class path: {error}")))?;
        env::run(
            Command::new(java(kind, "javac"))
                .args(["-nowarn", "-cp", jars.trim(), "-d"])
                .arg(&classes)
                .args(&files),
        )?;
        Ok(())
    })?;
    let jars = fs::read_to_string(&list).map_err(|error| Missing::new(format!("no class path: {error}")))?;
    Ok(format!("{}:{}", classes.display(), jars.trim()).into())
}

fn java_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(java_files(&path));
        } else if path.extension().is_some_and(|end| end == "java") {
            files.push(path);
        }
    }
    files.sort();
    files
}
