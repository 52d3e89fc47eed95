//! Forms of ids, and values that are none.

use serde_json::{Value, json};

use super::*;
use crate::FieldNames;
use crate::tests::record;

const HEX: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn read_bytes(key: &str, value: &[u8]) -> Option<String> {
    let reader = IdReader::new(&FieldNames::default().ignore);
    let id = reader.read(IdForm::of_key(key).1, value)?;
    Some(String::from_utf8_lossy(id.bytes()).into_owned())
}

fn read(key: &str, value: &Value) -> Option<String> {
    read_bytes(key, &record(value))
}

#[test]
fn forms_in_which_ids_are_logged() {
    let uuid = "746bddd3-74c3-f994-9535-13c9bab2808b";
    for (key, value, id) in [
        ("traceId", json!("abc"), "abc"),
        ("traceId", json!(HEX), HEX),
        ("traceId", json!(uuid), uuid),
        ("traceId", json!(" padded "), " padded "),
        ("traceId", json!("0abc"), "0abc"),
        ("traceId", json!("x".repeat(300)), &"x".repeat(300)),
        (
            "traceId",
            json!(1_234_567_890_123_456_789u64),
            "1234567890123456789",
        ),
        ("traceId", json!(u64::MAX), "18446744073709551615"),
        ("traceId", json!(-5), "-5"),
        ("traceparent", json!(format!("00-{HEX}-00f067aa0ba902b7-01")), HEX),
        ("traceId", json!(format!("00-{HEX}-00f067aa0ba902b7-01")), HEX),
        (
            "traceId",
            json!(format!("cc-{HEX}-00f067aa0ba902b7-01-later-versions")),
            HEX,
        ),
        (
            "x-amzn-trace-id",
            json!("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
            "1-5759e988-bd862e3fe1be46a994272793",
        ),
        (
            "x-amzn-trace-id",
            json!("Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678"),
            "1-67891233-abcdef012345678912345678",
        ),
        (
            "b3",
            json!(format!("{HEX}-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90")),
            HEX,
        ),
        (
            "b3",
            json!("80f198ee56343ba8-e457b5a2e4d86bd1"),
            "80f198ee56343ba8",
        ),
        (
            "b3",
            json!("80f198ee56343ba8-e457b5a2e4d86bd1-d"),
            "80f198ee56343ba8",
        ),
        ("uber-trace-id", json!(format!("{HEX}:e457b5a2e4d86bd1:0:1")), HEX),
        ("uber-trace-id", json!("abc:def:0:1"), "abc"),
        ("x-cloud-trace-context", json!(format!("{HEX}/1234;o=1")), HEX),
        ("trace", json!(format!("projects/my-project/traces/{HEX}")), HEX),
        ("id|base64", json!("S/kvNXezTaajzpKdDg5HNg=="), HEX),
        ("id|base64", json!("S_kvNXezTaajzpKdDg5HNg"), HEX),
        ("id|hex", json!(HEX.to_uppercase()), HEX),
        ("id|hex", json!(format!("0x{HEX}")), HEX),
    ] {
        assert_eq!(read(key, &value).as_deref(), Some(id), "{key}: {value}");
    }
    let bytes: Vec<u8> = (0..16)
        .map(|at| u8::from_str_radix(&HEX[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    let binary = [&[0xc4, 16], bytes.as_slice()].concat();
    assert_eq!(read_bytes("traceId", &binary).as_deref(), Some(HEX));
    assert_eq!(read_bytes("traceId|bytes", &binary).as_deref(), Some(HEX));
    let ascii = b"\xc4\x10abcdefghijklmnop";
    assert_eq!(
        read_bytes("traceId", ascii).as_deref(),
        Some("abcdefghijklmnop"),
        "Ruby sends text so"
    );
    let hex = "6162636465666768696a6b6c6d6e6f70";
    assert_eq!(read_bytes("traceId|bytes", ascii).as_deref(), Some(hex));
}

#[test]
fn what_means_no_trace() {
    for value in [
        "-",
        "0",
        "00",
        "00000000000000000000000000000000",
        "00000000-0000-0000-0000-000000000000",
        "0x0",
        "null",
        "NULL",
        "nil",
        "<nil>",
        "None",
        "none",
        "undefined",
        "Unknown",
        "N/A",
        "n/a",
        "",
        " ",
        "\t\n",
        " - ",
        "(null)",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "Root=1-00000000-000000000000000000000000;Sampled=0",
        "0000000000000000-e457b5a2e4d86bd1-0",
        "0:0:0:0",
    ] {
        assert_eq!(read("traceId", &json!(value)), None, "{value:?}");
    }
    for (key, value) in [
        ("traceId", json!(0)),
        ("traceId", json!(1.5)),
        ("traceId", json!(true)),
        ("traceId", json!(null)),
        ("traceId", json!(["a", "b"])),
        ("traceId", json!({"high": 1})),
        ("b3", json!("0")),
        ("b3", json!("1")),
        ("b3", json!("d")),
        ("id|base64", json!("AAAAAAAAAAAAAAAAAAAAAA==")),
        ("id|base64", json!("no base64!")),
        ("id|base64", json!("YWJj")),
        ("id|hex", json!("xyz")),
    ] {
        assert_eq!(read(key, &value), None, "{key}: {value}");
    }
    assert_eq!(read_bytes("traceId", &[&[0xc4, 16][..], &[0; 16]].concat()), None);
    assert_eq!(
        read_bytes("traceId", b"\xc4\x03\xff\xff\xff"),
        None,
        "neither text nor an id's bytes"
    );
}

#[test]
fn the_ignored_values_can_be_configured() {
    let reader = IdReader::new(&["No-Trace".into()]);
    let is_id = |text: &str| reader.read(IdForm::Any, &record(&json!(text))).is_some();
    assert!(!is_id("no-trace") && !is_id("NO-TRACE") && !is_id(" no-trace ") && !is_id("0") && !is_id(" "));
    assert!(is_id("none") && is_id("-") && is_id("no-trace-1"));
    let reader = IdReader::new(&["7".into()]);
    assert_eq!(reader.read(IdForm::Any, &[7]), None, "also as a number");
}

#[test]
fn a_name_may_contain_a_bar() {
    assert_eq!(IdForm::of_key("a|b"), ("a|b", IdForm::Any));
    assert_eq!(IdForm::of_key("a|b|hex"), ("a|b", IdForm::Hex));
    assert_eq!(IdForm::of_key("http.headers.b3"), ("http.headers.b3", IdForm::B3));
}
