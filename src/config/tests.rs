//! Tests of the configuration: the table of keys, each layer, all errors at once.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

mod generated;
mod secrets;
mod values;

fn env(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load_from(
    text: &str,
    vars: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, ConfigErrors> {
    let file = file(text);
    let mut given = Flags::new();
    for (key, value) in flags {
        given.entry(key).or_default().push((*value).to_owned());
    }
    load(Sources {
        file: Some(file.path().to_owned()),
        flags: given,
        env: &env(vars),
    })
}

fn errors(text: &str, vars: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Vec<String> {
    let ConfigErrors(list) = load_from(text, vars, flags).unwrap_err();
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn the_table_is_sound() {
    let mut names = BTreeSet::new();
    for key in KEYS {
        assert!(names.insert(key.path.to_owned()), "{} twice", key.path);
        assert!(names.insert(key.environment()), "{} twice", key.environment());
        assert!(
            key.flag.is_none_or(|flag| names.insert(format!("--{flag}"))),
            "--{:?} twice",
            key.flag
        );
        assert!(key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
        if let Some(raw) = key.default.raw() {
            let applied = key.kind.apply(&raw, &mut builder::ConfigBuilder::empty());
            assert_eq!(applied, Ok(()), "default of {}", key.path);
        }
    }
}

/// The names that users see are fixed; a slip in the table would rename them.
#[test]
fn the_common_flags_and_variables_have_their_names() {
    let flags: BTreeSet<_> = KEYS.iter().filter_map(|key| key.flag).collect();
    for flag in [
        "listen",
        "admin",
        "data-dir",
        "output",
        "elasticsearch-url",
        "index",
        "shared-key",
        "user",
        "tls-cert",
        "tls-key",
        "tls-client-ca",
        "idle-timeout",
        "linger",
        "max-traces",
        "memory-limit",
        "journal-limit",
        "max-connection-age",
        "admin-token",
        "log-format",
        "shutdown-grace",
        "flush-on-exit",
    ] {
        assert!(flags.contains(flag), "no --{flag}");
    }
    let variables: BTreeSet<_> = KEYS.iter().map(Key::environment).collect();
    for name in [
        "WINDROW_LISTEN",
        "WINDROW_ADMIN",
        "WINDROW_DATA_DIR",
        "WINDROW_OUTPUT",
        "WINDROW_ELASTICSEARCH_URL",
        "WINDROW_INDEX",
        "WINDROW_USER",
        "WINDROW_MAX_CONNECTION_AGE",
        "WINDROW_TRACE_MAX_AGE",
    ] {
        assert!(variables.contains(name), "no {name}");
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = Config::default();
    assert_eq!(config.forward.listen, ["0.0.0.0:24224".parse().unwrap()]);
    assert_eq!(
        config.admin.listen,
        Some("127.0.0.1:2020".parse::<SocketAddr>().unwrap())
    );
    assert_eq!(config.outputs, [OutputKind::Sqlite]);
    assert_eq!(config.memory_limit, 512 << 20);
    assert_eq!(config.journal.limit, 10 << 30);
    assert_eq!(config.journal.segment_bytes, 64 << 20);
    assert_eq!(config.journal.dir, PathBuf::from("windrow-data/journal"));
    assert_eq!(config.sqlite.path, PathBuf::from("windrow-data/windrow.db"));
    assert_eq!(config.sqlite.retention_age, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.trace.keys[..3], ["traceId", "trace_id", "trace.id"]);
    assert_eq!(config.trace.text[..3], ["message", "log", "msg"]);
    assert!(config.trace.strip_ansi && config.trace.ignore.contains(&"-".to_owned()));
    assert_eq!(config.trace.linger, Duration::from_secs(1));
    assert_eq!(config.trace.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.trace.max_trace_bytes, 16 << 20);
    assert_eq!(config.forward.max_message, 64 << 20);
    assert_eq!(config.forward.max_decompressed, 128 << 20);
    assert_eq!(config.forward.max_connection_age, None);
    assert_eq!(config.elasticsearch.index, "requests-%Y-%m-%d");
    assert_eq!(config.elasticsearch.bulk_bytes, 8 << 20);
    assert_eq!(config.shutdown_grace, Duration::from_secs(25));
    assert!(config.forward.self_hostname.starts_with("windrow-"));
    let [rule] = config.trace.complete.as_slice() else {
        panic!("{:?}", config.trace.complete)
    };
    assert!(rule.field.is_none() && rule.test.passes(b"GET / request completed in 3 ms"));
    assert!(!rule.test.passes(b"request complete"));
}

#[test]
fn flag_wins_over_environment_over_file_over_default() {
    let text = "[trace]\nlinger = \"2s\"\nidle_timeout = \"20s\"\nmax_age = \"2m\"\n";
    let vars = [("WINDROW_LINGER", "3s"), ("WINDROW_IDLE_TIMEOUT", "33s")];
    let loaded = load_from(text, &vars, &[("trace.linger", "4s")]).unwrap();
    assert_eq!(loaded.config.trace.linger, Duration::from_secs(4));
    assert_eq!(loaded.config.trace.idle_timeout, Duration::from_secs(33));
    assert_eq!(loaded.config.trace.max_age, Duration::from_secs(120));
    let source = |key| {
        loaded
            .settings
            .iter()
            .find(|s| s.key == key)
            .unwrap()
            .source
            .to_string()
    };
    assert_eq!(source("trace.linger"), "flag --linger");
    assert_eq!(source("trace.idle_timeout"), "environment WINDROW_IDLE_TIMEOUT");
    assert!(
        source("trace.max_age").ends_with(".toml:4"),
        "{}",
        source("trace.max_age")
    );
    assert_eq!(source("trace.keys"), "default");
}

#[test]
fn every_error_of_every_layer_is_reported_at_once() {
    let text = "\
data_dir = \"\"
linger = \"1s\"

[trace]
idle_timeout = 30
max_agee = \"1m\"
complete = [{ field = \"message\", contain = \"x\" }]

[forward]
listen = [\"0.0.0.0:24224\", \"example.org:1\"]

[tracee]
x = 1
";
    let list = errors(
        text,
        &[
            ("WINDROW_JOURNAL_LIMIT", "10G"),
            ("WINDROW_OUTPUT", "elastic,stdout"),
        ],
        &[
            ("admin.listen", "127.0.0.1:99999"),
            ("trace.idle_timeout", "5 parsecs"),
        ],
    );
    let expected = [
        (":1: ", "data_dir = \"\": it is empty; allowed: a path"),
        (":2: ", "linger: unknown key, did you mean \"trace.linger\"?"),
        (
            ":5: ",
            "trace.idle_timeout = 30: no unit; write \"30s\" or \"30ms\"; allowed: a duration from 10ms to 1d",
        ),
        (
            ":6: ",
            "trace.max_agee: unknown key, did you mean \"trace.max_age\"?",
        ),
        (":7: ", "unknown key \"contain\", did you mean \"contains\"?"),
        (":10: ", "element 2: \"example.org\" is not an IP address"),
        (":12: ", "tracee: unknown section, did you mean \"trace\"?"),
        (
            "environment WINDROW_OUTPUT: ",
            "unknown output \"elastic\", did you mean \"elasticsearch\"?",
        ),
        (
            "environment WINDROW_JOURNAL_LIMIT: ",
            "unknown unit \"G\" (write GiB for 1024, GB for 1000); allowed: a size from 4MiB",
        ),
        ("flag --idle-timeout: ", "unknown unit \"parsecs\""),
        ("flag --admin: ", "\"99999\" is not a port (0 to 65535)"),
    ];
    for (place, what) in expected {
        let found = list
            .iter()
            .any(|line| line.contains(place) && line.contains(what));
        assert!(found, "no {place}…{what} in\n{}", list.join("\n"));
    }
    assert_eq!(list.len(), expected.len(), "{}", list.join("\n"));
    // The file's come first, in its order; then the environment's, then the flags', in the table's.
    let place = |n: usize| list.iter().position(|line| line.contains(expected[n].1));
    assert!(
        (1..expected.len()).all(|n| place(n - 1) <= place(n)),
        "{}",
        list.join("\n")
    );
}

#[test]
fn heartbeats_are_answered_without_a_key_or_when_told_to() {
    let answered = |text: &str| {
        let loaded = load_from(text, &[], &[]).unwrap();
        loaded.config.forward.udp_heartbeat
    };
    assert!(answered(""));
    assert!(!answered("forward.udp_heartbeat = false"));
    for key in [
        "forward.shared_key = \"k\"",
        "forward.users = [\"name:password\"]",
        "forward.networks = [{ cidr = \"10.0.0.0/8\", shared_key = \"k\" }]",
    ] {
        assert!(!answered(key), "{key}");
        assert!(answered(&format!("{key}\nforward.udp_heartbeat = true")), "{key}");
    }
    assert!(answered("forward.networks = [{ cidr = \"10.0.0.0/8\" }]"));
}

#[test]
fn broken_toml_is_an_error_with_its_line() {
    let list = errors("[trace]\nlinger = \nmax_age = 1\n", &[], &[]);
    assert_eq!(list.len(), 2, "{list:?}");
    assert!(
        list[0].contains(".toml:2: ") && list[1].contains(".toml:3: trace.max_age = 1"),
        "{list:?}"
    );
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let file = Some(PathBuf::from("/nonexistent/windrow.toml"));
    let ConfigErrors(list) = load(Sources {
        file,
        flags: Flags::new(),
        env: &env(&[]),
    })
    .unwrap_err();
    assert!(
        list[0]
            .to_string()
            .starts_with("/nonexistent/windrow.toml: cannot be read"),
        "{list:?}"
    );
    let vars = env(&[("WINDROW_CONFIG", "/nonexistent/other.toml")]);
    let ConfigErrors(list) = load(Sources {
        file: None,
        flags: Flags::new(),
        env: &vars,
    })
    .unwrap_err();
    assert!(
        list[0]
            .to_string()
            .starts_with("/nonexistent/other.toml: cannot be read"),
        "{list:?}"
    );
}

#[test]
fn variables_are_replaced_in_strings() {
    let text = "\
data_dir = \"/var/${NAME}/${EMPTY:-data}\"
duplicate_window = \"${N}\"
[forward]
shared_key = \"$${KEY}\"
listen = [\"${HOST:-127.0.0.1}:0\"]
";
    let config = load_from(text, &[("NAME", "w"), ("N", "12"), ("EMPTY", "")], &[])
        .unwrap()
        .config;
    assert_eq!(config.data_dir, PathBuf::from("/var/w/data"));
    assert_eq!(config.duplicate_window, 12);
    assert_eq!(&*config.forward.shared_key.unwrap().expose(), "${KEY}");
    assert_eq!(config.forward.listen, ["127.0.0.1:0".parse().unwrap()]);
    let list = errors("data_dir = \"${GONE}\"\n[log]\nlevel = \"${\"\n", &[], &[]);
    assert!(
        list[0].contains(":1: data_dir: environment variable GONE is not set"),
        "{list:?}"
    );
    assert!(list[1].contains(":3: log.level: ${ without }"), "{list:?}");
}

#[test]
fn unknown_variables_are_a_warning_and_empty_ones_count_as_unset() {
    let loaded = load_from(
        "",
        &[("WINDROW_LISTN", ":1"), ("WINDROW_INDEX", ""), ("OTHER", "x")],
        &[],
    )
    .unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("WINDROW_LISTN: unknown, did you mean \"WINDROW_LISTEN\"?"));
    assert_eq!(loaded.config.elasticsearch.index, "requests-%Y-%m-%d");
}

#[test]
fn variables_of_elasticsearch_are_known_and_ours_win() {
    let vars = [
        ("ELASTICSEARCH_URL", "http://a:9200,https://b:9200/"),
        ("WINDROW_OUTPUT", "elasticsearch,sqlite"),
    ];
    let loaded = load_from("", &vars, &[]).unwrap();
    assert_eq!(
        loaded.config.elasticsearch.urls,
        ["http://a:9200", "https://b:9200"]
    );
    assert_eq!(
        loaded.config.outputs,
        [OutputKind::Elasticsearch, OutputKind::Sqlite]
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let vars = [
        ("ELASTICSEARCH_URL", "http://a:9200"),
        ("WINDROW_ELASTICSEARCH_URL", "http://own:9200"),
    ];
    let loaded = load_from("", &vars, &[]).unwrap();
    assert_eq!(loaded.config.elasticsearch.urls, ["http://own:9200"]);
    assert!(
        loaded.warnings[0].contains("add --output elasticsearch"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn secrets_are_never_shown() {
    let text = "\
[forward]
shared_key = \"hush-key\"
users = [\"ann:hush-password\", \"bob:\"]
[[forward.networks]]
cidr = \"10.0.0.0/8\"
shared_key = \"hush-network\"
users = [\"ann\"]
[elasticsearch]
url = \"https://elastic:hush-url@es:9200/path\"
[admin]
token = \"hush-token\"
";
    let loaded = load_from(text, &[], &[]).unwrap();
    let shown = format!("{loaded:?}");
    // The address itself is kept whole for the output; only what is printed hides it.
    let shown = shown.replace("urls: [\"https://elastic:hush-url@es:9200/path\"]", "");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("https://elastic:(hidden)@es:9200/path"), "{shown}");
    let forward = &loaded.config.forward;
    assert_eq!(forward.users[1].name, "bob");
    assert_eq!(&*forward.users[0].password.expose(), "hush-password");
    assert!(forward.networks[0].cidr.contains("10.9.8.7".parse().unwrap()));
    assert!(
        forward.networks[0]
            .cidr
            .contains("::ffff:10.9.8.7".parse().unwrap())
    );
    assert!(!forward.networks[0].cidr.contains("11.9.8.7".parse().unwrap()));

    let list = errors(
        "[forward]\nusers = [\"hush\"]\nshared_key = 17\n",
        &[("WINDROW_USER", "hush")],
        &[],
    );
    assert_eq!(list.len(), 3, "{list:?}");
    assert!(
        !list.join("\n").contains("hush") && !list.join("\n").contains("17"),
        "{list:?}"
    );
}

#[test]
fn a_reload_names_what_changed() {
    let old = load_from("[trace]\nlinger = \"2s\"\n[admin]\ntoken = \"a\"\n", &[], &[]).unwrap();
    let same = load_from("[admin]\ntoken = \"a\"\n", &[("WINDROW_LINGER", "2s")], &[]).unwrap();
    assert_eq!(same.changed_since(&old), [""; 0]);
    let new = load_from("[log]\nlevel = \"debug\"\n[admin]\ntoken = \"b\"\n", &[], &[]).unwrap();
    assert_eq!(
        new.changed_since(&old),
        ["trace.linger", "admin.token", "log.level"]
    );
}

#[test]
fn keys_that_belong_together_are_checked_together() {
    let pem = file("not looked into here");
    let path = pem.path().to_str().unwrap();
    let list = errors(
        "[elasticsearch]\nusername = \"a\"\napi_key = \"b\"\n[trace]\nlinger = \"5m\"\nmax_age = \"1m\"\n\
         [[forward.networks]]\ncidr = \"::/0\"\nusers = [\"nobody\"]\n",
        &[],
        &[
            ("forward.tls_cert", path),
            ("forward.tls_client_ca", "/nonexistent/ca.pem"),
        ],
    );
    let text = list.join("\n");
    for what in [
        "forward.tls_cert: it needs forward.tls_key (--tls-key)",
        "flag --tls-client-ca: forward.tls_client_ca = \"/nonexistent/ca.pem\": cannot be opened",
        "elasticsearch: only one of username with password, api_key and bearer_token can be set",
        "trace.max_age: it must not be shorter than trace.linger",
        "forward.networks: network ::/0 names user \"nobody\", who is not in forward.users",
    ] {
        assert!(text.contains(what), "no {what:?} in\n{text}");
    }
    let flags = [("forward.tls_cert", path), ("forward.tls_key", path)];
    let tls = load_from("", &[], &flags).unwrap().config.forward.tls.unwrap();
    assert_eq!((tls.cert.as_path(), tls.client_ca), (pem.path(), None));
}

#[test]
fn no_part_of_a_bound_is_larger_than_the_bound() {
    let flags = [("journal.limit", "16MiB"), ("memory_limit", "40MiB")];
    let loaded = load_from("", &[], &flags).unwrap();
    assert_eq!(loaded.config.journal.segment_bytes, 4 << 20);
    assert_eq!(loaded.config.forward.max_message, 4 << 20);
    assert_eq!(loaded.config.trace.max_trace_bytes, (40 << 20) / 32);
    let text = loaded.warnings.join("\n");
    assert!(
        text.contains("forward.max_message: 64MiB is more than a quarter of journal.limit; 4MiB is used"),
        "{text}"
    );
    assert!(
        text.contains("trace.max_trace_bytes: 16MiB is more than a 32nd of memory_limit; 1280KiB is used"),
        "{text}"
    );
    assert_eq!(loaded.config.http.max_body, 32 << 20, "it is off");
    let flags = [
        ("http.listen", ":0"),
        ("otlp.listen", "localhost:1"),
        ("memory_limit", "40MiB"),
    ];
    let loaded = load_from("", &[], &flags).unwrap();
    assert_eq!(loaded.config.http.max_body, 5 << 20, "and what it becomes");
    assert!(
        loaded
            .warnings
            .join("\n")
            .contains("http.max_body: 32MiB is more than an eighth")
    );
    assert_eq!(
        (loaded.config.http.listen.len(), loaded.config.otlp.listen.len()),
        (1, 1)
    );
    let unused = load_from("", &[], &[("http.listen", ":0")]).unwrap();
    assert!(unused.warnings.is_empty(), "{:?}", unused.warnings);
    let unused = load_from("[http]\ntime_key = \"date\"\n[otlp]\ntag = \"x\"\n", &[], &[]).unwrap();
    let text = unused.warnings.join("\n");
    assert!(
        text.contains("http.time_key is set, but") && text.contains("otlp.tag is set, but"),
        "{text}"
    );
    let wrong = load_from("[http]\nlisten = [\"unix:/x\"]\n", &[], &[]).unwrap_err();
    assert!(wrong.to_string().contains("http.listen"), "{wrong}");
}
