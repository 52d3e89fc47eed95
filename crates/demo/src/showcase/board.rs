//! Terminal output of the showcase: a table that is redrawn in place, or one line per event. Owns
//! when a request's document is complete.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::documents;

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) trace: String,
    app: &'static str,
    result: String,
    succeeded: bool,
    /// The level that its document must have.
    level: &'static str,
    expected: Vec<&'static str>,
    answered: Instant,
    lines: usize,
    complete_after: Option<Duration>,
}

impl Row {
    pub(super) fn new(
        trace: String,
        app: &'static str,
        result: String,
        succeeded: bool,
        level: &'static str,
        mut expected: Vec<&'static str>,
    ) -> Self {
        expected.sort_unstable();
        Self {
            trace,
            app,
            result,
            succeeded,
            level,
            expected,
            answered: Instant::now(),
            lines: 0,
            complete_after: None,
        }
    }

    /// Whether it is to fail.
    pub(super) fn fails(&self) -> bool {
        self.level == "error"
    }

    /// How many lines its document must have.
    pub(super) fn expected(&self) -> usize {
        self.expected.len()
    }

    /// The fault of the documents of this request; none when there is one with exactly the expected
    /// lines.
    pub(super) fn fault(&self, documents: &[Value]) -> Option<String> {
        let request = format!("{} request {}", self.app, self.trace);
        if !self.succeeded {
            return Some(format!("{request} was answered with {}", self.result));
        }
        let [document] = documents else {
            return Some(format!("{request} is {} documents", documents.len()));
        };
        let mut lines = documents::lines(document);
        lines.sort_unstable();
        if lines != self.expected {
            return Some(format!(
                "{request} has {} lines instead of {}: {lines:?}",
                lines.len(),
                self.expected.len()
            ));
        }
        let own = &document["windrow"];
        let services: &[&str] = if self.app == "order" {
            &["order", "product", "user"]
        } else {
            &["server"]
        };
        (own["level"] != self.level || own["services"] != json!(services)).then(|| {
            format!(
                "{request} has the level {} and the services {}",
                own["level"], own["services"]
            )
        })
    }
}

/// The table and the notes above it.
#[derive(Debug)]
pub(super) struct Board {
    live: bool,
    started: Instant,
    rows: Vec<Row>,
    trouble: Option<String>,
    down: bool,
    drawn: usize,
}

impl Board {
    pub(super) fn new(live: bool) -> Self {
        Self {
            live,
            started: Instant::now(),
            rows: Vec::new(),
            trouble: None,
            down: false,
            drawn: 0,
        }
    }

    /// The table fits into the terminal: lines that wrap could not be redrawn in place.
    pub(super) fn fits() -> bool {
        let size = rustix::termios::tcgetwinsize(io::stdout());
        let dumb = std::env::var_os("TERM").is_none_or(|name| name == "dumb");
        !dumb && size.is_ok_and(|size| size.ws_col >= MIN_COLUMNS && size.ws_row >= MIN_ROWS)
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The trace ids of answered requests that are not yet complete.
    pub(super) fn open(&self) -> Vec<&str> {
        self.rows
            .iter()
            .filter(|row| row.succeeded && row.complete_after.is_none())
            .map(|row| row.trace.as_str())
            .collect()
    }

    /// Whether it is the document of an order that failed, and complete.
    pub(super) fn is_failed_order(&self, trace: &str) -> bool {
        self.rows
            .iter()
            .any(|row| row.trace == trace && row.fails() && row.complete_after.is_some())
    }

    /// Prints a line that stays on the screen.
    pub(super) fn note(&mut self, text: &str) {
        let erase = self.erase();
        say(&format!(
            "{erase}[{:5.1} s] {text}\n",
            self.started.elapsed().as_secs_f64()
        ));
        if !self.rows.is_empty() {
            self.draw();
        }
    }

    /// Sets whether Windrow is down.
    pub(super) fn down(&mut self, down: bool) {
        self.down = down;
    }

    /// A request has its answer.
    pub(super) fn answered(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Documents of a request were seen.
    pub(super) fn gathered(&mut self, trace: &str, documents: &[Value]) {
        self.trouble = None;
        let Some(row) = self.rows.iter_mut().find(|row| row.trace == trace) else {
            return;
        };
        row.lines = documents
            .iter()
            .map(|document| documents::lines(document).len())
            .sum();
        if row.complete_after.is_none() && row.fault(documents).is_none() {
            let after = row.answered.elapsed();
            row.complete_after = Some(after);
            if !self.live {
                let text = format!(
                    "{}  {:<6} {}  {} lines -> 1 document after {:.1} s",
                    row.trace,
                    row.app,
                    row.result,
                    row.lines,
                    after.as_secs_f64()
                );
                self.note(&text);
            }
        }
    }

    /// The documents cannot be read at the moment.
    pub(super) fn trouble(&mut self, error: &str) {
        if self.trouble.as_deref() != Some(error) {
            self.trouble = Some(error.to_owned());
            if !self.live {
                self.note(&format!("the documents cannot be read: {error}"));
            }
        }
    }

    /// Draws the table in place.
    pub(super) fn draw(&mut self) {
        if !self.live {
            return;
        }
        let complete = self
            .rows
            .iter()
            .filter(|row| row.complete_after.is_some())
            .count();
        let state = match (self.down, &self.trouble) {
            (true, _) => "   Windrow is down",
            (false, Some(_)) => "   the documents cannot be read at the moment",
            (false, None) => "",
        };
        let mut text = format!(
            "\n  {} requests answered, {complete} of them are one document{state}\n",
            self.rows.len(),
        );
        text.push_str("  trace                             to      answer  lines  document\n");
        for row in self.rows.iter().rev().take(MAX_ROWS) {
            let document = row.complete_after.map_or_else(
                || "...".to_owned(),
                |after| format!("1 after {:.1} s", after.as_secs_f64()),
            );
            text.push_str(&format!(
                "  {:<32}  {:<6}  {:<6}  {:>2}/{:<2}  {document}\n",
                row.trace,
                row.app,
                row.result.chars().take(6).collect::<String>(),
                row.lines,
                row.expected()
            ));
        }
        // Erased and drawn in one write, or it flickers.
        let erase = self.erase();
        self.drawn = text.lines().count();
        say(&format!("{erase}{text}"));
    }

    /// Leaves the table on the screen; later output goes below it.
    pub(super) fn finish(&mut self) {
        self.draw();
        self.drawn = 0;
    }

    /// The escape sequence that erases the table.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }
}

/// Prints; a closed standard output does not end the showcase.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Rows of the table, which must fit a small terminal.
const MAX_ROWS: usize = 12;
const MIN_COLUMNS: u16 = 80;
const MIN_ROWS: u16 = 20;
