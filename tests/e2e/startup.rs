//! Startup: one that cannot work ends at once with a message that says why; one without
//! Elasticsearch works.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use windrow_testkit::check;
use windrow_testkit::fake_elasticsearch::FakeElasticsearch;
use windrow_testkit::load::Load;
use windrow_testkit::wait;

use crate::{SOON, windrow};

/// The exit status for wrong usage or configuration (`EX_USAGE` of sysexits.h).
const USAGE: i32 = 64;

#[test]
fn a_bad_configuration_names_every_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(
        &file,
        "[forward]\nlisten = \"nowhere\"\n\n[trace]\nlinger = \"soon\"\nidle_timeout = \"-3s\"\n",
    )
    .unwrap();
    let (status, said) = windrow()
        .arg("--config", file.display().to_string())
        .data(folder.path())
        .refused();
    assert_eq!(status.code(), Some(USAGE), "{said}");
    for word in [
        "bad.toml",
        "listen",
        "nowhere",
        "linger",
        "soon",
        "idle_timeout",
        "-3s",
    ] {
        assert!(said.contains(word), "{word} is not mentioned:\n{said}");
    }
}

#[test]
fn an_unknown_key_flag_or_value_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(&file, "[trace]\nligner = \"1s\"\n").unwrap();
    let (status, said) = windrow()
        .arg("--config", file.display().to_string())
        .data(folder.path())
        .refused();
    assert_eq!(status.code(), Some(USAGE), "{said}");
    assert!(said.contains("ligner"), "{said}");

    let (status, said) = windrow().flag("--no-such-flag").data(folder.path()).refused();
    assert_eq!(status.code(), Some(USAGE), "{said}");
    assert!(said.contains("--no-such-flag"), "{said}");

    let (status, said) = windrow()
        .env("WINDROW_LINGER", "soon")
        .data(folder.path())
        .refused();
    assert_eq!(status.code(), Some(USAGE), "{said}");
    assert!(said.contains("WINDROW_LINGER") && said.contains("soon"), "{said}");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, free) in [("--listen", "--admin"), ("--admin", "--listen")] {
        let setup = windrow()
            .sqlite()
            .arg(flag, &address)
            .arg(free, "127.0.0.1:0")
            .data(folder.path().join(flag));
        let (status, said) = setup.refused();
        assert!(!status.success());
        assert!(said.contains(&address) && said.contains("in use"), "{said}");
    }
}

#[test]
fn a_data_folder_is_for_one_windrow() {
    let mut server = windrow().sqlite().start();
    let other = || {
        windrow()
            .sqlite()
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .data(server.data())
            .refused()
    };
    let (status, said) = other();
    assert!(!status.success());
    let folder = server.data().display().to_string();
    assert!(
        said.contains(&folder) && said.to_lowercase().contains("another"),
        "{said}"
    );
    // The first one does not mind, and the lock goes with it.
    let report = Load {
        traces: 50,
        ..Load::new(server.forward(), "lock-")
    }
    .run();
    crate::assert_stored(&server, &report);
    server.crash();
}

#[test]
fn a_data_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let inside = file.join("data");
    let setup = windrow()
        .sqlite()
        .arg("--listen", "127.0.0.1:0")
        .arg("--admin", "127.0.0.1:0");
    let (status, said) = setup.data(&inside).refused();
    assert!(!status.success());
    assert!(said.contains(&file.display().to_string()), "{said}");
}

#[test]
fn it_serves_and_waits_while_elasticsearch_is_not_there() {
    let mut sink = FakeElasticsearch::stopped();
    let server = windrow().elasticsearch(&sink.url(), "later").start();
    assert_eq!(server.get("/health").status, 200);
    let report = Load {
        traces: 300,
        ..Load::new(server.forward(), "later-")
    }
    .run();
    assert_eq!(
        report.ledger.acknowledged(),
        1500,
        "acknowledged though it is away"
    );
    wait::until("/ready to say why not", SOON, || {
        let answer = server.get("/ready");
        let names = answer.text.to_lowercase().contains("elasticsearch");
        if answer.status == 503 && names {
            Ok(())
        } else {
            Err(format!("{} {}", answer.status, answer.text))
        }
    });
    sink.start_again();
    check::eventually(&report.ledger, SOON, || sink.documents("later-")).assert_clean();
    assert!(
        sink.counts().templates > 0,
        "the index template is installed when it can be"
    );
    server.wait_ready();
}

#[test]
fn port_zero_works_and_the_addresses_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"));
    let mut process = windrow_testkit::process::Process::start("windrow", &mut command);
    let port = |line: &str, what: &str| line.strip_prefix(what).and_then(|rest| rest.parse::<u16>().ok());
    let forward = process.line("its listen line", SOON, |line| {
        port(line, "forward listening on 127.0.0.1:")
    });
    let admin = process.line("its admin line", SOON, |line| {
        port(line, "admin listening on http://127.0.0.1:")
    });
    assert!(forward != 0 && admin != 0 && forward != admin);
    let answer = windrow_testkit::http::get(&format!("http://127.0.0.1:{admin}/health")).unwrap();
    assert_eq!(answer.status, 200);
    std::net::TcpStream::connect(("127.0.0.1", forward)).unwrap();
}

#[test]
fn the_program_says_what_it_is() {
    for (flag, words) in [
        ("--version", ["windrow", env!("CARGO_PKG_VERSION")]),
        ("--help", ["serve", "check"]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_windrow"))
            .arg(flag)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn check_looks_at_the_store() {
    let sink = FakeElasticsearch::start();
    let check = |url: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
        command.args([
            "check",
            "--connect",
            "--output",
            "elasticsearch",
            "--elasticsearch-url",
            url,
        ]);
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = check(&sink.url());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Elasticsearch 8.18.8"), "{said}");
    let (code, said) = check("http://127.0.0.1:1");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("problem") && said.contains("127.0.0.1:1"), "{said}");
}
