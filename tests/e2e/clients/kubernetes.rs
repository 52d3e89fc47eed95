//! The shipped Fluent Bit configuration for Kubernetes in front of routes: indices by namespace and
//! environment, errors apart, in a real Elasticsearch.
//!
//! What the API server knows of a pod comes from files, which is how Fluent Bit tests its own filter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use windrow_testkit::{elasticsearch, fluent_bit, need, wait};

use crate::{SOON, windrow};

const CONFIGURATION: &str = include_str!("../../../fluent-bit/kubernetes/fluent-bit.conf");
const PARSERS: &str = include_str!("../../../fluent-bit/parsers.conf");

/// Namespace, environment.
const PODS: [(&str, &str); 5] = [
    ("shop", "prod"),
    ("shop", "staging"),
    ("billing", "prod"),
    ("billing", "staging"),
    ("kube-system", "prod"),
];
const TRACES: usize = 20;
const LEVELS: [&str; 5] = ["DEBUG", "INFO", "ERROR", "WARN", "FATAL"];

const ROUTES: &str = r#"[
{ when = { namespace = "kube-system", level = "debug" }, drop = true },
{ when = { level = { at_least = "error" } }, index = "k8s-errors-{environment|none}-%Y.%m.%d" },
]"#;

fn pod(namespace: &str, environment: &str) -> String {
    format!("app-{environment}-{namespace}")
}

/// The log of a container as containerd writes it: of each trace a line at each level. All pods
/// take part in the same traces.
fn container_log(namespace: &str, environment: &str) -> String {
    let mut text = String::new();
    for (number, level) in LEVELS.iter().enumerate() {
        for trace in 0..TRACES {
            writeln!(
                text,
                r#"2026-09-21T14:13:{number:02}.{trace:09}Z stdout F {{"traceId":"t{trace}","level":"{level}","message":"{namespace} {environment} {level}"}}"#
            )
            .unwrap();
        }
    }
    text
}

fn metadata(namespace: &str, environment: &str) -> String {
    serde_json::json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": pod(namespace, environment),
            "namespace": namespace,
            "uid": "0",
            "labels": {"app": "app", "environment": environment},
        },
        "spec": {"nodeName": "node-1"},
        "status": {},
    })
    .to_string()
}

#[test]
fn real_routes_by_namespace_environment_and_level() {
    let fluent_bit = need!(fluent_bit::find());
    let node = need!(elasticsearch::shared());
    let client = node.client();
    let server = windrow()
        .arg("--output", "elasticsearch")
        .arg("--elasticsearch-url", node.url())
        .arg("--linger", "200ms")
        .arg("--index", "k8s-logs-{namespace|none}-{environment|none}-%Y.%m.%d")
        .env("WINDROW_ROUTE", ROUTES)
        // Other tests install theirs on the same node.
        .env("WINDROW_ELASTICSEARCH_TEMPLATE_NAME", "windrow-k8s")
        .start();
    let mut files = vec![("parsers.conf".to_owned(), PARSERS.to_owned())];
    for (namespace, environment) in PODS {
        let pod = pod(namespace, environment);
        let id = "0".repeat(64);
        files.push((
            format!("{pod}_{namespace}_app-{id}.log"),
            container_log(namespace, environment),
        ));
        files.push((
            format!("{namespace}_{pod}.meta"),
            metadata(namespace, environment),
        ));
    }
    let configuration = CONFIGURATION
        .replace("${CONTAINER_LOGS}", "@FOLDER@")
        .replace("${STATE_DIR}", "@FOLDER@")
        .replace("${CLUSTER_NAME}", "test")
        .replace("${NODE_NAME}", "node-1")
        .replace("${WINDROW_HOST}", "127.0.0.1")
        .replace("${WINDROW_PORT}", &server.forward().port().to_string())
        .replace("HTTP_Server                On", "HTTP_Server Off")
        .replace("${HTTP_PORT}", "0")
        .replace("https://kubernetes.default.svc:443", "http://127.0.0.1:1")
        .replace(
            "Kube_Tag_Prefix            kube.var.log.containers.",
            "Kube_Meta_Preload_Cache_Dir @FOLDER@\n    Kube_Tag_Prefix kube.@FOLDER_AS_TAG@.",
        );
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (&**name, &**text)).collect();
    let running = fluent_bit.start_with(&configuration, &files);

    let mut expected = BTreeMap::<String, BTreeSet<String>>::new();
    for (namespace, environment) in PODS {
        for level in LEVELS {
            let index = match level {
                "DEBUG" if namespace == "kube-system" => continue,
                "ERROR" | "FATAL" => format!("k8s-errors-{environment}-2026.09.21"),
                _ => format!("k8s-logs-{namespace}-{environment}-2026.09.21"),
            };
            let lines = expected.entry(index).or_default();
            lines.insert(format!("{namespace} {environment} {level}"));
        }
    }
    wait::until("each trace once in each of its indices", 2 * SOON, || {
        let mut found = BTreeMap::<String, BTreeMap<String, BTreeSet<String>>>::new();
        for stored in client.documents("k8s-*") {
            let text = stored.source["message"].as_str().unwrap_or_default();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            let unique: BTreeSet<_> = lines.iter().cloned().collect();
            if unique.len() != lines.len() {
                return Err(format!("a line twice in {}: {text}", stored.id));
            }
            found.entry(stored.index).or_default().insert(stored.id, unique);
        }
        let is_right = found.len() == expected.len()
            && expected.iter().all(|(index, lines)| {
                found
                    .get(index)
                    .is_some_and(|all| all.len() == TRACES && all.values().all(|found| found == lines))
            });
        if is_right {
            return Ok(());
        }
        let summary: Vec<_> = found
            .iter()
            .map(|(index, all)| (index, all.len(), all.values().next()))
            .collect();
        Err(format!("{summary:?}\n{}", running.log()))
    });
    wait::until_true("the audit", SOON, || {
        server.metric("windrow_audit_difference") == 0.0
    });
    assert_eq!(server.metric("windrow_records_dropped_total"), TRACES as f64);
    assert_eq!(server.metric("windrow_destinations_fallback_records_total"), 0.0);
    let template = client
        .request("GET", "_index_template/windrow-k8s", None)
        .unwrap();
    let template: serde_json::Value = serde_json::from_str(&template.text).unwrap();
    let patterns = &template["index_templates"][0]["index_template"]["index_patterns"];
    let patterns: BTreeSet<&str> = patterns
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one.as_str())
        .collect();
    let wanted = ["19", "20"].map(|year| {
        [
            format!("k8s-logs-*-*-{year}*.*.*"),
            format!("k8s-errors-*-{year}*.*.*"),
        ]
    });
    assert_eq!(patterns, wanted.iter().flatten().map(String::as_str).collect());
    assert_eq!(
        server.logs("traceId=t1").len(),
        expected.len(),
        "a search by id finds all documents"
    );
    client.delete("k8s-*");
    client
        .request("DELETE", "_index_template/windrow-k8s", None)
        .unwrap();
}
