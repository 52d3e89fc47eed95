//! Instructions per record, from the socket to the bulk request: in all, by source, by function.
//!
//! `cargo bench --bench instructions [-- --records 20000] [--top 25]`. The server runs under `valgrind --tool=callgrind`
//! twice, with a small and a larger load; what is shown is the difference, divided by the records that it has more, so
//! start and end do not count. Unlike times, these numbers hardly depend on the machine or on what else it does: hold a
//! change against them. Says so and ends well where there is no valgrind.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use windrow_bench::client::drive;
use windrow_bench::load::Load;
use windrow_bench::store::CountingStore;

/// Records of the smaller load: connections, buffers and tables have their size after them.
const FIRST: u64 = 5_000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        let value = at.and_then(|at| arguments.get(at + 1)?.parse().ok());
        value.unwrap_or(otherwise)
    };
    let (records, top) = (number("--records", 20_000).max(1), number("--top", 25));
    for program in ["valgrind", "callgrind_annotate"] {
        if Command::new(program).arg("--version").output().is_err() {
            println!("SKIPPED: no {program} on PATH (it comes with valgrind); instructions are not counted");
            return;
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let first = count(FIRST, &folder.path().join("first"));
    let second = count(FIRST + records, &folder.path().join("second"));
    let per_record = |instructions: u64| instructions as f64 / records as f64;
    println!(
        "{:.0} instructions per record ({records} records: packed, acks, 5 lines a trace, 1 connection, Elasticsearch output)\n",
        per_record(second.total.saturating_sub(first.total))
    );
    let top = usize::try_from(top).unwrap_or(usize::MAX);
    println!("itself, by the source that the instructions come from");
    let mut sources: Vec<_> = more(&first.sources, &second.sources).collect();
    sources.sort_by_key(|(instructions, _)| Reverse(*instructions));
    for (instructions, name) in sources.iter().take(top) {
        println!("{:>9.1}  {name}", per_record(*instructions));
    }
    println!("\nwith all that it calls, by function");
    let mut functions: Vec<_> = more(&first.functions, &second.functions).collect();
    functions.sort_by_key(|(instructions, _)| Reverse(*instructions));
    for (instructions, name) in functions.iter().take(top) {
        println!("{:>9.1}  {name}", per_record(*instructions));
    }
}

/// What the second run has more than the first, by name.
fn more<'a>(first: &'a Instructions, second: &'a Instructions) -> impl Iterator<Item = (u64, &'a str)> {
    second.iter().map(|(name, instructions)| {
        let before = first.get(name).copied().unwrap_or_default();
        (instructions.saturating_sub(before), name.as_str())
    })
}

type Instructions = BTreeMap<String, u64>;

/// What one run executed.
struct Counted {
    total: u64,
    /// By function, with what it calls.
    functions: Instructions,
    /// By source, without what it calls: what the compiler has put into another function counts where it is written.
    sources: Instructions,
}

/// Runs the server under callgrind with a load of `records`.
fn count(records: u64, folder: &Path) -> Counted {
    std::fs::create_dir(folder).expect("a folder");
    let profile = folder.join("callgrind.out");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = CountingStore::start().await.expect("a store");
        let mut child = Command::new("valgrind")
            .args(["-q", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(env!("CARGO_BIN_EXE_windrow"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "none",
                "--linger",
                "200ms",
            ])
            .args([
                "--output",
                "elasticsearch",
                "--elasticsearch-url",
                &format!("http://{}", store.address()),
            ])
            .arg("--data-dir")
            .arg(folder.join("data"))
            // The server would start itself again with it, which callgrind does not follow.
            .env("MIMALLOC_PURGE_DELAY", "10")
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("valgrind starts");
        let mut said = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address: SocketAddr = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("forward listening on ")?.parse().ok())
            .expect("the server says where it listens");
        let load = Load {
            records,
            connections: 1,
            ..Load::default()
        };
        let sources = load.prepare().expect("a load");
        drive(address, sources).await.expect("everything is acknowledged");
        while store.lines() < load.total() {
            assert!(
                child.try_wait().expect("a process").is_none(),
                "the server has ended"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it takes a signal");
        drop(said);
        child.wait().expect("it ends");
    });
    let (total, inclusive) = annotate(&profile, true);
    let (_, own) = annotate(&profile, false);
    let (mut functions, mut sources) = (Instructions::new(), Instructions::new());
    for row in inclusive {
        // One row is the function's, the others are those of what was put into it, with what that calls.
        let function = functions.entry(row.function).or_default();
        *function = row.instructions.max(*function);
    }
    for row in own {
        *sources.entry(source(&row)).or_default() += row.instructions;
    }
    Counted {
        total,
        functions,
        sources,
    }
}

/// The file for the code of this repository, else the crate, the standard library, or the function.
fn source(row: &Row) -> String {
    // `callgrind_annotate` names what is below the current folder by the path from there.
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/");
    let own = row.file.strip_prefix(root).unwrap_or(&row.file);
    if own.ends_with(".rs") && !own.starts_with(['/', '.']) {
        return own.to_owned();
    }
    let after = |folder: &str| Some(row.file.split_once(folder)?.1.split('/'));
    if let Some(name) = after("/registry/src/").and_then(|mut path| path.nth(1)) {
        return format!("crate {name}");
    }
    match after("/library/").and_then(|mut path| path.next()) {
        Some(name) => format!("Rust's {name}"),
        None => row.function.clone(),
    }
}

/// A row of `callgrind_annotate`.
struct Row {
    instructions: u64,
    file: String,
    function: String,
}

/// What `callgrind_annotate` says: the total, and its rows.
fn annotate(profile: &Path, inclusive: bool) -> (u64, Vec<Row>) {
    let output = Command::new("callgrind_annotate")
        .args(["--threshold=100", "--auto=no", "--show-percs=no"])
        .arg(format!("--inclusive={}", if inclusive { "yes" } else { "no" }))
        .arg(profile)
        .output()
        .expect("callgrind_annotate starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let number = |text: &str| text.replace(',', "").parse::<u64>().unwrap_or(0);
    let total = Regex::new(r"(?m)^\s*([\d,]+)(?: \(100\.0%\))?\s+PROGRAM TOTALS").expect("a pattern");
    let total = total.captures(&text).map(|found| number(&found[1]));
    // `1,234  file:function [program]`; the hash at the end of a Rust name differs between builds.
    let row = Regex::new(
        r"(?m)^\s*([\d,]+)(?: \([ \d.]+%\))?\s+(\S*?):([^\n]+?)(?:'\d+)?(?:::h[0-9a-f]{16})?(?: \[[^\n]*\])?$",
    )
    .expect("a pattern");
    let rows = row.captures_iter(&text).map(|found| Row {
        instructions: number(&found[1]),
        file: found[2].to_owned(),
        function: found[3].to_owned(),
    });
    (
        total.unwrap_or_else(|| panic!("callgrind_annotate gave no total: {text}")),
        rows.collect(),
    )
}
