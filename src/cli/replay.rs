//! `windrow replay`: sends the documents of the dead letter to Elasticsearch again.
//!
//! Owns its output. A server may be running on the same data folder. Documents that are refused
//! again stay, with the new reason.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

use super::Replay;
use crate::config::{Config, OutputKind};
use crate::exit;
use crate::output::dead_letter::count_rejected;
use crate::output::elasticsearch::Elasticsearch;
use crate::output::replay::{ReplaySummary, dry_run, replay};
use crate::pipeline::open_elasticsearch;

/// Runs the command. Returns the exit code: 0 if no document of this output remains, 1 otherwise.
pub fn run(command: &Replay, config: &Config, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let folder = &config.dead_letter.dir;
    let result = if command.dry_run {
        dry_run(folder).map(|summary| {
            show_found(&summary, out);
            show_rejected(config, out);
            exit::OK
        })
    } else if !config.outputs.contains(&OutputKind::Elasticsearch) {
        writeln!(
            err,
            "windrow replay: sends to Elasticsearch; give --output elasticsearch and its --elasticsearch-url"
        )
        .ok();
        return exit::USAGE;
    } else {
        match open_elasticsearch(config) {
            Ok(output) => send(config, &output).map(|summary| {
                show_found(&summary, out);
                show_sent(&summary, out);
                show_rejected(config, out);
                if summary.refused + summary.postponed > 0 {
                    exit::FAILURE
                } else {
                    exit::OK
                }
            }),
            Err(error) => Err(std::io::Error::other(error)),
        }
    };
    result.unwrap_or_else(|error| {
        writeln!(err, "windrow replay: {}: {error}", folder.display()).ok();
        exit::FAILURE
    })
}

fn send(config: &Config, output: &Elasticsearch) -> std::io::Result<ReplaySummary> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let bar = if std::io::stderr().is_terminal() {
        let total = dry_run(&config.dead_letter.dir)?.entries;
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {msg}, {elapsed}");
        ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    } else {
        ProgressBar::hidden()
    };
    let summary = runtime.block_on(replay(
        &config.dead_letter.dir,
        async |entries| output.replay(entries).await,
        |so_far| {
            bar.set_position(so_far.entries);
            bar.set_message(format!(
                "{} written, {} refused again",
                so_far.written, so_far.refused
            ));
        },
    ));
    bar.finish_and_clear();
    summary
}

fn show_found(summary: &ReplaySummary, out: &mut dyn Write) {
    writeln!(out, "{} entries in the dead letter", summary.entries).ok();
    for (kind, count) in &summary.kinds {
        writeln!(out, "  {count:>8}  {kind}").ok();
    }
    if summary.unreadable > 0 {
        writeln!(
            out,
            "  {:>8}  lines that cannot be read; they stay",
            summary.unreadable
        )
        .ok();
    }
}

/// Says that rejected input is not replayed, if there is some.
fn show_rejected(config: &Config, out: &mut dyn Write) {
    let folder = &config.rejected.dir;
    match count_rejected(folder) {
        Ok(0) => Ok(()),
        Ok(entries) => writeln!(
            out,
            "{entries} entries of rejected input in {} are not replayed: they are no documents",
            folder.display()
        ),
        Err(error) => writeln!(out, "rejected input in {}: {error}", folder.display()),
    }
    .ok();
}

fn show_sent(summary: &ReplaySummary, out: &mut dyn Write) {
    let ReplaySummary {
        written,
        refused,
        postponed,
        not_replayable,
        first_reason,
        ..
    } = summary;
    writeln!(
        out,
        "{written} written, {refused} refused again, {postponed} not attempted, {not_replayable} not for Elasticsearch"
    )
    .ok();
    if let Some(reason) = first_reason {
        writeln!(out, "first reason: {reason}").ok();
    }
}
