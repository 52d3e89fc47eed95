//! Routes of records: subjects, tests, placeholders, and that a remembered decision is the one that
//! would be made again.

use serde_json::{Value, json};

use super::*;
use crate::config::{Environment, Flags, Sources, load};
use crate::gather::classifier::{Classification, RecordClassifier, classify_slow};
use forward_protocol::entries::Entries;
use windrow_trace::{FieldNames, ShapeRegistry};

struct Empty;

impl Environment for Empty {
    fn get(&self, _name: &str) -> Option<String> {
        None
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A configuration from the text of a file.
pub(crate) fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("windrow.toml");
    std::fs::write(&file, text).unwrap();
    let loaded = load(Sources {
        file: Some(file),
        flags: Flags::new(),
        env: &Empty,
    });
    loaded.unwrap_or_else(|error| panic!("{error}")).config
}

struct Scene {
    router: Router,
    shapes: ShapeRegistry,
}

impl Scene {
    fn new(text: &str) -> Self {
        let config = config(text);
        let destinations = Arc::new(Destinations::of(&config).unwrap());
        let router = Router::new(&config, &destinations).expect("there are routes");
        let shapes = ShapeRegistry::new(FieldNames::default(), Vec::new()).capturing(router.captured_names());
        Self { router, shapes }
    }

    /// The index of a record, three times: as one of an unknown shape, of a known one, and with what
    /// is remembered.
    fn index(&mut self, tag: &str, record: &Value) -> String {
        let tag: Arc<str> = tag.into();
        let encoded = rmp_serde::to_vec(record).unwrap();
        let entry = [&b"\x92\x00"[..], &encoded].concat();
        let mut found = Vec::new();
        for _ in 0..4 {
            let mut captured = Captured::new();
            let mut entries = Entries::new(&entry, 100);
            let mut classification = Classification::default();
            let mut classifier = RecordClassifier::new(&self.shapes, &[], &mut captured, &mut classification);
            let next = entries.next_with(&mut classifier).unwrap().unwrap();
            let has_shape = classifier.finish();
            let mut made = MadeId::default();
            if !has_shape {
                classification = classify_slow(&mut self.shapes, &[], next.record, &mut made);
            }
            let routable = Routable {
                tag: &tag,
                record: next.record,
                classification: &classification,
                metadata: None,
                group: None,
            };
            let view = self.shapes.view();
            let routed = if has_shape {
                self.router.route(&routable, &captured, view)
            } else {
                self.router.route_slowly(&routable, view)
            };
            found.push(match routed.destination {
                DestinationId::DROPPED => "(dropped)".to_owned(),
                id => self.router.destinations.indices(id).text().to_owned(),
            });
        }
        assert!(
            found.windows(2).all(|pair| pair[0] == pair[1]),
            "{record}: {found:?}"
        );
        found.remove(0)
    }
}

#[test]
fn the_first_route_that_matches_decides() {
    let mut scene = Scene::new(
        r#"
[[route]]
when = { tag = "kube.health.*" }
drop = true
[[route]]
when = { namespace = ["kube-system", "monitoring"], level = { at_least = "warn" } }
index = "system-bad"
[[route]]
when = { namespace = ["kube-system", "monitoring"] }
index = "system"
[[route]]
when = [{ level = { at_least = "error" } }, { field = "status", matches = "^5" }]
index = "errors-%Y"
[[route]]
when = { environment = "prod", customer = { exists = true } }
index = "prod-{customer}"
[[route]]
when = { "http.path" = { contains = "/health" } }
drop = true
[[route]]
when = { debug = { exists = false }, service = "api" }
index = "api"
"#,
    );
    let default = "requests-%Y-%m-%d";
    let k8s = |namespace: &str, level: &str| json!({"log": "x", "level": level, "kubernetes": {"pod_name": "p", "namespace_name": namespace}});
    for (tag, record, index) in [
        ("kube.health.a", k8s("shop", "error"), "(dropped)"),
        ("kube.app", k8s("kube-system", "warn"), "system-bad"),
        ("kube.app", k8s("kube-system", "FATAL"), "system-bad"),
        ("kube.app", k8s("kube-system", "info"), "system"),
        ("kube.app", k8s("monitoring", "info"), "system"),
        ("kube.app", k8s("shop", "info"), default),
        ("kube.app", k8s("shop", "ERROR"), "errors-%Y"),
        (
            "kube.app",
            json!({"log": "x", "k8s.namespace.name": "monitoring"}),
            "system",
        ),
        ("app", json!({"log": "x", "status": 503}), "errors-%Y"),
        ("app", json!({"log": "x", "status": 203}), default),
        ("app", json!({"log": "x", "level": 50}), "errors-%Y"),
        (
            "app",
            json!({"log": "x", "env": "prod", "customer": "A b"}),
            "prod-a_b",
        ),
        (
            "app",
            json!({"log": "x", "env": "prod", "customer": 17}),
            "prod-17",
        ),
        (
            "app",
            json!({"log": "x", "env": "prod", "customer": null}),
            default,
        ),
        ("app", json!({"log": "x", "env": "dev", "customer": "b"}), default),
        (
            "app",
            json!({"log": "x", "http": {"path": "/healthz"}}),
            "(dropped)",
        ),
        ("app", json!({"log": "x", "http.path": "/healthz"}), "(dropped)"),
        ("app", json!({"log": "x", "http": {"path": "/"}}), default),
        ("app", json!({"log": "x", "service": "api"}), "api"),
        (
            "app",
            json!({"log": "x", "service": "api", "debug": true}),
            default,
        ),
    ] {
        assert_eq!(scene.index(tag, &record), index, "{tag} {record}");
    }
}

#[test]
fn placeholders_take_values_of_the_record() {
    let mut scene = Scene::new(
        r#"
[elasticsearch]
index = "logs-{namespace|none}-{service}-%Y.%m.%d"
max_destinations = 3
"#,
    );
    assert!(!scene.router.is_memorable, "a service is not captured");
    for (record, index) in [
        (
            json!({"log": "x", "kubernetes": {"namespace_name": "Shop"}, "service": "api"}),
            "logs-shop-api-%Y.%m.%d",
        ),
        (json!({"log": "x"}), "logs-none-none-%Y.%m.%d"),
        (
            json!({"log": "x", "namespace": {"a": 1}}),
            "logs-none-none-%Y.%m.%d",
        ),
        (json!({"log": "x", "namespace": "b"}), "logs-b-none-%Y.%m.%d"),
        (json!({"log": "x", "namespace": "c"}), "logs-c-none-%Y.%m.%d"),
        (json!({"log": "x", "namespace": "d"}), "logs-none-none-%Y.%m.%d"),
        (json!({"log": "x", "namespace": "b"}), "logs-b-none-%Y.%m.%d"),
    ] {
        assert_eq!(scene.index("app", &record), index, "{record}");
    }
}

#[test]
fn a_remembered_decision_is_for_equal_values_only() {
    let mut scene =
        Scene::new("[[route]]\nwhen = { level = { at_least = \"error\" }, a = \"1\" }\nindex = \"x-{b}\"\n");
    assert!(scene.router.is_memorable);
    let record = |a: &str, b: &str, level: &str| json!({"log": "x", "a": a, "b": b, "level": level});
    for _ in 0..2 {
        for (record, index) in [
            (record("1", "2", "error"), "x-2"),
            (record("1", "2", "info"), "requests-%Y-%m-%d"),
            (record("1", "2", "fatal"), "x-2"),
            (record("1", "3", "error"), "x-3"),
            (record("2", "3", "error"), "requests-%Y-%m-%d"),
            (json!({"log": "x", "b": "1", "a": "1", "level": "error"}), "x-1"),
            (json!({"log": "x", "a": "1", "level": "error"}), "x-none"),
        ] {
            assert_eq!(scene.index("app", &record), index, "{record}");
        }
    }
}

#[test]
fn text_and_metadata_can_be_tested() {
    let mut scene = Scene::new(
        "[[route]]\nwhen = [{ contains = \"secret\" }]\nindex = \"secret\"\n[[route]]\nwhen = { \"k8s.namespace.name\" = \"shop\" }\nindex = \"shop\"\n",
    );
    assert_eq!(scene.index("app", &json!({"log": "a secret"})), "secret");
    assert_eq!(
        scene.index("app", &json!({"log": "nothing"})),
        "requests-%Y-%m-%d"
    );
    let metadata = rmp_serde::to_vec(&json!({"k8s.namespace.name": "shop"})).unwrap();
    let record = rmp_serde::to_vec(&json!({"log": "x"})).unwrap();
    let classification = classify_slow(&mut scene.shapes, &[], &record, &mut MadeId::default());
    let routable = Routable {
        tag: &"app".into(),
        record: &record,
        classification: &classification,
        metadata: Some(&metadata),
        group: None,
    };
    let routed = scene.router.route_slowly(&routable, scene.shapes.view());
    assert_eq!(
        scene.router.destinations.indices(routed.destination).text(),
        "shop"
    );
}
