//! `windrow demo`: all scenes on one machine, without Docker and without Elasticsearch.
//!
//! Starts Windrow as a process of its own, the server and the three services with their sidecars,
//! sends requests, kills Windrow with SIGKILL half-way, and waits until each request is one
//! document with all its lines. Knows Windrow only by its command line and its HTTP API.

mod apps;
mod board;
mod documents;
mod fluent_bit;
mod process;
mod windrow;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::{
    apps::{App, Apps},
    board::{Board, Row},
    documents::Source,
    windrow::Windrow,
};
use crate::{
    Error,
    client::{self, Outcome},
    id, signal,
};

/// What a request is to become.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Fine,
    /// An order that waits for a slow service, which then fails.
    Fails,
    /// An order that waits for a slow service.
    Slow,
}

impl Kind {
    fn path(self, app: &str) -> &'static str {
        match (app, self) {
            ("server", _) => "hello",
            (_, Self::Fine) => "?work=30",
            (_, Self::Fails) => "?work=30&slow=product&fail=product",
            (_, Self::Slow) => "?work=30&slow=product",
        }
    }

    /// The level of its document.
    fn level(self) -> &'static str {
        match self {
            Self::Fine => "info",
            Self::Fails => "error",
            Self::Slow => "warn",
        }
    }
}

/// Time between two reads of the documents, and between two drawings of the table.
const REFRESH_INTERVAL: Duration = Duration::from_millis(200);

/// Time between two requests of one client: slow enough to watch, and for documents to appear
/// before the kill.
const REQUEST_INTERVAL: Duration = Duration::from_millis(250);

/// How long Windrow stays down.
const DOWNTIME: Duration = Duration::from_millis(1500);

/// How long to wait for the last documents: longer than any pause of Fluent Bit and than Windrow's
/// idle timeout.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(90);

/// A chunk sent twice would have become a second document within this time.
const SETTLE_TIME: Duration = Duration::from_millis(1500);

/// Flags of `windrow demo`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Number of requests, half to the server, half to the order service
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(2..=10_000))]
    pub requests: u64,
    /// Leave everything running and the folder in place until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Write to this Elasticsearch instead of the embedded SQLite
    #[arg(long, value_name = "URL")]
    pub elasticsearch_url: Option<String>,
    /// The Fluent Bit program; without one `demo sidecar-logs` carries the lines [default: the one
    /// on the PATH]
    #[arg(long, env = "FLUENT_BIT", value_name = "FILE")]
    pub fluent_bit: Option<PathBuf>,
    /// Carry the lines with `demo sidecar-logs` also when there is a Fluent Bit
    #[arg(long)]
    pub no_fluent_bit: bool,
    /// One line per event instead of a live table [default: when the output is no terminal]
    #[arg(long)]
    pub plain: bool,
}

/// Result of the showcase.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Requests that were answered.
    pub answered: usize,
    /// Requests that are one document with all their lines.
    pub documents: usize,
    /// Broken promises, one line each.
    pub faults: Vec<String>,
}

/// [`run`] for a program without an asynchronous runtime; SIGTERM and SIGINT end it in good order.
///
/// # Errors
/// As [`run`], and when the runtime cannot be started.
pub fn run_to_end(windrow: &Path, options: &Options) -> Result<Report, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("the asynchronous runtime cannot be started"))?;
    runtime.block_on(async {
        let stop = signal::stop_token().map_err(Error::io("signal handlers cannot be installed"))?;
        run(windrow, options, &stop).await
    })
}

/// Runs the showcase with the given Windrow program and prints it on standard output.
///
/// # Errors
/// When something cannot be started. That a promise was not kept is in the report, not an error.
pub async fn run(windrow: &Path, options: &Options, stop: &CancellationToken) -> Result<Report, Error> {
    let folder = std::env::temp_dir().join(format!("windrow-demo-{}", &id::trace_id()[..8]));
    std::fs::create_dir_all(&folder).map_err(Error::io(format!("cannot create {}", folder.display())))?;
    let report = Box::pin(show(windrow, options, stop, &folder)).await;
    if options.keep {
        println!("the folder stays: {}", folder.display());
    } else if let Err(error) = std::fs::remove_dir_all(&folder) {
        println!("{} cannot be removed: {error}", folder.display());
    }
    report
}

async fn show(
    program: &Path,
    options: &Options,
    stop: &CancellationToken,
    folder: &Path,
) -> Result<Report, Error> {
    let mut board = Board::new(std::io::stdout().is_terminal() && !options.plain && Board::fits());
    let mut windrow = Windrow::start(program, folder, options.elasticsearch_url.as_deref()).await?;
    board.note(&format!("look at it: {}/", windrow.admin()));
    board.note(&format!("Windrow takes Forward on {}", windrow.forward()));
    let (fluent_bit, carrier) = choose_carrier(options, folder, windrow.forward()).await;
    let apps = Apps::start(folder, windrow.forward(), fluent_bit.as_deref()).await?;
    board.note(&carrier);
    for app in [&apps.server, &apps.user, &apps.product, &apps.order] {
        let metrics = apps.metrics().iter().find(|(name, _)| *name == app.name);
        let sidecar = metrics.map_or_else(String::new, |(_, url)| format!("   metrics sidecar {url}"));
        board.note(&format!("{:<8} {}{sidecar}", app.name, app.url));
    }
    let source = match &options.elasticsearch_url {
        Some(url) => Source::elasticsearch(url)?,
        None => Source::windrow(windrow.admin())?,
    };
    let watched = drive(options, stop, &apps, &mut windrow, &source, &mut board).await?;
    let report = if stop.is_cancelled() {
        board.finish();
        let fault = format!("stopped by a signal after {} requests", board.rows().len());
        println!("\n{fault}; the documents were not checked");
        Report {
            answered: board.rows().len(),
            documents: 0,
            faults: vec![fault],
        }
    } else {
        let report = verify(&source, &board).await;
        board.finish();
        summarise(&report, &watched, &board);
        if !options.keep {
            println!("Everything was stopped and removed; with --keep it goes on running.");
        }
        report
    };
    if options.keep && !stop.is_cancelled() {
        print_addresses(&windrow, &apps);
        println!("\nEverything goes on running; Ctrl-C ends it.");
        stop.cancelled().await;
    }
    apps.stop().await;
    windrow.stop().await;
    Ok(report)
}

/// The Fluent Bit that carries the lines, if one runs here, and what to say of it.
async fn choose_carrier(options: &Options, folder: &Path, forward: &str) -> (Option<PathBuf>, String) {
    const SIDECAR: &str = "log lines are carried by `demo sidecar-logs`";
    if options.no_fluent_bit {
        return (None, format!("{SIDECAR}, as asked"));
    }
    let Some(program) = fluent_bit::find_fluent_bit(options.fluent_bit.as_deref()) else {
        return (None, format!("{SIDECAR}: there is no fluent-bit on the PATH"));
    };
    match fluent_bit::try_out(&program, folder, forward).await {
        Ok(()) => {
            let carrier = format!("log lines are carried by Fluent Bit, {}", program.display());
            (Some(program), carrier)
        }
        Err(why) => {
            let carrier = format!("{SIDECAR}: {} does not run here: {why}", program.display());
            (None, carrier)
        }
    }
}

/// What happened to Windrow during the run.
struct Watched {
    killed_after: usize,
    downtime: Duration,
    answered_while_down: usize,
    example: Option<serde_json::Value>,
    elapsed: Duration,
}

async fn drive(
    options: &Options,
    stop: &CancellationToken,
    apps: &Apps,
    windrow: &mut Windrow,
    source: &Source,
    board: &mut Board,
) -> Result<Watched, Error> {
    let started = Instant::now();
    let total = usize::try_from(options.requests).unwrap_or(usize::MAX);
    let (events, mut answers) = mpsc::channel(total.max(1));
    let to_order = options.requests / 2;
    let (failing, slow) = (1 + to_order / 10, to_order / 5);
    for (app, kind, count) in [
        (&apps.server, Kind::Fine, options.requests - to_order),
        (&apps.order, Kind::Fine, to_order.saturating_sub(failing + slow)),
        (&apps.order, Kind::Fails, failing),
        (&apps.order, Kind::Slow, slow),
    ] {
        // All kinds are spread over the same time.
        let rest = REQUEST_INTERVAL.mul_f64(to_order.max(count) as f64 / count.max(1) as f64);
        spawn_client(app, kind, (count, rest), stop.clone(), events.clone());
    }
    drop(events);
    let mut watched = Watched {
        killed_after: 0,
        downtime: Duration::ZERO,
        answered_while_down: 0,
        example: None,
        elapsed: Duration::ZERO,
    };
    let mut back_at: Option<Instant> = None;
    let mut all_answered: Option<Instant> = None;
    let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
    refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            answer = answers.recv(), if all_answered.is_none() => match answer {
                Some((app, kind, outcome)) => {
                    board.answered(row(app, kind, &outcome));
                    watched.answered_while_down += usize::from(back_at.is_some());
                }
                None => all_answered = Some(Instant::now()),
            },
            _ = refresh.tick() => {
                if back_at.is_none() {
                    match source.look(&board.open()).await {
                        Ok(found) => for (trace, documents) in found {
                            board.gathered(&trace, &documents);
                            if watched.example.is_none() && board.is_failed_order(&trace) {
                                watched.example = documents.first().cloned();
                            }
                        },
                        Err(error) => board.trouble(&error),
                    }
                }
                board.draw();
            }
        }
        if watched.killed_after == 0 && board.rows().len() >= total.div_ceil(2) {
            windrow.kill().await;
            board.down(true);
            watched.killed_after = board.rows().len();
            back_at = Some(Instant::now() + DOWNTIME);
            board.note(&format!(
                "kill -9 of Windrow after {} requests; the applications go on",
                watched.killed_after
            ));
        }
        if let Some(at) = back_at.filter(|at| Instant::now() >= *at) {
            windrow.start_again().await?;
            board.down(false);
            back_at = None;
            watched.downtime = DOWNTIME + at.elapsed();
            board.note(&format!(
                "Windrow is back after {:.1} s",
                watched.downtime.as_secs_f64()
            ));
        }
        let complete = board.open().is_empty() && back_at.is_none();
        let waited = all_answered.is_some_and(|since| since.elapsed() >= COMPLETE_TIMEOUT);
        if stop.is_cancelled() || (all_answered.is_some() && complete) || waited {
            watched.elapsed = started.elapsed();
            return Ok(watched);
        }
    }
}

fn spawn_client(
    app: &App,
    kind: Kind,
    (count, interval): (u64, Duration),
    stop: CancellationToken,
    events: mpsc::Sender<(&'static str, Kind, Outcome)>,
) {
    if count == 0 {
        return;
    }
    let name = app.name;
    let options = client::Options {
        target: format!("{}/{}", app.url, kind.path(name)),
        count,
        concurrency: 3,
        interval,
        timeout: Duration::from_secs(10),
        retries: 0,
        backoff: Duration::from_millis(100),
    };
    tokio::spawn(async move {
        // The channel holds all outcomes; the address is our own, so there is no error to tell.
        let _ = client::run(&options, &stop, |outcome| {
            let _ = events.try_send((name, kind, outcome.clone()));
        })
        .await;
    });
}

fn row(app: &'static str, kind: Kind, outcome: &Outcome) -> Row {
    let fails = kind == Kind::Fails;
    let mut expected = match (app, fails) {
        ("server", _) => vec!["handler finished", "request completed"],
        (_, true) => vec![
            "user: handler finished",
            "request completed",
            "product: failed on demand",
            "request completed",
            "order: call failed",
            "request completed",
        ],
        _ => vec![
            "user: handler finished",
            "request completed",
            "product: handler finished",
            "request completed",
            "order: handler finished",
            "request completed",
        ],
    };
    if kind != Kind::Fine {
        expected.push("product: slow query, 900 ms");
    }
    let result = match &outcome.result {
        Ok(status) => status.to_string(),
        Err(error) => error.clone(),
    };
    let as_expected = if fails {
        outcome.result == Ok(502)
    } else {
        outcome.is_ok()
    };
    Row::new(
        outcome.trace_id.clone(),
        app,
        result,
        as_expected,
        kind.level(),
        expected,
    )
}

/// Reads the documents of every request once more, also of those that were complete: none may be
/// missing or twice.
async fn verify(source: &Source, board: &Board) -> Report {
    tokio::time::sleep(SETTLE_TIME).await;
    let mut report = Report {
        answered: board.rows().len(),
        ..Report::default()
    };
    let traces: Vec<&str> = board.rows().iter().map(|row| row.trace.as_str()).collect();
    let found = match source.look(&traces).await {
        Ok(found) => found,
        Err(error) => {
            report
                .faults
                .push(format!("the documents cannot be read: {error}"));
            return report;
        }
    };
    for row in board.rows() {
        let documents = found.get(&row.trace).map_or(&[][..], Vec::as_slice);
        match row.fault(documents) {
            None => report.documents += 1,
            Some(fault) => report.faults.push(fault),
        }
    }
    match source.with_errors().await {
        Ok(failed) => {
            let failing = board.rows().iter().filter(|row| row.fails());
            let lost = failing.filter(|row| !failed.contains(&row.trace));
            report.faults.extend(lost.map(|row| {
                format!(
                    "a search for windrow.level:error does not find request {}",
                    row.trace
                )
            }));
        }
        Err(error) => report
            .faults
            .push(format!("the errors cannot be searched: {error}")),
    }
    report
}

fn summarise(report: &Report, watched: &Watched, board: &Board) {
    if let Some(example) = &watched.example {
        println!(
            "\nOne order that failed, three services, one document:\n{}",
            documents::pretty(example)
        );
    }
    println!(
        "\n{} requests, {} lines in {} log files -> {} documents in {:.1} s.\n\
         Windrow was killed with -9 after {} requests and was down for {:.1} s; {} requests were answered meanwhile.",
        report.answered,
        board.rows().iter().map(Row::expected).sum::<usize>(),
        4,
        report.documents,
        watched.elapsed.as_secs_f64(),
        watched.killed_after,
        watched.downtime.as_secs_f64(),
        watched.answered_while_down,
    );
    if report.is_kept() {
        println!("Nothing is missing, nothing is there twice.");
    } else {
        for fault in report.faults.iter().take(20) {
            println!("FAULT: {fault}");
        }
    }
}

fn print_addresses(windrow: &Windrow, apps: &Apps) {
    println!("\nlook at it       {}/", windrow.admin());
    println!("its documents    {}/logs?limit=5", windrow.admin());
    println!("its metrics      {}/metrics", windrow.admin());
    for (app, url) in apps.metrics() {
        println!("{:<16} {url}", format!("{app} metrics"));
    }
}

impl Report {
    /// Every request was answered well and is one document with all its lines.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.answered > 0 && self.faults.is_empty() && self.documents == self.answered
    }
}

#[cfg(test)]
mod tests;
