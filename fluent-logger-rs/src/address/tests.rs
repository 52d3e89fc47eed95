//! Tests of the parsing of addresses.

use super::*;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn addresses_in_every_form() {
    for (text, expected) in [
        ("logs", tcp("logs", 24224)),
        ("logs:5", tcp("logs", 5)),
        ("tcp://10.0.0.1:24225", tcp("10.0.0.1", 24225)),
        ("[::1]:7", tcp("::1", 7)),
        ("[::1]", tcp("::1", 24224)),
        ("fe80::1", tcp("fe80::1", 24224)),
        (
            "unix:///run/fluent.sock",
            Address::Unix(PathBuf::from("/run/fluent.sock")),
        ),
        (
            "unix:/run/fluent.sock",
            Address::Unix(PathBuf::from("/run/fluent.sock")),
        ),
    ] {
        assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn addresses_that_are_none() {
    for text in [
        "",
        ":24224",
        "host:",
        "host:0",
        "host:99999",
        "http://host",
        "unix://",
        "tcp://",
        "[::1",
        "[::1]x",
    ] {
        assert!(
            matches!(Address::parse(text), Err(BuildError::BadAddress { .. })),
            "{text}"
        );
    }
}

#[cfg(not(feature = "tls"))]
#[test]
fn tls_without_the_feature_is_said_at_build() {
    let error = Address::parse("tls://host").unwrap_err().to_string();
    assert!(error.contains("feature `tls`"), "{error}");
}
