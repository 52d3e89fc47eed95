//! Fields that other shippers stumbled over: each is stored, with all of its trace.

use super::*;

/// Records with one odd field each; the first gets into the mapping what the others conflict with.
fn odd_fields() -> Vec<(&'static str, Value)> {
    let mut deep = json!(1);
    for _ in 0..89 {
        deep = json!({"d": deep});
    }
    let many: serde_json::Map<String, Value> = (0..1200).map(|n| (format!("many_{n}"), json!(n))).collect();
    vec![
        (
            "kubernetes label",
            json!({"kubernetes": {"labels": {"app": "shop"}}}),
        ),
        (
            "label below a label",
            json!({"kubernetes": {"labels": {"app.kubernetes.io/name": "shop"}}}),
        ),
        ("number", json!({"code": 5})),
        ("text for a number", json!({"code": "E_TIMEOUT"})),
        ("digits for a number", json!({"code": "7"})),
        ("float for a number", json!({"code": 5.5})),
        ("boolean for a number", json!({"code": true})),
        ("object for a number", json!({"code": {"a": 1}})),
        ("null for a number", json!({"code": null})),
        (
            "words of the store in a value",
            json!({"code": "flush of data stream failed, 3 shards open"}),
        ),
        ("boolean", json!({"ok": true})),
        ("text for a boolean", json!({"ok": "yes"})),
        ("text", json!({"user": "joe"})),
        ("object for a text", json!({"user": {"name": "joe"}})),
        ("dotted name for a text", json!({"user.name": "joe"})),
        ("list for a text", json!({"user": ["a", "b"]})),
        (
            "both in one",
            json!({"lab_a": "x", "lab_a.kubernetes.io/name": "y"}),
        ),
        ("object and dotted name", json!({"obj_a": {"b": 1}, "obj_a.b": 2})),
        ("dot at the end", json!({"enddot.": 1})),
        ("dot at the beginning", json!({".startdot": 1})),
        ("two dots", json!({"two..dots": 1})),
        ("only a dot", json!({".": 1})),
        ("only dots", json!({"...": 1})),
        ("a path", json!({"../../../etc/passwd": 1})),
        ("empty name", json!({"": "x"})),
        ("empty name inside", json!({"in_empty": {"": "x"}})),
        ("spaces", json!({"   ": "x"})),
        ("space after a dot", json!({"sp. x": "y"})),
        ("long name", json!({"n".repeat(60_000): 1})),
        ("control characters in a name", json!({"n\n\"\\\u{0}q": 1})),
        ("reserved _id", json!({"_id": "x"})),
        ("reserved _source", json!({"_source": {"a": 1}})),
        ("reserved _ignored_source", json!({"_ignored_source": "x"})),
        (
            "reserved _data_stream_timestamp",
            json!({"_data_stream_timestamp": "x"}),
        ),
        ("reserved _inference_fields", json!({"_inference_fields": "x"})),
        ("reserved _index_mode", json!({"_index_mode": "x"})),
        ("reserved _tsid", json!({"_tsid": "x", "_ts_routing_hash": "x"})),
        (
            "reserved _recovery_source",
            json!({"_recovery_source": "x", "_recovery_source_size": "x"}),
        ),
        ("reserved with a dot", json!({"_id.x": "y", "_source.x": "y"})),
        (
            "below windrow",
            json!({"windrow.lines": "many", "windrow.state.x": 1, "windrow.note": "hi"}),
        ),
        ("below message", json!({"message.code": 5})),
        (
            "below time and trace id",
            json!({"@timestamp.x": 5, "traceId.x": 5, "trace_id.x": 5}),
        ),
        ("own time as text", json!({"@timestamp": "not a date"})),
        ("message as an object", json!({"message": {"a": 1}})),
        ("largest unsigned number", json!({"big": u64::MAX})),
        ("smallest number", json!({"min": i64::MIN})),
        ("largest float", json!({"large": 1e308})),
        ("NUL in a value", json!({"nul": "a\u{0}b"})),
        ("line separators", json!({"uni": "\u{2028}\u{feff}x"})),
        ("empty object and list", json!({"eo": {}, "ea": []})),
        ("list of number and text", json!({"mix": [1, "a"]})),
        ("list of object and number", json!({"mix2": [{"a": 1}, 2]})),
        ("lists of lists", json!({"na": [[1], [2, [3]]]})),
        ("deep", json!({"deep": deep})),
        ("long value", json!({"long_kw": "k".repeat(40_000)})),
        ("value of 1 MiB", json!({"one_mib": "v".repeat(1 << 20)})),
        ("date", json!({"when": "2026-01-01"})),
        ("no date", json!({"when": "tomorrow"})),
        ("1,200 fields", Value::Object(many)),
        ("a usual one after all", json!({"status": 200})),
    ]
}

/// The values in a value that are no objects or lists, sorted.
fn leaves(value: &Value) -> Vec<String> {
    let mut found: Vec<String> = match value {
        Value::Object(fields) => fields.values().flat_map(leaves).collect(),
        Value::Array(items) => items.iter().flat_map(leaves).collect(),
        other => vec![other.to_string()],
    };
    found.sort();
    found
}

/// Each trace with an odd field is stored completely, and takes late lines.
pub(super) async fn fields_are_stored(url: &str) {
    let mut case = Case::start(config(url, "fields"));
    let fields = odd_fields();
    for (n, (_, field)) in fields.iter().enumerate() {
        let id = format!("t{n}");
        let mut last = field.clone();
        last["traceId"] = json!(id);
        let first = json!({"traceId": id, "message": "started"});
        case.write(&id, &rendered(&id, 1, NOON, &[first, last]), NOON)
            .await;
    }
    for (n, (name, _)) in fields.iter().enumerate() {
        let id = format!("t{n}");
        let late = json!({"traceId": id, "message": "late", "code": format!("late {n}")});
        let json = rendered(&id, 2, NOON + 5_000_000_000, &[late]);
        case.write(&id, &json, NOON + 5_000_000_000).await;
        assert_eq!(case.running.dead_letter.usage().entries, 0, "{name}");
    }
    let metadata = [json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": "x", "": 1})];
    for (n, metadata) in metadata.iter().enumerate() {
        let id = format!("m{n}");
        let record = json!({"traceId": id, "message": "with metadata"});
        let json = rendered_with(&id, 1, NOON, &[record], metadata);
        case.write(&id, &json, NOON).await;
    }
    // The index is at its limit of fields.
    let record = json!({"traceId": "full", "message": "x", "status": 201, "brand_new": {"a": 1}});
    let full = json!({"index.mapping.total_fields.limit": 20});
    let path = format!("/{}/_settings", case.index("2026-11-21"));
    case.request(Method::PUT, &path, full).await;
    case.write("full", &rendered("full", 1, NOON, &[record]), NOON)
        .await;
    let documents = case.documents().await;
    assert_eq!(documents.len(), fields.len() + metadata.len() + 1);
    let (_, full) = &documents["full"];
    let unmapped = &full["windrow"]["unmapped"];
    // Where the index has it, or with the new field, when the store tells only that it is full.
    assert!(full["status"] == 201 || unmapped["status"] == 201, "{full}");
    assert_eq!(unmapped["brand_new"], json!({"a": 1}), "{full}");
    for (n, (name, field)) in fields.iter().enumerate() {
        let (_, stored) = &documents[&format!("t{n}")];
        let text = stored["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {stored}"));
        assert!(
            text.starts_with("started") && text.ends_with("late"),
            "{name}: {text}"
        );
        assert_eq!(stored["windrow"]["lines"], 3, "{name}");
        for (key, value) in field
            .as_object()
            .unwrap()
            .iter()
            .filter(|(key, _)| *key != "code")
        {
            // Names that no store takes are changed when the document is rendered: values count.
            let text: Value = stored["windrow"]["unindexed"]
                .as_str()
                .map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
            let found = [leaves(stored), leaves(&text)].concat();
            // The record's own text of a late line came later.
            if key != "message" {
                for leaf in leaves(value) {
                    assert!(found.contains(&leaf), "{name}: no {leaf} of {key} in {stored}");
                }
            }
        }
    }
    assert!(case.running.output.stats().healed_documents.load(Relaxed) > 5);
    assert_eq!(case.end().await, 0);
}
