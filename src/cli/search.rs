//! `windrow search` and `windrow trace`: stored traces in the terminal, from a running server.

use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use super::Settings;
use super::paint::{Paint, duration, harmless};
use super::remote::{ApiClient, Failure, Remote};
use crate::config::Environment;
use crate::exit;

/// Traces of one request: the largest page.
const PAGE: usize = 500;

/// Options of `search`.
#[derive(Debug, Args)]
pub struct Search {
    /// Words and conditions: 'level:>=warn service:order "timed out" -debug'. Without one, all.
    #[arg(value_name = "QUERY")]
    pub query: Vec<String>,
    /// First event not before this: 1h, 2026-11-21, 2026-11-21T09:20:00Z.
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// First event not after this.
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Traces to show at most.
    #[arg(long, short = 'n', default_value_t = 50)]
    pub limit: usize,
    /// Order.
    #[arg(long, default_value = "newest", value_parser = ["newest", "oldest", "slowest", "worst"])]
    pub sort: String,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Options of `trace`.
#[derive(Debug, Args)]
pub struct Trace {
    /// Trace id, or `_id` of a document.
    pub id: String,
    /// One JSON object a line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// Writes the traces that a query finds, and returns the exit code.
pub fn search(
    options: &Search,
    settings: &Settings,
    env: &dyn Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let query = options.query.join(" ");
    let paint = Paint::for_stdout(env);
    let result = ApiClient::new(&options.remote, settings, env).and_then(|client| {
        pages(options, &query, &client, &mut |trace| {
            write_summary(trace, options.json, paint, out)
        })
    });
    match result {
        Ok(partial) => {
            if partial {
                writeln!(
                    err,
                    "windrow search: the time was over before all traces were seen; narrow it with --since"
                )
                .ok();
            }
            exit::OK
        }
        Err(failure) => failure.report("search", &query, err),
    }
}

/// Gives the traces to `each` until it fails, which ends the search without an error: nobody reads
/// any more.
fn pages(
    options: &Search,
    query: &str,
    client: &ApiClient,
    each: &mut dyn FnMut(&Value) -> io::Result<()>,
) -> Result<bool, Failure> {
    let since = options.since.as_deref().map(ago).unwrap_or_default();
    let until = options.until.as_deref().map(ago).unwrap_or_default();
    let mut left = options.limit;
    let (mut cursor, mut partial) = (String::new(), false);
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let page = client.get(
            &["api", "v1", "traces"],
            &[
                ("q", query),
                ("from", &since),
                ("to", &until),
                ("sort", &options.sort),
                ("limit", &limit),
                ("cursor", &cursor),
            ],
        )?;
        for trace in page["traces"].as_array().into_iter().flatten() {
            if each(trace).is_err() {
                return Ok(false);
            }
            left = left.saturating_sub(1);
        }
        partial |= page["partial"] == true;
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    Ok(partial)
}

/// A duration is a time before now.
fn ago(text: &str) -> String {
    let is_duration =
        text.ends_with(|c: char| c.is_ascii_alphabetic()) && windrow_query::parse_duration_ms(text).is_some();
    if is_duration {
        format!("-{text}")
    } else {
        text.to_owned()
    }
}

/// Writes a trace as a line.
pub(super) fn write_summary(trace: &Value, json: bool, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
    if json {
        return writeln!(out, "{trace}");
    }
    let marks: Vec<(usize, usize)> = trace["highlights"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|mark| Some((mark[0].as_u64()? as usize, mark[1].as_u64()? as usize)))
        .collect();
    let id = trace["id"]
        .as_str()
        .or_else(|| trace["key"].as_str())
        .unwrap_or_default();
    let lines = trace["lines"].as_u64().unwrap_or(0);
    writeln!(
        out,
        "{} {} {:>9} {} {} {}  {}",
        paint.dim(text(trace, "time")),
        paint.level(trace["level"].as_str()),
        duration(trace["durationMs"].as_f64().unwrap_or(0.0)),
        paint.dim(&format!("{lines} {}", if lines == 1 { "line" } else { "lines" })),
        harmless(&list(&trace["services"])),
        paint.dim(id),
        paint.marked(text(trace, "text"), &marks),
    )
}

/// Writes the lines of a trace, and returns the exit code.
pub fn trace(
    options: &Trace,
    settings: &Settings,
    env: &dyn Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let paint = Paint::for_stdout(env);
    let answer = ApiClient::new(&options.remote, settings, env)
        .and_then(|client| client.get(&["api", "v1", "traces", &options.id], &[]));
    match answer {
        Ok(answer) => {
            for trace in answer["traces"].as_array().into_iter().flatten() {
                // Nobody reads any more.
                if write_trace(trace, options.json, paint, out).is_err() {
                    break;
                }
            }
            exit::OK
        }
        Err(failure) => failure.report("trace", "", err),
    }
}

fn write_trace(trace: &Value, json: bool, paint: Paint, out: &mut dyn Write) -> io::Result<()> {
    let lines = trace["lines"].as_array().map_or(&[][..], Vec::as_slice);
    if json {
        return lines.iter().try_for_each(|line| writeln!(out, "{line}"));
    }
    let summary = &trace["summary"];
    let index = trace["index"]
        .as_str()
        .map(|index| format!("  {index}"))
        .unwrap_or_default();
    writeln!(
        out,
        "{} {}  {}  {} lines  {}{}",
        paint.level(summary["level"].as_str()),
        harmless(summary["id"].as_str().unwrap_or_else(|| text(summary, "key"))),
        duration(summary["durationMs"].as_f64().unwrap_or(0.0)),
        summary["lines"],
        harmless(&list(&summary["services"])),
        paint.dim(&index),
    )?;
    for line in lines {
        let offset = format!("+{}", duration(line["offsetMs"].as_f64().unwrap_or(0.0)));
        let late = if line["late"] == true {
            paint.dim(" (late)")
        } else {
            String::new()
        };
        let mut rows = line["text"].as_str().unwrap_or_default().lines();
        writeln!(
            out,
            "{} {:>10} {} {}{} {}",
            paint.dim(text(line, "time")),
            offset,
            paint.level(line["level"].as_str()),
            paint.dim(line["service"].as_str().unwrap_or("-")),
            late,
            harmless(rows.next().unwrap_or_default()),
        )?;
        // A stack trace is one line of a trace.
        rows.try_for_each(|row| writeln!(out, "    {}", harmless(row)))?;
    }
    let missing = summary["truncated"].as_u64().unwrap_or(0);
    if missing > 0 {
        let note = format!("{missing} more lines are not in the document: it reached trace.max_trace_bytes");
        writeln!(out, "{}", paint.dim(&note))?;
    }
    Ok(())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list(values: &Value) -> String {
    let values: Vec<_> = values
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if values.is_empty() {
        "-".to_owned()
    } else {
        values.join(",")
    }
}
