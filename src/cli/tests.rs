//! Tests of the command line: flags set their keys, exit codes, help and reports.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;

use clap::CommandFactory;

use super::*;
use crate::config::{Config, KEYS, OutputKind, ValueSource};

fn read(args: &[&str]) -> Result<Cli, (u8, String, String)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    Cli::read(args, &mut out, &mut err).map_err(|code| {
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    })
}

fn loaded(args: &[&str]) -> Result<Loaded, ConfigErrors> {
    let (_, settings) = read(args).unwrap().into_parts();
    settings.load(&HashMap::<String, String>::new())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_command_is_serve() {
    let (command, _) = read(&["windrow"]).unwrap().into_parts();
    assert!(matches!(command, Command::Serve(_)));
    let config = loaded(&["windrow", "--listen", "127.0.0.1:0", "--linger", "5s"])
        .unwrap()
        .config;
    assert_eq!(config.forward.listen, ["127.0.0.1:0".parse().unwrap()]);
    assert_eq!(config.trace.linger, Duration::from_secs(5));
}

#[test]
fn settings_stand_before_and_after_the_command() {
    let args = [
        "windrow", "--linger", "5s", "--index", "a", "serve", "--index", "b", "--output", "stdout",
        "--output", "sqlite",
    ];
    let config = loaded(&args).unwrap().config;
    assert_eq!(config.trace.linger, Duration::from_secs(5));
    assert_eq!(config.elasticsearch.index, "b");
    assert_eq!(config.outputs, [OutputKind::Stdout, OutputKind::Sqlite]);
}

#[test]
fn a_switch_needs_no_value() {
    assert!(
        loaded(&["windrow", "--flush-on-exit"])
            .unwrap()
            .config
            .flush_on_exit
    );
    assert!(
        !loaded(&["windrow", "--flush-on-exit=false"])
            .unwrap()
            .config
            .flush_on_exit
    );
    let (command, settings) = read(&["windrow", "--flush-on-exit", "check"])
        .unwrap()
        .into_parts();
    assert!(matches!(command, Command::Check(_)) && settings.flags.contains_key("flush_on_exit"));
}

#[test]
fn every_flag_of_the_table_is_in_the_help() {
    let (code, out, err) = read(&["windrow", "--help"]).unwrap_err();
    assert_eq!((code, err.as_str()), (exit::OK, ""));
    for key in KEYS.iter().filter(|key| key.flag.is_some()) {
        assert!(
            out.contains(&format!("--{}", key.flag.unwrap())),
            "no --{:?} in the help",
            key.flag
        );
        assert!(
            out.contains(&key.environment()),
            "no {} in the help",
            key.environment()
        );
    }
    assert!(out.contains("Examples:") && out.contains("Exit codes:"), "{out}");
    let (code, out, _) = read(&["windrow", "--version"]).unwrap_err();
    assert_eq!(
        (code, out),
        (exit::OK, format!("windrow {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn a_wrong_command_line_is_64_with_a_hint() {
    let (code, out, err) = read(&["windrow", "--elasticsearch-ur", "x"]).unwrap_err();
    assert_eq!((code, out.as_str()), (exit::USAGE, ""));
    assert!(err.contains("--elasticsearch-url"), "{err}");
    let (code, _, err) = read(&["windrow", "serv"]).unwrap_err();
    assert_eq!(code, exit::USAGE);
    assert!(err.contains("serve"), "{err}");
}

#[test]
fn check_prints_every_value_with_its_source() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["windrow", "check", "--linger", "90s", "--shared-key", "hush"];
    assert_eq!(check(loaded(&args), &mut out, &mut err), exit::OK);
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("configuration ok\n"), "{out}");
    assert_eq!(out.lines().count(), 1 + KEYS.len());
    let line = out
        .lines()
        .find(|line| line.starts_with("trace.linger "))
        .unwrap();
    assert!(
        line.starts_with("trace.linger = \"90s\" ") && line.ends_with("# flag --linger"),
        "{line}"
    );
    assert!(
        out.contains("forward.shared_key = (hidden)") && !out.contains("hush"),
        "{out}"
    );
    assert!(out.contains("admin.token = (not set)"), "{out}");
}

#[test]
fn check_prints_every_error_and_is_64() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["windrow", "check", "--linger", "90", "--journal-limit", "1B"];
    assert_eq!(check(loaded(&args), &mut out, &mut err), exit::USAGE);
    assert!(out.is_empty());
    let err = String::from_utf8(err).unwrap();
    assert!(
        err.contains("flag --linger: trace.linger = \"90\": no unit after \"90\""),
        "{err}"
    );
    assert!(
        err.contains("flag --journal-limit: journal.limit = \"1B\": too small; allowed: a size from 4MiB"),
        "{err}"
    );
    assert!(err.contains("2 errors in the configuration"), "{err}");
}

/// Answers one request with these bytes and hands out what was asked.
fn answering(answer: &'static str) -> (std::net::SocketAddr, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut byte = [0];
        while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            asked.extend_from_slice(&byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(asked).unwrap()
    });
    (address, thread)
}

fn ask_health(address: &str, more: &[&str]) -> (u8, String, String) {
    let args: Vec<&str> = ["windrow", "health", "--admin", address]
        .iter()
        .chain(more)
        .copied()
        .collect();
    let (command, settings) = read(&args).unwrap().into_parts();
    let Command::Health(options) = command else {
        panic!("{command:?}")
    };
    let config: Config = settings.load(&HashMap::<String, String>::new()).unwrap().config;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = health(&options, &config, &mut out, &mut err);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn health_is_0_for_200_and_1_otherwise() {
    let (address, thread) = answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
    assert_eq!(
        ask_health(&address.to_string(), &[]),
        (exit::OK, "ok\n".into(), String::new())
    );
    let asked = thread.join().unwrap();
    assert!(
        asked.starts_with("GET /health HTTP/1.1\r\n") && asked.contains(&format!("Host: {address}\r\n")),
        "{asked}"
    );

    let (address, thread) = answering("HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ready\":false}");
    let (code, out, _) = ask_health(&format!("0.0.0.0:{}", address.port()), &["--ready"]);
    assert_eq!((code, out.as_str()), (exit::FAILURE, "{\"ready\":false}\n"));
    assert!(thread.join().unwrap().starts_with("GET /ready "));

    let (address, _thread) = answering("SSH-2.0-OpenSSH\r\n");
    let (code, _, err) = ask_health(&address.to_string(), &[]);
    assert_eq!(code, exit::FAILURE);
    assert!(err.contains("is this Windrow's admin port?"), "{err}");
}

#[test]
fn health_says_when_nobody_answers() {
    // Bound, never accepted, never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, _, err) = ask_health(&address, &["--timeout", "50ms"]);
    assert_eq!(code, exit::FAILURE);
    assert!(err.starts_with(&format!("http://{address}/health: ")), "{err}");
    drop(silent);
    assert_eq!(ask_health(&address, &[]).0, exit::FAILURE);
    assert_eq!(ask_health("none", &[]).0, exit::FAILURE);
}

#[test]
fn the_file_comes_from_the_flag() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[trace]\nlinger = \"7s\"\n").unwrap();
    let path = file.path().to_str().unwrap();
    let loaded = loaded(&["windrow", "-c", path, "serve"]).unwrap();
    assert_eq!(loaded.config.trace.linger, Duration::from_secs(7));
    let setting = loaded
        .settings
        .iter()
        .find(|setting| setting.key == "trace.linger")
        .unwrap();
    assert_eq!(
        setting.source,
        ValueSource::File {
            path: path.into(),
            line: 2
        }
    );
}
