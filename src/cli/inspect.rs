//! `windrow journal inspect DIR`: read-only report on a journal.

use std::io::Write;
use std::path::Path;

use crate::config::Config;
use crate::exit;
use crate::input::forward::FORWARD_MESSAGES;

use crate::gather::UnreleasedSummary;

/// Runs the command. Returns the exit code: 1 if the journal is damaged or cannot be read.
pub fn run(dir: &Path, config: &Config, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    // Accepts the data folder too, of which the journal is a subfolder.
    let below = dir.join("journal");
    let dir = if below.is_dir() { &below } else { dir };
    let mut summary = UnreleasedSummary::new(config);
    match windrow_journal::inspect_with(dir, &mut |kind, payload| {
        if kind == FORWARD_MESSAGES {
            summary.add_record(payload);
        }
    }) {
        Ok(report) => {
            write!(out, "{report}").ok();
            writeln!(out, "{summary}").ok();
            if report.is_damaged() {
                exit::FAILURE
            } else {
                exit::OK
            }
        }
        Err(error) => {
            writeln!(err, "windrow journal inspect: {error}").ok();
            exit::FAILURE
        }
    }
}
