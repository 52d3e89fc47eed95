//! The logging sidecar and a service that logs directly, to a Windrow with TLS, a shared key and a
//! user.

use std::fs;

use windrow_testkit::{certificates::Certificates, process::Process};

use crate::stage::{self, App, SOON, answered, client, demo, logged};

#[test]
fn records_travel_over_tls_with_a_key_and_a_user() {
    let Some(setup) = stage::windrow("scene 3 over TLS") else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let certificates = Certificates::make();
    let (certificate, key) = certificates.server();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let windrow = setup
        .sqlite()
        .arg("--tls-cert", certificate.to_str().unwrap())
        .arg("--tls-key", key.to_str().unwrap())
        .arg("--shared-key", "secret")
        .arg("--user", "app:word")
        .start();
    let address = format!("tls://localhost:{}", windrow.forward().port());
    let authority = certificates.authority();
    let state = path("position.json");
    let target = [
        ("WINDROW_ADDR", address.as_str()),
        ("CA_FILE", authority.to_str().unwrap()),
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
    let mut direct = App::direct(&target);
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
