//! Load generator, baseline server, counting store and measuring of `windrow bench`.
//!
//! Every server that is measured is a process of its own, so that its CPU time is exact: the
//! baseline server ([`baseline`]), the running program as `serve`, and Fluent Bit where it is
//! installed (`system`, `process`). The client ([`load`], [`client`]) and the store ([`store`]) are
//! in the process of the command. `cases` lists what can be measured, `measure` is one run of a
//! case, `figures` and `table` show the results.
//!
//! The tests of Windrow send their loads with the same client and put their store in front of the
//! same one.
//!
//! # Examples
//!
//! A load of a million records in Forward mode, sent to a server on this machine:
//!
//! ```no_run
//! use windrow_bench::client::drive;
//! use windrow_bench::load::{Load, Mode};
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let load = Load {
//!     mode: Mode::Forward,
//!     records: 1_000_000,
//!     ..Load::default()
//! };
//! let sent = drive(([127, 0, 0, 1], 24224).into(), load.prepare()?).await?;
//! println!("{} bytes in {:?}, p99 {:?}", sent.bytes, sent.took, sent.latency(0.99));
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

pub mod baseline;
mod cases;
pub mod client;
mod figures;
pub mod load;
mod measure;
mod process;
pub mod store;
mod system;
mod table;
mod watchers;

pub use process::threads;
pub use table::LEGEND;

use cases::{Case, Work};
use figures::{Figure, Figures};
use load::Load;
use measure::Bench;
use store::CountingStore;
use system::System;
use table::{About, Measured};

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Folder on the disk to be measured, the one for the journal. Files written there are removed.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Records of the usual load; about 250 bytes each.
    #[arg(long, default_value_t = 500_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub records: u64,
    /// Runs of each case; they take turns, and the median of each figure is shown.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Measure everything: other trace lengths, many connections, large records, the embedded
    /// database, an outage, a restart, and Fluent Bit if it is installed. Takes some minutes, 3 GB
    /// of disk and of memory.
    #[arg(long)]
    pub full: bool,
    /// Measure only these cases; `--list` shows the names. The ratio to the floor needs `floor`.
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with = "full")]
    pub only: Vec<String>,
    /// Show the cases that can be measured.
    #[arg(long)]
    pub list: bool,
    /// The program of Fluent Bit.
    #[arg(long, default_value = "fluent-bit", value_name = "PROGRAM")]
    pub fluent_bit: PathBuf,
    /// Print JSON, with every run and the CPU time of each thread.
    #[arg(long)]
    pub json: bool,
}

/// Why the command ended without figures; the reason has been written to its `err`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The command line names something that cannot be measured.
    Usage,
    /// Measuring failed.
    Measurement,
}

/// Runs the command.
///
/// # Errors
///
/// [`Failure`], with its reason already written to `err`.
pub fn run(options: &Options, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    let cases = cases::all(options.records);
    if options.list {
        for case in &cases {
            let usual = if case.usual { "" } else { " (--full)" };
            writeln!(out, "{:20}{}{usual}", case.name, case.about).ok();
        }
        return Ok(());
    }
    let chosen = choose(cases, options, err)?;
    let done = tokio::runtime::Runtime::new().and_then(|runtime| {
        runtime.block_on(async {
            tokio::select! {
                done = measure(options, &chosen, err) => done,
                stopped = tokio::signal::ctrl_c() => stopped.and_then(|()| Err(io::ErrorKind::Interrupted.into())),
            }
        })
    });
    let shown = done.and_then(|(about, measured)| {
        if options.json {
            writeln!(out, "{:#}", table::json(&about, &measured))
        } else {
            write!(out, "{}", table::text(&about, &measured))
        }
    });
    shown.map_err(|error| {
        writeln!(err, "windrow bench: {error}").ok();
        Failure::Measurement
    })
}

/// The cases that were asked for, without Fluent Bit where it is not installed.
fn choose(cases: Vec<Case>, options: &Options, err: &mut dyn Write) -> Result<Vec<Case>, Failure> {
    let known: Vec<_> = cases.iter().map(|case| case.name).collect();
    if let Some(unknown) = options.only.iter().find(|name| !known.contains(&name.as_str())) {
        writeln!(
            err,
            "windrow bench: {unknown:?} cannot be measured; known are: {}",
            known.join(", ")
        )
        .ok();
        return Err(Failure::Usage);
    }
    let mut chosen: Vec<Case> = cases
        .into_iter()
        .filter(|case| {
            let named = options.only.iter().any(|name| name == case.name);
            named || options.only.is_empty() && (options.full || case.usual)
        })
        .collect();
    if system::find(&options.fluent_bit).is_none() {
        let before = chosen.len();
        chosen.retain(|case| case.system != System::FluentBit);
        if chosen.len() < before {
            let program = options.fluent_bit.display();
            writeln!(err, "Fluent Bit is not measured: there is no program {program}").ok();
        }
    }
    if chosen.is_empty() {
        Err(Failure::Measurement)
    } else {
        Ok(chosen)
    }
}

/// All runs of all cases. Cases take turns, so that other work of the machine affects all of them.
async fn measure(
    options: &Options,
    cases: &[Case],
    err: &mut dyn Write,
) -> io::Result<(About, Vec<Measured>)> {
    let store = CountingStore::start().await?;
    let data_dir = std::path::absolute(&options.data_dir)?;
    let bench = Bench {
        data_dir: &data_dir,
        fluent_bit: &options.fluent_bit,
        store: &store,
    };
    let mut measured: Vec<_> = cases
        .iter()
        .map(|case| Measured {
            case: case.clone(),
            runs: Vec::new(),
        })
        .collect();
    let mut number = 0;
    for run in 1..=options.runs {
        let mut round = BTreeMap::new();
        for case in cases {
            number += 1;
            writeln!(err, "{run}/{} {}: {}", options.runs, case.name, case.about).ok();
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", case.name));
            round.insert(case.name, bench.run(case, number).await.map_err(named)?);
        }
        for row in &mut measured {
            row.runs.extend(compared(&row.case, &round));
        }
    }
    let usual = Load::default();
    let about = About {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        optimised: !cfg!(debug_assertions),
        records: options.records,
        record_bytes: usual.record_bytes(),
        runs: options.runs,
        program_mib: std::fs::metadata(std::env::current_exe()?)?.len() as f64 / 1_048_576.0,
    };
    Ok((about, measured))
}

/// Figures of a case with its ratios to other cases of the same round.
fn compared(case: &Case, round: &BTreeMap<&str, Figures>) -> Option<Figures> {
    let mut figures = round.get(case.name)?.clone();
    let base = case
        .base
        .and_then(|base| round.get(base))
        .filter(|_| case.base != Some(case.name));
    figures.set(Figure::OfBaseline, figures.ratio(Figure::Cpu, round.get("floor")));
    figures.set(Figure::OfBase, figures.ratio(Figure::Cpu, base));
    match case.work {
        Work::CatchUp => figures.set(Figure::OfLive, figures.ratio(Figure::Records, base)),
        Work::SendWatched => {
            figures.set(Figure::RateOfBase, figures.ratio(Figure::Records, base));
            figures.set(Figure::AckMedianOfBase, figures.ratio(Figure::AckMedian, base));
            figures.set(Figure::AckHighOfBase, figures.ratio(Figure::AckHigh, base));
        }
        _ => {}
    }
    Some(figures)
}
