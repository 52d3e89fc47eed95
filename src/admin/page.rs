//! `/`: the status page, plain HTML with readiness, key metrics and the newest documents.
//!
//! No scripts, no assets; all external text is escaped. The page reloads itself every 5 s.

use std::fmt::{self, Write};

use axum::extract::State;
use axum::http::Uri;
use axum::response::{Html, IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::guard::parameter;
use super::{AdminShared, logs};
use crate::config::{format_duration, format_size};
use crate::metrics::{DocumentResult, Metrics, Output};

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:1.5rem auto;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.4rem 0 .3rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.15rem .8rem .15rem 0;border-bottom:1px solid #8884;vertical-align:top}\
td.n{font-variant-numeric:tabular-nums}td.m{white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,monospace;font-size:.85em}\
.ok{color:#2a8a3e}.bad{color:#c8342b}.dim{opacity:.65}";

/// Number of documents on the page.
const RECENT_DOCUMENTS: usize = 10;
/// Characters of a document's text that are shown.
const MAX_TEXT_CHARS: usize = 400;

/// Renders the page.
pub(super) async fn page(State(shared): State<AdminShared>, uri: Uri) -> Response {
    let recent = logs::find(
        &shared,
        &logs::LogsQuery {
            trace_id: None,
            limit: RECENT_DOCUMENTS,
        },
    )
    .await
    .map_err(|(_, what)| what);
    let state = &shared.state;
    state.metrics.refresh();
    let readiness = (state.readiness)();
    let token = parameter(&uri, "token");
    let mut page = String::with_capacity(16 * 1024);
    // Writing into a `String` cannot fail.
    let _ = head(&mut page, &state.metrics)
        .and_then(|()| health(&mut page, &readiness))
        .and_then(|()| numbers(&mut page, &state.metrics, &state.outputs))
        .and_then(|()| {
            let recent = recent.as_ref().map(|answer| answer.documents.as_slice());
            documents(&mut page, recent, token.as_deref())
        });
    Html(page).into_response()
}

fn head(page: &mut String, metrics: &Metrics) -> fmt::Result {
    let uptime = format_duration(std::time::Duration::from_secs(metrics.uptime().as_secs()));
    write!(
        page,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <meta http-equiv=refresh content=5><title>Windrow</title><style>{STYLE}</style>\
         <h1>Windrow <span class=dim>{} · up {uptime}</span></h1>",
        env!("CARGO_PKG_VERSION"),
    )
}

fn health(page: &mut String, readiness: &super::Readiness) -> fmt::Result {
    if readiness.is_ready() {
        page.write_str("<p class=ok>Ready</p>")?;
    }
    for reason in readiness.fatal.iter().chain(&readiness.reasons) {
        write!(page, "<p class=bad>Not ready: {}</p>", Escaped(reason))?;
    }
    for note in &readiness.notes {
        write!(page, "<p>Note: {}</p>", Escaped(note))?;
    }
    Ok(())
}

fn numbers(page: &mut String, m: &Metrics, outputs: &[Output]) -> fmt::Result {
    let size = |bytes: i64| rounded_size(u64::try_from(bytes).unwrap_or(0));
    section(page, "Intake")?;
    row(
        page,
        "Connections",
        format_args!(
            "{} open, {} so far",
            m.input_connections.get(),
            m.input_connections_total.get()
        ),
    )?;
    row(
        page,
        "Records",
        format_args!(
            "{} received, {} of them repeated",
            m.input_records.get(),
            m.records_duplicate.get()
        ),
    )?;
    row(
        page,
        "Chunks",
        format_args!("{} acknowledged", m.input_chunks_acked.get()),
    )?;
    let refused = (m.input_poison.sum(), m.input_violations.sum());
    row(
        page,
        "Bad input",
        format_args!("{} rejected, {} connections closed", refused.0, refused.1),
    )?;

    section(page, "Gathering")?;
    let open = (
        m.traces_open.get(),
        size(m.traces_open_bytes.get()),
        m.records_open.get(),
    );
    row(
        page,
        "Open",
        format_args!(
            "{} traces, {}; {} records not yet confirmed",
            open.0, open.1, open.2
        ),
    )?;
    row(
        page,
        "Sealed",
        format_args!(
            "{} parts, {} late records",
            m.traces_flushed.sum(),
            m.records_late.get()
        ),
    )?;
    let memory = (size(m.memory_used_bytes.get()), size(m.memory_limit_bytes.get()));
    row(
        page,
        "Memory budget",
        format_args!("{} of {}", memory.0, memory.1),
    )?;

    section(page, "Journal")?;
    let blocked = if m.journal_blocked.get() > 0 {
        " · <b class=bad>full: sockets are not read</b>"
    } else {
        ""
    };
    let journal = (
        size(m.journal_bytes.get()),
        size(m.journal_limit_bytes.get()),
        m.journal_segments.get(),
    );
    row(
        page,
        "On disk",
        format_args!(
            "{} of {} in {} segments{blocked}",
            journal.0, journal.1, journal.2
        ),
    )?;

    section(page, "Outputs")?;
    for output in outputs {
        let o = m.output(*output);
        let done = |result| o.documents[result].get();
        let errors: Vec<_> = o
            .errors
            .iter()
            .filter(|(_, n)| n.get() > 0)
            .map(|(why, n)| format!("{} {why}", n.get()))
            .collect();
        let errors = if errors.is_empty() {
            String::new()
        } else {
            format!("; errors: {}", errors.join(", "))
        };
        row(
            page,
            output.as_str(),
            format_args!(
                "{} created, {} merged, {} unchanged, {} rejected; {} requests in flight{errors}",
                done(DocumentResult::Created),
                done(DocumentResult::Merged),
                done(DocumentResult::Unchanged),
                done(DocumentResult::Rejected),
                o.in_flight.get(),
            ),
        )?;
    }
    let dead: Vec<_> = m
        .dead_letter_documents
        .iter()
        .map(|(from, n)| format!("{} from {}", n.get(), from.as_str()))
        .collect();
    row(
        page,
        "Dead letter",
        format_args!("{}; {}", dead.join(", "), size(m.dead_letter_bytes.get())),
    )?;
    row(
        page,
        "Rejected input",
        format_args!(
            "{} entries, {} of them overwritten; {}",
            m.rejected_entries.get(),
            m.rejected_overwritten.get(),
            size(m.rejected_bytes.get())
        ),
    )?;
    row(
        page,
        "Audit difference",
        format_args!("{}", m.audit_difference.get()),
    )?;
    page.write_str("</table>")
}

fn documents(
    page: &mut String,
    recent: Result<&[Box<RawValue>], &String>,
    token: Option<&str>,
) -> fmt::Result {
    page.write_str("<h2>Newest documents</h2>")?;
    let recent = match recent {
        Ok([]) => return page.write_str("<p class=dim>None yet.</p>"),
        Ok(recent) => recent,
        Err(what) => return write!(page, "<p class=dim>{}</p>", Escaped(what)),
    };
    page.write_str("<table><tr><th>Time<th>Trace<th>Text")?;
    for document in recent {
        let fields: ShownFields<'_> = serde_json::from_str(document.get()).unwrap_or_default();
        let time = first_string(&[fields.time]).unwrap_or_default();
        let trace = first_string(&fields.trace_ids()).unwrap_or_default();
        // A document without a known text field is shown as JSON.
        let text = first_string(&[fields.message, fields.log, fields.msg]);
        let message = text.as_deref().unwrap_or_else(|| document.get());
        write!(page, "<tr><td class=n>{}<td>", Escaped(&time))?;
        if !trace.is_empty() {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("traceId", &trace);
            if let Some(token) = token {
                query.append_pair("token", token);
            }
            write!(
                page,
                "<a href=\"/logs?{}\">{}</a>",
                Escaped(&query.finish()),
                Escaped(&trace)
            )?;
        }
        let text: String = message.chars().take(MAX_TEXT_CHARS).collect();
        let more = if text.len() < message.len() { " …" } else { "" };
        write!(page, "<td class=m>{}{more}", Escaped(&text))?;
    }
    page.write_str("</table>")
}

/// The fields of a document that the page shows. The others are skipped without being built in
/// memory.
#[derive(Default, Deserialize)]
struct ShownFields<'a> {
    #[serde(borrow, rename = "@timestamp")]
    time: Option<&'a RawValue>,
    #[serde(borrow, rename = "traceId")]
    trace_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "trace_id")]
    trace_id_snake: Option<&'a RawValue>,
    #[serde(borrow, rename = "trace.id")]
    trace_id_dotted: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    log: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

impl<'a> ShownFields<'a> {
    fn trace_ids(&self) -> [Option<&'a RawValue>; 3] {
        [self.trace_id, self.trace_id_snake, self.trace_id_dotted]
    }
}

/// The first of the values that is a string.
fn first_string(values: &[Option<&RawValue>]) -> Option<String> {
    let mut values = values.iter().flatten();
    values.find_map(|value| serde_json::from_str(value.get()).ok())
}

fn section(page: &mut String, title: &str) -> fmt::Result {
    if page.contains("<table>") {
        page.write_str("</table>")?;
    }
    write!(page, "<h2>{title}</h2><table>")
}

fn row(page: &mut String, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    write!(page, "<tr><th>{name}<td class=n>{value}")
}

/// A size rounded down to a readable unit.
fn rounded_size(bytes: u64) -> String {
    let unit = [1 << 40, 1 << 30, 1 << 20, 1 << 10]
        .into_iter()
        .find(|unit| bytes >= 8 * unit);
    format_size(unit.map_or(bytes, |unit| bytes / unit * unit))
}

/// Text escaped for HTML, also inside a quoted attribute.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}
