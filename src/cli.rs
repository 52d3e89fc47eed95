//! The command line: which command, which settings. `windrow` alone is `windrow serve`.
//!
//! Owns the commands and what they print. The settings' flags are not written here; they come from the table of
//! keys in `config`. Starting the server is `main`'s and `pipeline`'s affair.
//!
//! A new command is a variant of [`Command`] and, if it does something of its own, a file in this folder.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Environment, Loaded, Mistakes, Sources, load, parse_duration};
use crate::exit;

mod check;
mod health;
mod inspect;
mod replay;
mod settings;
#[cfg(test)]
mod tests;

pub use check::{check, reference};
pub use health::health;
pub use inspect::run as inspect;
pub use replay::run as replay;
pub use settings::Settings;

const EXAMPLES: &str = "\
Examples:
  windrow                                        serve with the embedded database in ./windrow-data
  windrow --output elasticsearch --elasticsearch-url http://127.0.0.1:9200
  windrow --listen 127.0.0.1:0 --output stdout   any free port, documents as NDJSON on standard output
  windrow check --config windrow.toml            every mistake at once, or the resolved values

Send a record with any Forward client (Fluent Bit: output \"forward\", Require_ack_response true) and look at it:
  curl 'http://127.0.0.1:2020/logs?traceId=abc'

Exit codes: 0 done or stopped cleanly, 1 failed while running, 64 command line or configuration wrong,
130 ended at once by a second signal.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "windrow",
    version,
    about = "Makes Forward chunks durable, acknowledges them, and writes one document per trace",
    long_about = "Windrow is a Forward-protocol server (Fluent Bit, Fluentd, every fluent logger). It makes each chunk durable, \
                  acknowledges it, gathers the lines of one trace, and writes exactly one document per trace to \
                  Elasticsearch, to its embedded database, or to standard output.",
    after_help = EXAMPLES,
    max_term_width = 110,
    subcommand_help_heading = "Commands"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (also without a command).
    #[command(after_help = EXAMPLES)]
    Serve(Serve),
    /// Check the configuration: print every mistake, or the resolved values with their sources.
    Check(Check),
    /// Ask a running server on its admin port whether it is well; for container checks.
    Health(Health),
    /// Send the documents of the dead letter to Elasticsearch again.
    Replay(Replay),
    /// Show it all on this machine: services, sidecars, requests, a kill in the middle; each request one document.
    Demo(windrow_demo::showcase::Options),
    /// Measure this machine in a minute against its own floor: CPU time per record, rates, acknowledgements, memory.
    #[command(after_long_help = windrow_bench::LEGEND)]
    Bench(windrow_bench::Options),
    /// The floor of `bench`, started by it.
    #[command(hide = true)]
    BenchFloor(windrow_bench::baseline::Options),
    /// Look into the journal of a data folder.
    #[command(subcommand)]
    Journal(Journal),
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Show what would be sent, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Commands of `journal`.
#[derive(Debug, Subcommand)]
pub enum Journal {
    /// Show segments, records and damage. Changes nothing; a server may be running.
    Inspect {
        /// The data folder, or the journal folder in it.
        dir: std::path::PathBuf,
    },
}

/// Options of `serve`.
#[derive(Debug, Default, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
}

/// Options of `check`.
#[derive(Debug, Args)]
pub struct Check {
    /// Print the annotated reference configuration instead, every key with its default.
    #[arg(long)]
    pub reference: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Options of `health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Ask whether it is ready instead of whether it is alive.
    #[arg(long)]
    pub ready: bool,
    /// Longest wait for the answer.
    #[arg(long, default_value = "3s", value_parser = |text: &str| parse_duration(text))]
    pub timeout: Duration,
    #[command(flatten)]
    settings: Settings,
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// The exit code, after the help, the version or the mistake has been written to `out` or `err`.
    pub fn read(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<Self, u8> {
        Self::try_parse_from(args).map_err(|error| {
            // Where nobody listens any more there is nobody to tell.
            let text = error.render();
            let _ = if error.use_stderr() {
                write!(err, "{text}")
            } else {
                write!(out, "{text}")
            };
            if error.use_stderr() { exit::USAGE } else { exit::OK }
        })
    }

    /// Takes it apart: the command, and the settings from before and after its name.
    #[must_use]
    pub fn into_parts(self) -> (Command, Settings) {
        let mut command = self.command.unwrap_or_else(|| Command::Serve(Serve::default()));
        let mut none = Settings::default();
        let inner = std::mem::take(match &mut command {
            Command::Serve(serve) => &mut serve.settings,
            Command::Check(check) => &mut check.settings,
            Command::Health(health) => &mut health.settings,
            Command::Replay(replay) => &mut replay.settings,
            Command::Bench(_) | Command::BenchFloor(_) | Command::Demo(_) | Command::Journal(_) => &mut none,
        });
        (command, self.settings.overridden_by(inner))
    }
}

impl Settings {
    /// Brings these settings together with environment and file.
    ///
    /// # Errors
    /// Every mistake.
    pub fn load(&self, env: &dyn Environment) -> Result<Loaded, Mistakes> {
        load(Sources {
            file: self.config.clone(),
            flags: self.flags.clone(),
            env,
        })
    }
}

/// Writes the mistakes, one a line, and gives the exit code for them.
pub fn report(mistakes: &Mistakes, err: &mut dyn Write) -> u8 {
    let count = mistakes.0.len();
    let word = if count == 1 { "mistake" } else { "mistakes" };
    // Where nobody listens any more there is nobody to tell; the exit code remains.
    let _ = writeln!(
        err,
        "{mistakes}\n{count} {word} in the configuration; `windrow check --reference` shows every key"
    );
    exit::USAGE
}
