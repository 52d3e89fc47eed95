//! `windrow tail` and `windrow top` on a running server: in a pipe, and `top` on a terminal.

use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use windrow_testkit::client::Client;
use windrow_testkit::process::Process;
use windrow_testkit::server::Server;
use windrow_testkit::{env, need, wait};

use crate::{SOON, windrow};

fn send(server: &Server, id: &str, level: &str, text: &str) {
    let line = json!({"traceId": id, "level": level, "service_name": "order", "message": text});
    Client::connect(server.forward()).send("app.web", &format!("chunk-{id}"), &[(1_790_000_000, 0, line)]);
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windrow"));
    command.args(arguments).args(["--url", &server.admin()]);
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    command(server, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A tail that is connected: what is sealed from now on is in its output.
fn tail(server: &Server, arguments: &[&str]) -> Process {
    let mut tail = Process::start("windrow tail", &mut command(server, arguments));
    // Until it shows something, traces are sent: nothing says that the server knows it.
    let mut number = 0;
    wait::until("the tail to follow", SOON, || {
        number += 1;
        send(
            server,
            &format!("warm-up-{number}"),
            "error",
            "connected, request completed",
        );
        std::thread::sleep(Duration::from_millis(200));
        assert!(tail.poll().is_none(), "{}", tail.last_words(20));
        if tail.stdout().is_empty() {
            Err("nothing yet".to_owned())
        } else {
            Ok(())
        }
    });
    tail
}

#[test]
fn tail_shows_what_matches_as_it_is_sealed() {
    let server = windrow().sqlite().start();
    let mut plain = tail(&server, &["tail", "level:>=error"]);
    let mut lines = tail(&server, &["tail", "--json"]);
    send(&server, "fine", "info", "request completed");
    send(
        &server,
        "bad",
        "error",
        "card \u{1b}[31m refused, request completed",
    );
    let shown = plain.line("the failed trace", SOON, |line| {
        line.contains(" bad ").then(|| line.to_owned())
    });
    assert!(shown.contains("ERROR") && shown.contains("refused"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(plain.stdout().iter().all(|line| !line.contains(" fine ")));
    let fine = lines.line("the other trace", SOON, |line| {
        let trace: Value = serde_json::from_str(line).unwrap();
        (trace["id"] == "fine").then_some(trace)
    });
    assert_eq!(fine["services"], json!(["order"]));
    plain.kill();
    lines.kill();

    let wrong = run(&server, &["tail", "level:loud"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("^^^^"), "{wrong:?}");
}

#[test]
fn tail_goes_on_after_a_restart_of_the_server() {
    let mut server = windrow().sqlite().start();
    let mut tail = tail(&server, &["tail", "--json"]);
    server.crash();
    let mut number = 0;
    wait::until("the tail to follow again", SOON, || {
        number += 1;
        if TcpStream::connect(server.forward()).is_ok() {
            send(&server, &format!("again-{number}"), "info", "request completed");
        }
        std::thread::sleep(Duration::from_millis(300));
        assert!(tail.poll().is_none(), "{}", tail.last_words(20));
        let shown = tail.stdout().join("\n");
        if shown.contains("again-") {
            Ok(())
        } else {
            Err(shown)
        }
    });
    tail.kill();
}

#[test]
fn top_is_lines_in_a_pipe_and_a_table_on_a_terminal() {
    let script = env::program("script");
    let server = windrow().sqlite().start();
    for number in 0..3 {
        send(
            &server,
            &format!("bad-{number}"),
            "error",
            "refused, request completed",
        );
    }
    let recent = json!({"traceId": "now", "level": "error", "service_name": "payment", "message": "request completed"});
    let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let seconds = u32::try_from(seconds).unwrap();
    Client::connect(server.forward()).send("app.web", "recent", &[(seconds, 0, recent)]);
    wait::until("an error of the last minutes", SOON, || {
        let plain = run(&server, &["top", "--count", "1"]);
        let said = text(&plain.stdout);
        assert!(plain.status.success() && said.lines().count() == 1, "{plain:?}");
        assert!(said.starts_with("ready  records/s "), "{said}");
        if said.contains("errors by service payment=1") {
            Ok(())
        } else {
            Err(said)
        }
    });
    let looks = run(&server, &["top", "--json", "--count", "2", "--interval", "100ms"]);
    for line in text(&looks.stdout).lines() {
        let look: Value = serde_json::from_str(line).unwrap();
        assert_eq!(look["stats"]["input"]["records"], 4, "{look}");
        assert_eq!(
            look["errorsByService"],
            json!([{"service": "payment", "traces": 1}])
        );
    }
    let refused = run(&server, &["top", "--count", "1", "--url", "http://127.0.0.1:9/"]);
    assert_eq!(refused.status.code(), Some(64), "two addresses: {refused:?}");

    let script = need!(script);
    for colours in [true, false] {
        let shown = Command::new(&script)
            .args([
                "-qec",
                &format!(
                    "stty cols 110 rows 30; {} top -n 2 --interval 200ms --url {}",
                    env!("CARGO_BIN_EXE_windrow"),
                    server.admin()
                ),
                "/dev/null",
            ])
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", if colours { "" } else { "1" })
            .output()
            .unwrap();
        let screen = text(&shown.stdout);
        assert!(shown.status.success(), "{shown:?}");
        for part in ["records/s", "services", "payment", "sqlite"] {
            assert!(screen.contains(part), "{part}: {screen:?}");
        }
        assert!(
            screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"),
            "{screen:?}"
        );
        let is_coloured = screen.contains("\u{1b}[38;5;") || screen.contains("\u{1b}[31m");
        assert_eq!(is_coloured, colours, "{screen:?}");
    }
}
