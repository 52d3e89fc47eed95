//! curl over HTTP/1.0, HTTP/1.1 and HTTP/2, with TLS and without.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use windrow_testkit::certificates::Certificates;
use windrow_testkit::need;

use super::{END, HttpServer, record};
use crate::windrow;

/// Runs curl; its standard output.
pub(super) fn curl(arguments: &[&str], body: &[u8]) -> String {
    let mut child = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--data-binary",
            "@-",
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "curl {arguments:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn curl_over_every_version_of_http() {
    need!(windrow_testkit::env::program("curl"));
    let certificates = Certificates::make();
    let (cert, key) = certificates.server();
    let plain = HttpServer::start(windrow().sqlite());
    let tls = HttpServer::start(
        windrow()
            .sqlite()
            .arg("--tls-cert", cert.display().to_string())
            .arg("--tls-key", key.display().to_string()),
    );
    let authority = certificates.authority().display().to_string();
    // Above a megabyte curl asks before it sends.
    let large: Vec<Value> = (0..20_000)
        .map(|n| json!({"traceId": "large", "message": format!("line {n} of a long body")}))
        .collect();
    let write = "%{http_version} %{http_code}\n";
    for (http, url, options) in [
        (&plain, plain.url("/"), &["--http1.1"][..]),
        (&plain, plain.url("/"), &["--http2-prior-knowledge"]),
        (&plain, plain.url("/"), &["--http1.0"]),
        (
            &tls,
            format!("https://localhost:{}/", tls.address.port()),
            &["--http1.1", "--cacert", &authority],
        ),
        (
            &tls,
            format!("https://localhost:{}/", tls.address.port()),
            &["--http2", "--cacert", &authority],
        ),
    ] {
        let name = format!("{}{}", options[0], url.starts_with("https"));
        let send = |body: &[u8]| {
            let common = ["-H", "Content-Type: application/json", "-w", write, &url];
            curl(&[options, &common].concat(), body)
        };
        let said = send(record(&name, END).to_string().as_bytes());
        let version = match options[0] {
            "--http1.1" => "1.1",
            "--http1.0" => "1.0",
            _ => "2",
        };
        // curl reports the version of the answer.
        assert!(
            said.ends_with(&format!("{version} 200\n")) || (version == "1.0" && said.ends_with("200\n")),
            "{said}"
        );
        http.trace(&name, 1);
        if options[0] != "--http1.0" {
            let said = send(json!(large).to_string().as_bytes());
            assert!(said.starts_with("{\"records\":20000}"), "{name}: {said}");
        }
    }
    // Many requests over one connection.
    let urls = format!("https://localhost:{}/[1-20]", tls.address.port());
    let options = [
        "-H",
        "Content-Type: application/json",
        "--http2",
        "--parallel",
        "--cacert",
        &authority,
        &urls,
    ];
    let said = curl(&options, b"{\"message\":\"x\"}");
    assert_eq!(said.matches("{\"records\":1}").count(), 20, "{said}");
}
