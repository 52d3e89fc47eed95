//! Fluency (`org.komamitsu:fluency-core` and `fluency-fluentd`) behind a small program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{arguments, feed};
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
        let folder = env::cache_of(
            &format!("fluency-{VERSION}"),
            include_str!("../../loggers/fluency/Send.java"),
        );
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

    /// Sends records with properties of `FluencyBuilderForFluentd`, and `ca`, the PEM text of an
    /// authority to trust. A record's own `_time` (Unix seconds) becomes the event time: an
    /// `EventTime` when it has a fraction.
    ///
    /// # Panics
    /// When the logger reports an error, or does not get rid of its buffer.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, tag: &str, options: &Value, records: &[Value]) {
        let mut command = Command::new(&self.java);
        command.args(["-cp", &self.class_path, "Send"]);
        feed(command.args(arguments(to, tag, options)), records);
    }
}

fn read(list: &Path) -> Result<String, Missing> {
    let text = std::fs::read_to_string(list)
        .map_err(|error| Missing::new(format!("no class path of Fluency: {error}")))?;
    Ok(text.trim().to_owned())
}
