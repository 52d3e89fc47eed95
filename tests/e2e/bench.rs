//! `windrow bench` with small loads: every case ends with every record counted, and leaves no file
//! behind. The figures are not checked; that needs a quiet machine.

use std::process::Command;

use serde_json::Value;

/// Each of them fails when a record is missing or comes twice. Without Fluent Bit, and without the
/// five seconds of `idle`.
const CASES: &str = "floor,packed,gzip,forward,message,message-ack,lines-1,no-trace,many,large,sqlite,sqlite-watched,\
     watched,catch-up,restart";

#[test]
fn bench_counts_every_record_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_windrow"))
        .args([
            "bench",
            "--json",
            "--records",
            "2000",
            "--only",
            CASES,
            "--data-dir",
        ])
        .arg(folder.path())
        // The measured servers take no settings from around them.
        .env("WINDROW_LISTEN", "nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = report["results"].as_array().unwrap();
    let names: Vec<_> = results
        .iter()
        .map(|result| result["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.join(","), CASES);
    for result in results {
        let figure = |name: &str| result["median"][name].as_f64();
        if result["name"] == "restart" {
            assert!(figure("start_s").is_some_and(|start| start > 0.0), "{result}");
            continue;
        }
        for name in ["records_per_s", "cpu_us_per_record", "cpu_of_floor", "peak_mib"] {
            // So few records may all arrive in one moment.
            let known = figure(name).is_some_and(|value| value > 0.0);
            assert!(known || name == "records_per_s", "{name} of {result}");
        }
        if result["name"].as_str().unwrap().ends_with("watched") {
            let answered = figure("searches_per_s").is_some_and(|rate| rate > 0.0);
            assert!(answered && figure("tail_megabytes_per_s").is_some(), "{result}");
        }
        let acks = result["name"] != "message";
        assert_eq!(figure("ack_p99_ms").is_some(), acks, "{result}");
    }
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "files are left behind");
}

#[test]
fn bench_says_what_it_can_measure() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
        let output = command.arg("bench").args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, _) = run(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(
        CASES
            .split(',')
            .all(|name| out.lines().any(|line| line.starts_with(name))),
        "{out}"
    );
    let (code, _, err) = run(&["--only", "packed,speed"]);
    assert_eq!(code, Some(64));
    assert!(
        err.contains("\"speed\" cannot be measured; known are: floor, packed,"),
        "{err}"
    );
    let (code, _, err) = run(&["--only", "floor", "--data-dir", "/nowhere/at/all"]);
    assert_eq!(code, Some(1));
    assert!(
        err.contains("floor: ") && err.contains("/nowhere/at/all"),
        "{err}"
    );
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("x the floor  CPU time per record against the floor's"),
        "{out}"
    );
}
