//! Fluency (`org.komamitsu:fluency-core` and `fluency-fluentd`) behind a small program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::feed;
use crate::env::{self, Missing};

const VERSION: &str = "2.7.3";

/// The compiled program with its class path.
#[derive(Debug)]
pub struct Java {
    java: PathBuf,
    class_path: String,
}

impl Java {
    /// Fetches and compiles, once for all runs.
    ///
    /// # Errors
    /// When Java or Maven is missing, or Maven cannot get the packages.
    pub fn set_up() -> Result<Self, Missing> {
        let java = env::program("java")?;
        let folder = env::cache(&format!("fluency-{VERSION}"));
        let list = folder.join("classpath");
        env::once(&folder, || {
            let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("loggers/fluency/pom.xml");
            env::run(
                Command::new(env::program("mvn")?)
                    .args(["-B", "-q", "-f"])
                    .arg(pom)
                    .arg(format!("-Dfluency={VERSION}"))
                    .arg("dependency:build-classpath")
                    .arg(format!("-Dmdep.outputFile={}", list.display())),
            )?;
            let jars = read(&list)?;
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("loggers/fluency/Send.java");
            let javac = env::program("javac")?;
            env::run(
                Command::new(javac)
                    .args(["-nowarn", "-cp", &jars, "-d"])
                    .arg(&folder)
                    .arg(source),
            )?;
            Ok(())
        })?;
        let class_path = format!("{}:{}", folder.display(), read(&list)?);
        Ok(Self { java, class_path })
    }

    /// Sends records with acks.
    ///
    /// # Panics
    /// When the logger reports an error, or does not get rid of its buffer.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, tag: &str, records: &[Value]) {
        feed(
            Command::new(&self.java)
                .args(["-cp", &self.class_path, "Send"])
                .args([to.ip().to_string(), to.port().to_string(), tag.to_owned()]),
            records,
        );
    }
}

fn read(list: &Path) -> Result<String, Missing> {
    let text = std::fs::read_to_string(list)
        .map_err(|error| Missing::new(format!("no class path of Fluency: {error}")))?;
    Ok(text.trim().to_owned())
}
