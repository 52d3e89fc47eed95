//! The logging sidecar and a service that logs directly, to a Windrow with TLS, a shared key and a user.

use std::{fs, path::Path};

use windrow_testkit::{env, need, process::Process};

use crate::stage::{self, App, SOON, answered, client, demo, logged};

/// `ca.pem` and `key.pem` for localhost.
pub(crate) fn certificate(folder: &Path) -> Result<(), env::Missing> {
    env::program("openssl")?;
    let mut command = std::process::Command::new("openssl");
    let curve = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ];
    // With CA:FALSE: rustls takes no authority for a server.
    let name = [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ];
    command
        .args(["req", "-x509"])
        .args(curve)
        .args(name)
        .args(["-keyout", "key.pem", "-out", "ca.pem"])
        .current_dir(folder);
    env::run(&mut command).map(drop)
}

#[test]
fn records_travel_over_tls_with_a_key_and_a_user() {
    let Some(setup) = stage::windrow("scene 3 over TLS") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    need!(certificate(folder));
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let windrow = setup
        .sqlite()
        .arg("--tls-cert", path("ca.pem"))
        .arg("--tls-key", path("key.pem"))
        .arg("--shared-key", "secret")
        .arg("--user", "app:word")
        .start();
    let address = format!("tls://localhost:{}", windrow.forward().port());
    let (authority, state) = (path("ca.pem"), path("position.json"));
    let target = [
        ("WINDROW_ADDR", address.as_str()),
        ("CA_FILE", &authority),
        ("SHARED_KEY", "secret"),
        ("FORWARD_USER", "app"),
        ("FORWARD_PASSWORD", "word"),
    ];

    let mut server = App::server(folder);
    let start = |more: &[(&str, &str)]| -> Process {
        let own = [
            ("SERVICE_NAME", "server"),
            ("LOG_PATH", server.log.to_str().unwrap()),
            ("STATE_PATH", &state),
        ];
        demo("sidecar", &["sidecar-logs"], &[&own, &target[..], more].concat())
    };
    let arguments = [
        "service",
        "direct",
        "--direct",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
    ];
    let mut direct = App::announced(demo("direct", &arguments, &target), "direct", "".into());
    for url in [format!("{}hello", server.url), direct.url.clone()] {
        let mut asking = client(&url, 5, &["--interval", "1ms"]);
        assert!(asking.wait(SOON).success(), "{}", asking.last_words(30));
        assert_eq!(answered(&asking).len(), 5);
    }

    // Certificates that would do nothing are refused at once.
    let mut mistaken = start(&[("WINDROW_ADDR", "localhost:24224")]);
    assert_eq!(mistaken.wait(SOON).code(), Some(1));
    assert!(
        mistaken.last_words(5).contains("tls://host:port"),
        "{}",
        mistaken.last_words(5)
    );
    // A wrong key is told, and nothing is lost by it.
    let mut refused = start(&[("SHARED_KEY", "other"), ("STOP_GRACE", "1ms")]);
    windrow_testkit::wait::until("word of the wrong key", SOON, || {
        let said = refused.last_words(5);
        if said.contains("shared_key mismatch") {
            Ok(())
        } else {
            Err(said)
        }
    });
    stage::stop(&mut refused);

    let mut sidecar = start(&[]);
    stage::stop(&mut server.process);
    stage::stop(&mut direct.process);
    let wait = |count: usize| {
        windrow_testkit::wait::until(&format!("{count} documents"), SOON, || {
            let is = windrow.stored().len();
            if is == count {
                Ok(())
            } else {
                Err(format!("{is}\n{}", sidecar.last_words(9)))
            }
        });
    };
    wait(10);
    let from_log = logged(folder);
    assert_eq!(from_log.len(), 5);
    stage::assert_stored(&from_log, || {
        let mut stored = windrow.stored();
        stored.retain(|document| document.source["service_name"] == "server");
        stored
    });
    stage::stop(&mut sidecar);
    assert!(fs::read_to_string(&state).unwrap().contains("delivered"));
}
