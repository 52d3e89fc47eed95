//! Values of every kind: rules, addresses, lists, index names, durations, sizes.

use std::time::Duration;

use super::*;
use windrow_trace::{DocumentSchema, MergeRule};

#[test]
fn rules_of_every_kind() {
    let text = "[trace]\ncomplete = [{ contains = \"done\" }, { field = \"level\", equals = \"end\" }, { matches = \"^(?i)bye\\\\d\" }]\n";
    let rules = load_from(text, &[], &[]).unwrap().config.trace.complete;
    assert!(rules[0].test.passes(b"all done.") && !rules[0].test.passes(b"don"));
    assert!(rules[1].test.passes(b"end") && !rules[1].test.passes(b"ends"));
    assert_eq!(rules[1].field.as_deref(), Some("level"));
    assert!(rules[2].test.passes(b"BYE7 \xff") && !rules[2].test.passes(b"a bye7"));
    let rules = load_from(
        "",
        &[("WINDROW_TRACE_COMPLETE", "[{ field = \"a\", equals = \"b,c\" }]")],
        &[],
    )
    .unwrap();
    assert!(rules.config.trace.complete[0].test.passes(b"b,c"));
    assert!(
        load_from("[trace]\ncomplete = []\n", &[], &[])
            .unwrap()
            .config
            .trace
            .complete
            .is_empty()
    );
    let list = errors(
        "[trace]\ncomplete = [{ matches = \"(\" }, { equals = \"a\", contains = \"b\" }]\n",
        &[],
        &[],
    );
    assert!(
        list[0].contains("element 1: matches: error: unclosed group"),
        "{list:?}"
    );
}

#[test]
fn merge_rules_are_a_table_by_field() {
    let text =
        "[trace.merge]\nlatencyMs = \"max\"\n\"log.level\" = \"worst\"\n[document]\nschema = \"ecs\"\n";
    let loaded = load_from(text, &[], &[]).unwrap();
    let document = &loaded.config.trace.document;
    let rule = |name: &str, rule| (name.to_owned(), rule);
    let expected = [
        rule("latencyMs", MergeRule::Max),
        rule("log.level", MergeRule::Worst),
    ];
    assert_eq!(document.merge, expected);
    assert_eq!(document.schema, DocumentSchema::Ecs);
    let shown = loaded
        .settings
        .iter()
        .find(|setting| setting.key == "trace.merge")
        .unwrap();
    assert_eq!(
        shown.value.as_deref(),
        Some("{ latencyMs = \"max\", \"log.level\" = \"worst\" }")
    );
    let loaded = load_from("", &[("WINDROW_TRACE_MERGE", "{ user = \"set\" }")], &[]).unwrap();
    assert_eq!(loaded.config.trace.document.merge, [rule("user", MergeRule::Set)]);
    for (text, said) in [
        ("[trace.merge]\na = \"maxx\"\n", "did you mean \"max\""),
        (
            "[trace.merge]\nlog.level = \"worst\"\n",
            "put a name with dots in quotes",
        ),
        ("[trace.merge]\na = 1\n", "not a string"),
        ("[trace]\nmerge = \"max\"\n", "not a table"),
        ("[trace.merge]\nmessage = \"set\"\n", "which no rule merges"),
        ("[document]\nschema = \"ECS\"\n", "unknown schema \"ECS\""),
    ] {
        let list = errors(text, &[], &[]);
        assert!(list.len() == 1 && list[0].contains(said), "{text}: {list:?}");
    }
}

#[test]
fn addresses_in_every_form() {
    let parse = |text: &str| text.parse::<Listen>();
    assert_eq!(parse(":0").unwrap().to_string(), "0.0.0.0:0");
    assert_eq!(parse("localhost:1").unwrap().to_string(), "127.0.0.1:1");
    assert_eq!(parse("[::1]:24224").unwrap().to_string(), "[::1]:24224");
    assert_eq!(
        parse("unix:/run/w.sock").unwrap(),
        Listen::Unix("/run/w.sock".into())
    );
    assert!(parse("unix:").is_err() && parse("127.0.0.1").is_err() && parse("127.0.0.1:x").is_err());
    assert_eq!(
        load_from("[admin]\nlisten = \"none\"\n", &[], &[])
            .unwrap()
            .config
            .admin
            .listen,
        None
    );
    // An IPv6 address in brackets is not taken for a TOML array.
    let loaded = load_from("", &[("WINDROW_LISTEN", "[::1]:5,:6")], &[]).unwrap();
    assert_eq!(
        loaded.config.forward.listen,
        [parse("[::1]:5").unwrap(), parse(":6").unwrap()]
    );
    let loaded = load_from("", &[("WINDROW_LISTEN", "[2001:db8::1]:5")], &[]).unwrap();
    assert_eq!(loaded.config.forward.listen, [parse("[2001:db8::1]:5").unwrap()]);
}

#[test]
fn repeated_flags_add_up_and_commas_stay_in_passwords() {
    let flags = [
        ("forward.users", "ann:a,b"),
        ("forward.users", "bob:[x"),
        ("output", "stdout"),
        ("output", "sqlite"),
    ];
    let config = load_from("", &[], &flags).unwrap().config;
    assert_eq!(&*config.forward.users[0].password.expose(), "a,b");
    assert_eq!(&*config.forward.users[1].password.expose(), "[x");
    assert_eq!(config.outputs, [OutputKind::Stdout, OutputKind::Sqlite]);
    let list = errors("", &[], &[("output", "stdout"), ("output", "stdout")]);
    assert!(list[0].contains("stdout is listed twice"), "{list:?}");
}

#[test]
fn an_ipv4_mapped_block_matches_ipv4() {
    let block = |text: &str| text.parse::<Cidr>().unwrap();
    for (text, inside, outside) in [
        ("::ffff:10.0.0.0/104", "10.9.8.7", "11.9.8.7"),
        ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("::ffff:0.0.0.0/96", "203.0.113.9", "2001:db8::1"),
    ] {
        assert!(block(text).contains(inside.parse().unwrap()), "{text}");
        let mapped = format!("::ffff:{inside}").parse().unwrap();
        assert!(block(text).contains(mapped), "{text}");
        assert!(!block(text).contains(outside.parse().unwrap()), "{text}");
    }
    assert_eq!(block("::ffff:10.0.0.0/104"), block("10.0.0.0/8"));
    let wide = "::ffff:10.0.0.0/80".parse::<Cidr>().unwrap_err();
    assert!(wide.contains("at least 96 bits"), "{wide}");
}

#[test]
fn index_names_are_checked() {
    for (index, what) in [
        ("Requests-%Y", "capital letters"),
        ("a-%H", "shorter than a day"),
        ("a-%Q", "unknown field %Q"),
        ("a b", "' ' is not allowed"),
        ("_a", "must not begin"),
        ("a%", "a % at the end"),
    ] {
        let list = errors("", &[], &[("elasticsearch.index", index)]);
        assert!(list[0].contains(what), "{index}: {list:?}");
    }
    for index in ["requests", "requests-%Y.%m.%d", "logs-%G.%V"] {
        load_from("", &[], &[("elasticsearch.index", index)]).unwrap();
    }
}

#[test]
fn a_data_stream_takes_the_place_of_the_index() {
    let index = ("elasticsearch.index", "logs-%Y");
    let target = |text: &str, flags: &[(&'static str, &str)]| {
        let elasticsearch = load_from(text, &[], flags).unwrap().config.elasticsearch;
        (elasticsearch.index, elasticsearch.data_stream)
    };
    assert_eq!(target("", &[]), ("requests-%Y-%m-%d".into(), false));
    // The later layer counts.
    let in_file = "[elasticsearch]\ndata_stream = \"logs-file-default\"\n";
    assert_eq!(target(in_file, &[]), ("logs-file-default".into(), true));
    assert_eq!(target(in_file, &[index]), ("logs-%Y".into(), false));
    let both = "[elasticsearch]\ndata_stream = \"a-b-c\"\nindex = \"a\"\n";
    let list = errors(both, &[], &[]);
    assert!(
        list[0].contains("only one of it and elasticsearch.index"),
        "{list:?}"
    );
    for (name, what) in [
        ("logs-%Y", "no date"),
        ("Logs-a-b", "capital letters"),
        (".ds-a", "must not begin"),
        (&"a".repeat(231), "longer than 230"),
    ] {
        let text = format!("[elasticsearch]\ndata_stream = \"{name}\"\n");
        let list = errors(&text, &[], &[]);
        assert!(list[0].contains(what), "{name}: {list:?}");
    }
    for (table, what) in [
        (
            "[[route]]\nindex = \"a\"\ndata_stream = \"b\"\n",
            "only one of index",
        ),
        (
            "[[copy]]\nwhen = { level = \"error\" }\n",
            "no index and no data_stream",
        ),
        ("[[route]]\ndata_stream = \"a-%Y\"\n", "no date"),
        (
            "[[route]]\nwhen = { tag = \"x\" }\nindex = \"a\"\n[[route]]\ndata_stream = \"a\"\n",
            "as an index and as a data stream",
        ),
    ] {
        let list = errors(table, &[], &[("output", "elasticsearch")]);
        assert!(list.iter().any(|error| error.contains(what)), "{table}: {list:?}");
    }
}

#[test]
fn durations_and_sizes_are_read_and_written() {
    for (text, millis) in [
        ("30s", 30_000),
        ("500ms", 500),
        ("1h30m", 5_400_000),
        ("1.5s", 1_500),
        ("0", 0),
        ("7d", 604_800_000),
        ("2 min", 120_000),
    ] {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for (text, bytes) in [
        ("64MiB", 64 << 20),
        ("10GB", 10_000_000_000),
        ("1.5KiB", 1536),
        ("512", 512),
        ("1 TiB", 1 << 40),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in [
        "",
        "s",
        "30",
        "30x",
        "-1s",
        "1..5s",
        "1e3s",
        "99999999999999d",
        ".5s",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    for text in ["", "MiB", "64M", "1.5", "-1", "99999999TiB", "1MiB2"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn what_is_written_is_read_back(nanos: u64, bytes: u64) {
        let duration = Duration::from_nanos(nanos);
        proptest::prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        proptest::prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,40}") {
        let _ = (parse_duration(&text), parse_size(&text), text.parse::<Listen>(), text.parse::<Cidr>());
        for key in KEYS {
            let _ = key.kind.apply(&UntypedValue::Text(text.clone()), &mut builder::ConfigBuilder::empty());
        }
        let _ = load_from(&text, &[("WINDROW_USER", &text), ("WINDROW_TRACE_COMPLETE", &text)], &[]);
    }
}

#[test]
fn time_windows_are_two_durations() {
    let window = |text: &str| {
        let file = format!("[trace]\ntime_window = \"{text}\"\n");
        load_from(&file, &[], &[]).map(|loaded| loaded.config.trace.time_window)
    };
    let day = Duration::from_secs(86_400);
    assert_eq!(window("30d..1d").unwrap(), Some((30 * day, day)));
    assert_eq!(window("0..0").unwrap(), Some((Duration::ZERO, Duration::ZERO)));
    assert_eq!(window("none").unwrap(), None);
    for wrong in ["", "30d", "30d..", "1d..x", "-1d..1d"] {
        assert!(window(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(Config::default().trace.time_window, Some((3650 * day, day)));
}

#[test]
fn keys_that_cannot_match_are_warned_about() {
    let warnings = |keys: &str| {
        let file = format!("[trace]\nkeys = [{keys}]\n");
        load_from(&file, &[], &[]).unwrap().warnings
    };
    assert!(warnings(r#""traceId", "a.b.c", "id|hex", "id|base64", "id|bytes""#).is_empty());
    for (keys, what) in [
        (r#""a", "a""#, "\"a\" is listed twice"),
        (r#""message""#, "is in trace.text too"),
        (r#"" a""#, "blanks at its ends"),
        (r#""a..b""#, "empty part between dots"),
        (r#""a|hexa""#, "\"hexa\" is no form of an id"),
    ] {
        let found = warnings(keys);
        assert!(found.len() == 1 && found[0].contains(what), "{keys}: {found:?}");
    }
    assert!(
        load_from("[trace]\nignore = []\n", &[], &[])
            .unwrap()
            .config
            .trace
            .ignore
            .is_empty()
    );
}
