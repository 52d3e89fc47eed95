//! Each configuration of fluent-bit/ with the real Fluent Bit, from lines of a file to a document
//! of Windrow. (What the parsers and filters make of odd lines is tried in
//! tests/fluent_bit_configs.rs.)

use std::{fs, path::Path};

use windrow_testkit::{certificates::Certificates, wait};

use crate::{
    fluent_bit::{self, Place},
    stage::{self, SOON},
};

const LINES: [&str; 2] = [
    r#"{"time":"2026-11-21T09:20:00.123456Z","level":"info","traceId":"abc","message":"handler finished"}"#,
    r#"{"time":"2026-11-21T10:20:00.175+01:00","level":"info","traceId":"abc","message":"request completed","status":200}"#,
];

#[test]
fn a_file_becomes_a_document() {
    for configuration in [
        "tail-forward.conf",
        "tail-forward.yaml",
        "sidecar.conf",
        "sidecar.yaml",
    ] {
        play(configuration, |_, _| ());
    }
}

#[test]
fn a_file_becomes_a_document_over_tls_with_a_shared_key() {
    for configuration in ["secure.conf", "secure.yaml"] {
        play(configuration, |_, _| ());
    }
}

#[test]
fn the_log_of_a_container_becomes_a_document() {
    for configuration in ["kubernetes/fluent-bit.conf", "kubernetes/fluent-bit.yaml"] {
        play(configuration, |place, configuration| {
            let line = |text: &&str| format!("2026-11-21T09:20:00.5Z stdout F {text}\n");
            let file = format!("var/log/containers/order-1_shop_order-{}.log", "a".repeat(64));
            fs::write(place.path(&file), LINES.iter().map(line).collect::<String>()).unwrap();
            // There is no API server here to ask for the pods.
            place.edit(configuration, |text| {
                text.replace(
                    "Buffer_Size                0",
                    "Buffer_Size                0\n    Dummy_Meta on",
                )
                .replace("buffer_size: 0", "buffer_size: 0\n      dummy_meta: on")
            });
        });
    }
}

fn play(configuration: &str, prepare: impl Fn(&Place, &str)) {
    let Some(program) = fluent_bit::fluent_bit(configuration) else {
        return;
    };
    let Some(mut setup) = stage::windrow(configuration) else {
        return;
    };
    let certificates = Certificates::make();
    let (certificate, key) = certificates.server();
    if configuration.starts_with("secure") {
        setup = setup
            .arg("--tls-cert", certificate.to_str().unwrap())
            .arg("--tls-key", key.to_str().unwrap())
            .arg("--shared-key", "secret");
    }
    let windrow = setup.sqlite().start();
    let place =
        Place::towards(windrow.forward().port()).with("CA_FILE", certificates.authority().to_str().unwrap());
    fs::write(place.path("app.log"), LINES.join("\n") + "\n").unwrap();
    prepare(&place, configuration);
    let sender = place.start(&program, &["-c", configuration], "sender");
    let document = wait::until(configuration, SOON, || match &windrow.stored()[..] {
        [one] if one.source["windrow"]["lines"] == 2 => Ok(one.source.clone()),
        other => Err(format!("{other:?}\n{}", sender.text())),
    });
    assert_eq!(document["traceId"], "abc", "{configuration}");
    assert_eq!(
        document["message"], "handler finished\nrequest completed",
        "{configuration}"
    );
    assert_eq!(document["status"], 200, "{configuration}");
    let expected = match Path::new(configuration).file_stem().unwrap().to_str().unwrap() {
        "sidecar" => ("service_name", "order"),
        "fluent-bit" => ("cluster", "blue"),
        _ => ("level", "info"),
    };
    assert_eq!(document[expected.0], expected.1, "{configuration}");
}
