//! Senders of OTLP: the OpenTelemetry SDK for Python, and the exporters of the Collector.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::feed;
use super::python::environment;
use crate::env::{self, Missing};

const SDK_VERSION: &str = "1.45.2";

/// A Python with the SDK.
#[derive(Debug)]
pub struct OtlpPython {
    interpreter: PathBuf,
    script: PathBuf,
}

impl OtlpPython {
    /// Sets the environment up, once for all runs.
    ///
    /// # Errors
    /// When there is no python3, or pip cannot install.
    pub fn set_up() -> Result<Self, Missing> {
        let folder = env::cache(&format!("otlp-python-{SDK_VERSION}"));
        let packages = ["sdk", "exporter-otlp-proto-http", "exporter-otlp-proto-grpc"];
        let packages = packages.map(|name| format!("opentelemetry-{name}=={SDK_VERSION}"));
        let interpreter = environment(&folder, &packages)?;
        let script = env::script(&folder, "otlp", "py", include_str!("../../loggers/otlp.py"));
        Ok(Self { interpreter, script })
    }

    /// Logs with the logging handler, a span for each record: `{"span": NAME, "lines": [...]}`.
    /// `kind` is `http` or `grpc`. Gives trace and span id of each span.
    ///
    /// # Panics
    /// When the SDK reports an error.
    #[track_caller]
    pub fn send(&self, kind: &str, endpoint: &str, records: &[Value]) -> Vec<(String, String)> {
        let said = feed(
            Command::new(&self.interpreter)
                .arg(&self.script)
                .args([kind, endpoint]),
            records,
        );
        let ids = said.lines().filter_map(|line| line.split_once(' '));
        ids.map(|(trace, span)| (trace.to_owned(), span.to_owned()))
            .collect()
    }
}

/// The Collector's exporters behind a small program.
#[derive(Debug)]
pub struct Collector {
    binary: PathBuf,
}

impl Collector {
    /// Builds it, once for all runs.
    ///
    /// # Errors
    /// When there is no go, or the modules cannot be fetched.
    pub fn set_up() -> Result<Self, Missing> {
        let go = env::program("go")?;
        let source = concat!(
            include_str!("../../loggers/collector/main.go"),
            include_str!("../../loggers/collector/go.mod")
        );
        let folder = env::cache_of("collector", source);
        let binary = folder.join("collector");
        env::once(&folder, || {
            let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("loggers/collector");
            env::run(
                Command::new(&go)
                    .args(["build", "-o"])
                    .arg(&binary)
                    .arg(".")
                    .current_dir(program),
            )
            .map(drop)
        })?;
        Ok(Self { binary })
    }

    /// Sends records, whose fields become the body of a log record, and their `_time` its time.
    /// `kind` is `otlphttp` or `otlp` (gRPC), `encoding` is `proto` or `json`.
    ///
    /// # Panics
    /// When the exporter reports an error.
    #[track_caller]
    pub fn send(&self, kind: &str, endpoint: &str, encoding: &str, records: &[Value]) {
        feed(
            Command::new(&self.binary).args([kind, endpoint, encoding]),
            records,
        );
    }
}
