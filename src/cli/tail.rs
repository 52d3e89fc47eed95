//! `windrow tail`: traces as they are sealed, from a running server, until it is interrupted.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::Settings;
use super::paint::Paint;
use super::remote::{ApiClient, Failure, Remote};
use super::search::write_summary;
use crate::config::Environment;
use crate::exit;

/// Wait before a stream that ended is asked for again.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// Options of `tail`.
#[derive(Debug, Args)]
pub struct Tail {
    /// Words and conditions: 'level:>=warn service:order'. Without one, all.
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// End after this number of traces.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub limit: Option<u64>,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Writes traces as they come, and returns the exit code when nobody reads them any more.
pub fn tail(
    options: &Tail,
    settings: &Settings,
    env: &dyn Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let query = options.query.join(" ");
    let followed = ApiClient::new(&options.remote, settings, env)
        .and_then(|client| follow(options, &query, &client, Paint::for_stdout(env), out, err));
    match followed {
        Ok(()) => exit::OK,
        Err(failure) => failure.report("tail", &query, err),
    }
}

/// Follows the stream over restarts of the server. Only the first connection has to succeed.
fn follow(
    options: &Tail,
    query: &str,
    client: &ApiClient,
    paint: Paint,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let mut left = options.limit.unwrap_or(u64::MAX);
    let mut was_connected = false;
    while left > 0 {
        let mut is_connected = false;
        let ended = client.events(&["api", "v1", "tail"], &[("q", query)], &mut |event| {
            is_connected = true;
            let Some(event) = event else {
                return ControlFlow::Continue(());
            };
            match write_event(event, options.json, paint, &mut left, out, err) {
                Ok(()) if left > 0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
        was_connected |= is_connected;
        match ended {
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(failure) if !was_connected || failure.code == exit::USAGE => return Err(failure),
            Ok(ControlFlow::Continue(())) | Err(_) if is_connected => {
                writeln!(err, "windrow tail: the server ended the stream; trying again").ok();
            }
            _ => {}
        }
        std::thread::sleep(RECONNECT_DELAY);
    }
    Ok(())
}

fn write_event(
    event: &str,
    json: bool,
    paint: Paint,
    left: &mut u64,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let event: Value = serde_json::from_str(event)?;
    let traces = event["traces"].as_array().map_or(&[][..], Vec::as_slice);
    for trace in traces.iter().take(usize::try_from(*left).unwrap_or(usize::MAX)) {
        write_summary(trace, json, paint, out)?;
        *left -= 1;
    }
    out.flush()?;
    let lost = event["lost"].as_u64().unwrap_or(0);
    if lost > 0 {
        let note = "came faster than they can be followed; a search finds them";
        writeln!(err, "windrow tail: {lost} traces {note}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_up_to_the_limit_and_losses_are_said() {
        let event = r#"{"traces":[{"id":"a","text":"x\u001b[2J"},{"id":"b"},{"id":"c"}],"lost":7}"#;
        let (mut out, mut err, mut left) = (Vec::new(), Vec::new(), 2);
        write_event(event, false, Paint::new(false), &mut left, &mut out, &mut err).unwrap();
        let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
        assert_eq!((left, out.lines().count()), (0, 2));
        assert!(
            out.contains("a  x\u{fffd}[2J") && !out.contains('\u{1b}'),
            "{out:?}"
        );
        assert!(err.contains("7 traces"), "{err}");
    }
}
