//! Command line: commands and settings. `windrow` alone is `windrow serve`.
//!
//! Owns the commands and their output. The flags of settings are generated from the table of keys
//! in `config`. Does not start the server: `main` and `pipeline` do.
//!
//! A new command is a variant of [`Command`], with a file in this folder if it has code of its own.

use std::ffi::OsString;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigErrors, Environment, Loaded, Sources, load, parse_duration};
use crate::exit;

mod check;
mod health;
mod inspect;
mod paint;
mod remote;
mod replay;
mod search;
mod settings;
mod tail;
#[cfg(test)]
mod tests;
mod top;

pub use check::{check, connect, reference};
pub use health::health;
pub use inspect::run as inspect;
pub use replay::run as replay;
pub use search::{Search, Trace, search, trace};
pub use settings::Settings;
pub use tail::{Tail, tail};
pub use top::{Top, top};

const EXAMPLES: &str = "\
Examples:
  windrow                                        serve with the embedded database in ./windrow-data
  windrow --output elasticsearch --elasticsearch-url http://127.0.0.1:9200
  windrow --listen 127.0.0.1:0 --output stdout   any free port, documents as NDJSON on standard output
  windrow check --config windrow.toml            all errors at once, or the resolved values
  windrow search 'level:error timeout' --since 1h
  windrow trace abc                              the lines of one trace
  windrow tail 'level:>=warn'                    traces as they are sealed
  windrow top                                    throughput, latency and outputs, live

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

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve (also without a command).
    #[command(after_help = EXAMPLES)]
    Serve(Serve),
    /// Check the configuration: print all errors, or the resolved values with their sources.
    Check(Check),
    /// Ask a running server on its admin port for its health; for container health checks.
    Health(Health),
    /// Search the traces of a running server.
    Search(Search),
    /// Show the lines of one trace in the order of their times.
    Trace(Trace),
    /// Show traces as they are sealed, until interrupted.
    Tail(Tail),
    /// Show throughput, latency, journal, outputs and services by errors, live.
    Top(Top),
    /// Send the documents of the dead letter to Elasticsearch again.
    Replay(Replay),
    /// Show it all on this machine: services, sidecars, requests, a kill in the middle; each
    /// request one document.
    Demo(windrow_demo::showcase::Options),
    /// Measure this machine in a minute against a baseline server: CPU time per record, rates,
    /// acknowledgements, memory.
    #[command(after_long_help = windrow_bench::LEGEND)]
    Bench(windrow_bench::Options),
    /// The baseline server of `bench`, started by it.
    #[command(hide = true)]
    BenchFloor(windrow_bench::baseline::Options),
    /// Inspect the journal of a data folder.
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
    /// Show segments, records and damage. Read-only; a server may be running.
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
    /// Ask the store of the documents too: version, privileges, index, template, disk, clock.
    #[arg(long)]
    pub connect: bool,
    #[command(flatten)]
    settings: Settings,
}

/// Options of `health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Ask for readiness instead of health.
    #[arg(long)]
    pub ready: bool,
    /// Timeout of the request.
    #[arg(long, default_value = "3s", value_parser = |text: &str| parse_duration(text))]
    pub timeout: Duration,
    #[command(flatten)]
    settings: Settings,
}

impl Cli {
    /// Parses a command line that begins with the program's name.
    ///
    /// # Errors
    /// The exit code, after help, version or error were written to `out` or `err`.
    pub fn read(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<Self, u8> {
        Self::try_parse_from(args).map_err(|error| {
            // A closed pipe cannot be reported anywhere.
            let text = error.render();
            let _ = if error.use_stderr() {
                write!(err, "{text}")
            } else {
                write!(out, "{text}")
            };
            if error.use_stderr() { exit::USAGE } else { exit::OK }
        })
    }

    /// The command, and the settings from before and after its name.
    #[must_use]
    pub fn into_parts(self) -> (Command, Settings) {
        let mut command = self.command.unwrap_or_else(|| Command::Serve(Serve::default()));
        let mut none = Settings::default();
        let inner = std::mem::take(match &mut command {
            Command::Serve(serve) => &mut serve.settings,
            Command::Check(check) => &mut check.settings,
            Command::Health(health) => &mut health.settings,
            Command::Replay(replay) => &mut replay.settings,
            Command::Search(search) => &mut search.settings,
            Command::Trace(trace) => &mut trace.settings,
            Command::Tail(tail) => &mut tail.settings,
            Command::Top(top) => &mut top.settings,
            Command::Bench(_) | Command::BenchFloor(_) | Command::Demo(_) | Command::Journal(_) => &mut none,
        });
        (command, self.settings.overridden_by(inner))
    }
}

impl Settings {
    /// Loads the configuration with these settings, the environment and the file.
    ///
    /// # Errors
    /// All errors.
    pub fn load(&self, env: &dyn Environment) -> Result<Loaded, ConfigErrors> {
        load(Sources {
            file: self.config.clone(),
            flags: self.flags.clone(),
            env,
        })
    }
}

/// Writes the errors, one per line, and returns the exit code.
pub fn report(errors: &ConfigErrors, err: &mut dyn Write) -> u8 {
    let count = errors.0.len();
    let word = if count == 1 { "error" } else { "errors" };
    // A closed pipe cannot be reported anywhere; the exit code remains.
    let _ = writeln!(
        err,
        "{errors}\n{count} {word} in the configuration; `windrow check --reference` shows every key"
    );
    exit::USAGE
}
