//! `windrow top`: throughput, latency, journal, outputs and services by errors of a running server,
//! as a live table; in a pipe a line for each look.

mod screen;

use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};

use super::Settings;
use super::paint::{Paint, duration, harmless};
use super::remote::{ApiClient, Failure, Remote};
use crate::config::{Environment, parse_duration};
use crate::exit;

/// The errors of services are those of this time.
const ERRORS_SINCE: &str = "-15m";

/// Options of `top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Time between two looks.
    #[arg(long, default_value = "2s", value_parser = |text: &str| parse_duration(text))]
    pub interval: Duration,
    /// End after this number of looks.
    #[arg(long, short = 'n', value_name = "NUMBER")]
    pub count: Option<u64>,
    /// One JSON object for each look, also on a terminal.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    pub(super) settings: Settings,
}

/// What one look sees.
#[derive(Debug, Default)]
struct Look {
    /// The answer of `/api/v1/stats`.
    stats: Value,
    /// Traces with an error by service, the most first; `None` if the store cannot be searched.
    errors: Option<Vec<(String, u64)>>,
}

impl Look {
    fn take(client: &ApiClient) -> Result<Self, Failure> {
        let stats = client.get(&["api", "v1", "stats"], &[("series", "1")])?;
        let query = [("q", "level:>=error"), ("from", ERRORS_SINCE)];
        let facets = client.get(&["api", "v1", "facets"], &query).ok();
        let errors = facets.map(|facets| {
            let services = facets["services"].as_array().cloned().unwrap_or_default();
            let service = |value: &Value| {
                let name = harmless(value["value"].as_str().unwrap_or_default());
                (name, value["count"].as_u64().unwrap_or(0))
            };
            services.iter().map(service).collect()
        });
        Ok(Self { stats, errors })
    }

    fn number(&self, pointer: &str) -> f64 {
        self.stats.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    /// A share of its limit, from 0 to 1.
    fn share(&self, used: &str, limit: &str) -> f64 {
        let limit = self.number(limit);
        if limit > 0.0 {
            (self.number(used) / limit).clamp(0.0, 1.0)
        } else {
            0.0
        }
    }

    fn journal(&self) -> f64 {
        self.share("/journal/bytes", "/journal/limitBytes")
    }

    fn memory(&self) -> f64 {
        self.share("/memory/usedBytes", "/memory/limitBytes")
    }

    fn is_ready(&self) -> bool {
        self.stats["readiness"]["ready"] == true
    }

    /// A latency; `-` while nothing was acknowledged.
    fn latency(&self, pointer: &str) -> String {
        let value = self.stats.pointer(pointer).and_then(Value::as_f64);
        value.map_or_else(
            || "-".to_owned(),
            |ms| {
                if ms < 100.0 {
                    format!("{ms:.1} ms")
                } else {
                    duration(ms)
                }
            },
        )
    }

    /// Everything on one line, for a pipe.
    fn line(&self) -> String {
        let mut line = format!(
            "{}  records/s {:.0}  documents/s {:.0}  errors/s {:.1}  ack {} p99 {}  journal {:.1} %  \
             memory {:.1} %  open {:.0}  dead letter {:.0}",
            if self.is_ready() { "ready" } else { "not ready" },
            self.number("/now/recordsPerSecond"),
            self.number("/now/documentsPerSecond"),
            self.number("/now/errorsPerSecond"),
            self.latency("/now/ackLatencyMs"),
            self.latency("/now/ackLatencyP99Ms"),
            self.journal() * 100.0,
            self.memory() * 100.0,
            self.number("/open/traces"),
            self.number("/deadLetter/documents"),
        );
        let errors = self.errors.iter().flatten().take(5);
        let errors: Vec<_> = errors.map(|(name, count)| format!("{name}={count}")).collect();
        if !errors.is_empty() {
            line += &format!("  errors by service {}", errors.join(" "));
        }
        line
    }

    fn json(&self) -> Value {
        let mut stats = self.stats.clone();
        if let Some(stats) = stats.as_object_mut() {
            stats.remove("series");
        }
        let errors = self.errors.as_ref().map(|errors| {
            let service = |(name, count): &(String, u64)| json!({ "service": name, "traces": count });
            errors.iter().map(service).collect::<Vec<_>>()
        });
        json!({ "stats": stats, "errorsByService": errors })
    }
}

/// Shows looks until `q`, or until nobody reads them, and returns the exit code.
pub fn top(
    options: &Top,
    settings: &Settings,
    env: &dyn Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let shown = ApiClient::new(&options.remote, settings, env).and_then(|client| {
        if io::stdout().is_terminal() && !options.json {
            live(options, &client, Paint::for_stdout(env))
        } else {
            lines(options, &client, out)
        }
    });
    match shown {
        Ok(()) => exit::OK,
        Err(failure) => failure.report("top", "", err),
    }
}

/// A line for each look.
fn lines(options: &Top, client: &ApiClient, out: &mut dyn Write) -> Result<(), Failure> {
    let mut left = options.count.unwrap_or(u64::MAX);
    while left > 0 {
        let look = Look::take(client)?;
        let written = if options.json {
            writeln!(out, "{}", look.json())
        } else {
            writeln!(out, "{}", look.line())
        };
        left -= 1;
        // Nobody reads any more.
        if written.and_then(|()| out.flush()).is_err() {
            break;
        }
        if left > 0 {
            std::thread::sleep(options.interval);
        }
    }
    Ok(())
}

/// The live table. Only the first look has to succeed.
fn live(options: &Top, client: &ApiClient, paint: Paint) -> Result<(), Failure> {
    let mut look = Look::take(client)?;
    let failed = |error: io::Error| Failure::new(format!("the terminal: {error}"), exit::FAILURE);
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let mut left = options.count.unwrap_or(u64::MAX);
    let mut trouble = None;
    let shown = loop {
        let address = client.shown();
        let drawn = terminal.draw(|frame| {
            screen::draw(frame, &look, trouble.as_deref(), address, paint.has_colours());
        });
        if let Err(error) = drawn {
            break Err(error);
        }
        left -= 1;
        match is_ended(options.interval) {
            Ok(false) if left > 0 => {}
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
        match Look::take(client) {
            Ok(newest) => (look, trouble) = (newest, None),
            Err(failure) => trouble = Some(failure.message),
        }
    };
    ratatui::try_restore().map_err(failed)?;
    shown.map_err(failed)
}

/// Waits, and says whether a key asked for the end. A change of the window's size ends the wait.
fn is_ended(interval: Duration) -> io::Result<bool> {
    let until = Instant::now() + interval;
    while event::poll(until.saturating_duration_since(Instant::now()))? {
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => {
                let control_c =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(true);
                }
            }
            Event::Resize(..) => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}
