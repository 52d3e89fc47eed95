//! `windrow check`: validates the configuration, prints the resolved values, asks the store.

use std::io::Write;

use crate::config::{Config, ConfigErrors, Loaded, OutputKind, reference_toml};
use crate::exit;
use crate::output::elasticsearch::Finding;
use crate::pipeline::open_elasticsearch;

/// Writes all errors to `err`, or the resolved values to `out`, and returns the exit code.
pub fn check(loaded: Result<Loaded, ConfigErrors>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return super::report(&errors, err),
    };
    let written = write(&loaded, out, err).and_then(|()| out.flush());
    if written.is_ok() { exit::OK } else { exit::FAILURE }
}

/// [`check`], and what the store of the documents says. The exit code is 1 if documents cannot be
/// written.
pub fn connect(loaded: Result<Loaded, ConfigErrors>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return super::report(&errors, err),
    };
    for warning in &loaded.warnings {
        // A closed pipe cannot be reported anywhere.
        writeln!(err, "warning: {warning}").ok();
    }
    let peers_answer = ask_peers(&loaded.config, out);
    if !loaded.config.outputs.contains(&OutputKind::Elasticsearch) {
        writeln!(
            out,
            "ok       no store to connect to: documents do not go to Elasticsearch"
        )
        .ok();
        return if peers_answer { exit::OK } else { exit::FAILURE };
    }
    let found = open_elasticsearch(&loaded.config)
        .map_err(|error| error.to_string())
        .and_then(|output| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| error.to_string())?;
            Ok(runtime.block_on(output.inspect()))
        });
    let findings = found.unwrap_or_else(|error| vec![Finding::Problem(error)]);
    for finding in &findings {
        writeln!(out, "{finding}").ok();
    }
    if findings
        .iter()
        .any(|finding| matches!(finding, Finding::Problem(_)))
        || !peers_answer
    {
        exit::FAILURE
    } else {
        exit::OK
    }
}

/// Asks the peers of `cluster.peers` whether they take records. Returns whether all do.
fn ask_peers(config: &Config, out: &mut dyn Write) -> bool {
    if config.cluster.peers.is_empty() {
        return true;
    }
    let asked = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            let asking = crate::cluster::inspect(config);
            runtime.block_on(asking).map_err(|error| error.to_string())
        });
    let lines = asked.unwrap_or_else(|error| vec![(false, error)]);
    for (is_good, line) in &lines {
        let kind = if *is_good { "ok      " } else { "problem " };
        writeln!(out, "{kind} {line}").ok();
    }
    lines.iter().all(|(is_good, _)| *is_good)
}

/// Writes the annotated reference configuration, and returns the exit code.
pub fn reference(out: &mut dyn Write) -> u8 {
    let written = out
        .write_all(reference_toml().as_bytes())
        .and_then(|()| out.flush());
    if written.is_ok() { exit::OK } else { exit::FAILURE }
}

fn write(loaded: &Loaded, out: &mut dyn Write, err: &mut dyn Write) -> std::io::Result<()> {
    for warning in &loaded.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    writeln!(out, "configuration ok")?;
    let lines: Vec<_> = loaded
        .settings
        .iter()
        .map(|setting| {
            (
                format!(
                    "{} = {}",
                    setting.key,
                    setting.value.as_deref().unwrap_or("(not set)")
                ),
                &setting.source,
            )
        })
        .collect();
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .filter(|width| *width <= 60)
        .max()
        .unwrap_or(0);
    for (line, source) in lines {
        writeln!(out, "{line:width$}  # {source}")?;
    }
    Ok(())
}
