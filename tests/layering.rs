//! The order of the crates: what the journal and gathering may depend on; and of reactor threads:
//! what blocks is not called there.
//!
//! The compiler keeps `crates/windrow-journal` and `crates/windrow-trace` from using the server. This test keeps their
//! lists of dependencies short, so that neither gains I/O, a clock or a server by way of another crate. What the standard
//! library offers of that is banned by `crates/windrow-trace/clippy.toml`.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Direct dependencies of the crate that gathers: data structures, numbers, encodings, hashes.
const TRACE: &[&str] = &[
    "base64",
    "base64-simd",
    "foldhash",
    "forward-protocol",
    "itoa",
    "jiff",
    "memchr",
    "prefetch-index",
    "ryu",
    "serde",
    "serde_json",
    "smallvec",
    "thiserror",
    "twox-hash",
    "wide",
];
/// Direct dependencies of the journal: files, checksums, and a channel for receipts.
const JOURNAL: &[&str] = &[
    "bytes",
    "crc32fast",
    "getrandom",
    "memchr",
    "rustix",
    "thiserror",
    "tokio",
    "tracing",
];
/// Direct dependencies of the protocol.
const PROTOCOL: &[&str] = &[
    "base64",
    "bytes",
    "flate2",
    "serde_core",
    "serde_json",
    "sha2",
    "subtle",
    "thiserror",
    "zstd",
];

/// Direct dependencies of the query language: words, times and JSON.
const QUERY: &[&str] = &["jiff", "serde", "serde_json", "thiserror", "unicode-segmentation"];

/// What opens sockets, draws numbers, tells the time or serves: nowhere below the server.
const SERVER: &[&str] = &[
    "axum",
    "clap",
    "elasticsearch",
    "hyper",
    "mio",
    "reqwest",
    "rusqlite",
    "rustls",
    "socket2",
    "tokio-util",
    "tracing-subscriber",
    "windrow",
];
/// What gathering must not have besides: files, threads, clocks, randomness, log output.
const EFFECTS: &[&str] = &[
    "chrono",
    "getrandom",
    "libc",
    "log",
    "rand",
    "rustix",
    "time",
    "tokio",
    "tracing",
];

#[test]
fn gathering_depends_on_no_io_no_clock_and_no_server() {
    assert_direct("windrow-trace", TRACE);
    assert_none("windrow-trace", &[SERVER, EFFECTS, &["windrow-journal"]].concat());
}

#[test]
fn the_journal_depends_on_no_server_and_on_nothing_that_knows_records() {
    assert_direct("windrow-journal", JOURNAL);
    let records = ["forward-protocol", "serde", "serde_json", "windrow-trace"];
    assert_none("windrow-journal", &[SERVER, &records].concat());
}

#[test]
fn the_protocol_depends_on_no_io_no_clock_and_no_server() {
    assert_direct("forward-protocol", PROTOCOL);
    let crates = ["windrow-journal", "windrow-trace", "rustix", "tokio", "tracing"];
    assert_none("forward-protocol", &[SERVER, &crates].concat());
}

#[test]
fn the_query_language_depends_on_no_io_no_clock_and_no_server() {
    assert_direct("windrow-query", QUERY);
    let crates = ["windrow-journal", "windrow-trace", "forward-protocol"];
    assert_none("windrow-query", &[SERVER, EFFECTS, &crates].concat());
}

/// What these folders do runs on reactor threads: one blocking call there stops all sockets. The
/// lists of `clippy.toml` hold for a whole crate, other parts of which read files on purpose.
#[test]
fn sockets_and_the_admin_port_call_nothing_that_blocks() {
    const BLOCKING: &[&str] = &[
        "fs::",
        "File::",
        "OpenOptions",
        "thread::sleep",
        "Condvar",
        "std::sync::mpsc",
        "blocking_recv",
        "blocking_send",
        "pem_file",
        "DeadLetter",
    ];
    // Unix sockets are bound at the start and removed at the end; certificates are read at the start
    // and, by `block_in_place`, on SIGHUP.
    const EXCEPTIONS: &[(&str, &str)] = &[
        ("src/input/forward/listener.rs", "fs::"),
        ("src/input/forward/tls.rs", "pem_file"),
        // The tail has a thread of its own.
        ("src/admin/tail.rs", "std::sync::mpsc"),
    ];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut files = 0;
    let mut folders = vec![root.join("src/input"), root.join("src/admin")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if name.contains("tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for call in BLOCKING {
                let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                if lines.any(|line| names(line, call)) && !EXCEPTIONS.contains(&(&name, call)) {
                    found.push(format!("{name}: {call}"));
                }
            }
        }
    }
    assert!(files > 20, "only {files} files were read");
    assert!(
        found.is_empty(),
        "{found:?} can block a reactor thread: read on another thread, or in runtime::block_in_place"
    );
}

/// Whether `line` has `name`, other than within a longer name.
fn names(line: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + name.len()..]);
        let ends = name.ends_with(is_part) && after.starts_with(is_part);
        !before.ends_with(is_part) && !ends
    })
}

/// Asserts that `package` names nothing in `[dependencies]` but what is `allowed`.
fn assert_direct(package: &str, allowed: &[&str]) {
    let found = tree(package, &["--depth", "1"]);
    let unknown: Vec<_> = found
        .iter()
        .filter(|name| *name != package && !allowed.contains(&name.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "{package} depends on {unknown:?}: if it needs neither I/O nor a clock nor the server, add it to tests/layering.rs"
    );
}

/// Asserts that nothing that `package` depends on, however far away, is `banned`.
fn assert_none(package: &str, banned: &[&str]) {
    let found = tree(package, &[]);
    let reached: Vec<_> = banned
        .iter()
        .filter(|name| **name != package && found.contains(**name))
        .collect();
    assert!(
        reached.is_empty(),
        "{package} reaches {reached:?}: cargo tree -p {package} -e normal -i NAME shows how"
    );
}

/// Names of the packages that `package` is built with, itself among them; no build or development dependencies.
fn tree(package: &str, more: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", package, "--edges", "normal,no-proc-macro"])
        .args([
            "--all-features",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--locked",
            "--offline",
        ])
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names: BTreeSet<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    assert!(
        names.contains(package),
        "cargo tree lists the package itself: {names:?}"
    );
    names
}
