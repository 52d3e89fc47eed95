//! Output of a measurement: a table for people, JSON for programs. Owns columns, units and the
//! legend.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::cases::{Case, Work};
use super::figures::{Figure, Figures};

/// Machine and settings of a measurement.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// Cores of the machine.
    pub(super) cores: usize,
    /// Built with optimisation.
    pub(super) optimised: bool,
    /// Records of the usual load.
    pub(super) records: u64,
    /// Bytes of one record with its time.
    pub(super) record_bytes: usize,
    /// Runs of each case.
    pub(super) runs: u32,
    /// Size of the program, MiB.
    pub(super) program_mib: f64,
}

/// A case and the figures of its runs.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// What was measured.
    pub(super) case: Case,
    /// Each run.
    pub(super) runs: Vec<Figures>,
}

const COLUMNS: [(Figure, &str, &str, usize); 9] = [
    (Figure::Records, "records", "/s", 0),
    (Figure::Documents, "documents", "/s", 0),
    (Figure::Megabytes, "MB", "/s", 0),
    (Figure::Cpu, "CPU us", "/record", 3),
    (Figure::OfBaseline, "x the", "floor", 2),
    (Figure::OfBase, "x its", "base", 2),
    (Figure::AckMedian, "ack ms", "p50", 2),
    (Figure::AckHigh, "ack ms", "p99", 2),
    (Figure::Peak, "peak", "MiB", 0),
];

/// Meaning of the columns; also part of the command's help.
pub const LEGEND: &str = "\
records/s    arrived at the store a second, from the first request until 85 % of the load; for the floor and
             for Fluent Bit, which write no documents: acknowledged, or read, a second
MB/s         megabytes received a second, as they came (gzip: compressed)
CPU us       user and system time of the whole server process per record, in millionths of a second
x the floor  CPU time per record against the floor's: a baseline server that does the same I/O and no decoding
             (it reads the socket, writes a file, syncs it with fdatasync, acknowledges, and sends as many bytes
             on as documents have). Compare this ratio between machines, not the microseconds
x its base   the same ratio against another case: packed; for Fluent Bit its own packed
ack ms       time from sending a chunk of 1,000 records to its acknowledgement: median, 99th percentile
peak MiB     peak memory of the server process";

/// The table.
pub(super) fn text(about: &About, measured: &[Measured]) -> String {
    let About {
        cores,
        records,
        record_bytes,
        runs,
        ..
    } = about;
    let mut out = String::new();
    let of_runs = if *runs > 1 {
        format!(", median of {runs} runs")
    } else {
        String::new()
    };
    let _ = writeln!(
        out,
        "windrow {}, {cores} cores, {} records of {record_bytes} bytes{of_runs}",
        env!("CARGO_PKG_VERSION"),
        grouped(*records as f64, 0)
    );
    if !about.optimised {
        out += "This program was built without optimisation, so its figures mean little. Build it with --release.\n";
    }
    out.push('\n');
    let name_width = measured
        .iter()
        .map(|row| row.case.name.len())
        .max()
        .unwrap_or(0)
        .max(6);
    let rows: Vec<_> = measured
        .iter()
        .map(|row| (&row.case, Figures::median(&row.runs)))
        .collect();
    let sent: Vec<_> = rows
        .iter()
        .filter(|(case, _)| matches!(case.work, Work::Send | Work::SendWatched | Work::CatchUp))
        .collect();
    if !sent.is_empty() {
        let shown = COLUMNS.map(|(figure, ..)| sent.iter().any(|(_, figures)| figures.get(figure).is_some()));
        let columns = || {
            COLUMNS
                .iter()
                .zip(shown)
                .filter(|(_, shown)| *shown)
                .map(|(column, _)| column)
        };
        let width = |title: &str| title.len().max(9);
        for head in [true, false] {
            let _ = write!(out, "{:name_width$}", "");
            for (_, above, below, _) in columns() {
                let _ = write!(out, "  {:>1$}", if head { above } else { below }, width(above));
            }
            out.push('\n');
        }
        for (case, figures) in &sent {
            let _ = write!(out, "{:name_width$}", case.name);
            for (figure, above, _, digits) in columns() {
                let value = figures
                    .get(*figure)
                    .map_or_else(|| "-".into(), |value| grouped(value, *digits));
                let _ = write!(out, "  {value:>0$}", width(above));
            }
            out.push('\n');
        }
        out.push('\n');
    }
    for (case, figures) in &rows {
        let _ = writeln!(
            out,
            "{:name_width$}  {}{}",
            case.name,
            case.about,
            further(figures)
        );
    }
    let _ = writeln!(
        out,
        "{:name_width$}  the program has {:.1} MiB",
        "", about.program_mib
    );
    out
}

/// Figures without a column.
fn further(figures: &Figures) -> String {
    let mut out = String::new();
    let mut add = |figure, before: &str, after: &str, digits| {
        if let Some(value) = figures.get(figure) {
            let _ = write!(out, "{before}{}{after}", grouped(value, digits));
        }
    };
    add(Figure::OfLive, ": ", " x the live rate", 2);
    add(Figure::RateOfBase, ": ", " x the records/s", 2);
    add(Figure::AckMedianOfBase, ", ", " x the ack p50", 2);
    add(Figure::AckHighOfBase, ", ", " x the p99", 2);
    add(Figure::Searches, "; ", " searches/s", 1);
    add(Figure::SearchMedian, ", ", " ms p50", 1);
    add(Figure::SearchHigh, ", ", " ms p99", 1);
    add(Figure::Tail, "; ", " MB/s of live traces", 1);
    add(Figure::Start, ": ", " s", 2);
    if figures.get(Figure::Start).is_some() {
        add(Figure::Sent, " for ", " MiB of records", 0);
    }
    add(Figure::IdleMemory, ": ", " MiB", 1);
    add(Figure::IdleCpu, ", ", " ms CPU time a second", 2);
    out
}

/// The results as JSON.
pub(super) fn json(about: &About, measured: &[Measured]) -> Value {
    let object = |figures: &Figures| -> Map<String, Value> {
        figures
            .of
            .iter()
            .map(|(figure, value)| (figure.name().to_owned(), json!(value)))
            .collect()
    };
    let results: Vec<_> = measured
        .iter()
        .map(|Measured { case, runs }| {
            let median = Figures::median(runs);
            json!({
                "name": case.name, "about": case.about, "base": case.base,
                "records": case.load.total(), "median": object(&median), "threads_us_per_record": median.threads,
                "runs": runs.iter().map(object).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"), "cores": about.cores, "optimised": about.optimised,
        "records": about.records, "record_bytes": about.record_bytes, "runs": about.runs,
        "program_mib": about.program_mib, "results": results,
    })
}

/// A number with its thousands grouped.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::with_capacity(text.len() + 4);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::*;

    fn about() -> About {
        About {
            cores: 2,
            optimised: true,
            records: 500_000,
            record_bytes: 254,
            runs: 2,
            program_mib: 12.25,
        }
    }

    fn measured(name: &str, values: &[(Figure, f64)]) -> Measured {
        let case = cases::all(1000)
            .into_iter()
            .find(|case| case.name == name)
            .unwrap();
        let mut figures = Figures::default();
        values
            .iter()
            .for_each(|(figure, value)| figures.set(*figure, Some(*value)));
        Measured {
            case,
            runs: vec![figures],
        }
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(1_234_567.4, 0), "1,234,567");
        assert_eq!(grouped(123.456, 2), "123.46");
        assert_eq!(grouped(0.0, 0), "0");
        assert_eq!(grouped(1000.0, 1), "1,000.0");
    }

    #[test]
    fn the_table_shows_what_was_measured_and_no_empty_columns() {
        let rows = [
            measured(
                "floor",
                &[
                    (Figure::Records, 2_300_000.0),
                    (Figure::Cpu, 0.25),
                    (Figure::OfBaseline, 1.0),
                ],
            ),
            measured("packed", &[(Figure::Cpu, 0.6), (Figure::OfBaseline, 2.4)]),
            measured("idle", &[(Figure::IdleMemory, 9.06), (Figure::IdleCpu, 0.1)]),
        ];
        let table = text(&about(), &rows);
        let lines: Vec<_> = table.lines().collect();
        assert!(
            lines[0].contains("500,000 records of 254 bytes, median of 2 runs"),
            "{table}"
        );
        assert!(lines[2].ends_with("records     CPU us      x the"), "{table}");
        assert!(
            lines[4].starts_with("floor ") && lines[4].contains(" 2,300,000 "),
            "{table}"
        );
        assert!(
            lines[5].starts_with("packed ") && lines[5].contains(" - ") && lines[5].ends_with("2.40"),
            "{table}"
        );
        assert!(
            table.contains("nothing is sent for 5 s: 9.1 MiB, 0.10 ms CPU time a second"),
            "{table}"
        );
        assert!(table.contains("the program has 12.2 MiB"), "{table}");
    }

    #[test]
    fn the_json_has_medians_and_runs_by_name() {
        let value = json(&about(), &[measured("packed", &[(Figure::Cpu, 0.5)])]);
        assert_eq!(value["results"][0]["name"], "packed");
        assert_eq!(value["results"][0]["median"]["cpu_us_per_record"], 0.5);
        assert_eq!(value["results"][0]["runs"][0]["cpu_us_per_record"], 0.5);
        assert_eq!(value["runs"], 2);
    }
}
