//! `windrow check`: validates the configuration and prints the resolved values.

use std::io::Write;

use crate::config::{ConfigErrors, Loaded, reference_toml};
use crate::exit;

/// Writes all errors to `err`, or the resolved values to `out`, and returns the exit code.
pub fn check(loaded: Result<Loaded, ConfigErrors>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return super::report(&errors, err),
    };
    let written = write(&loaded, out, err).and_then(|()| out.flush());
    if written.is_ok() { exit::OK } else { exit::FAILURE }
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
