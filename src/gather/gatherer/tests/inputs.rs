//! The examples of `docs/inputs.md`: the records of each become its documents.

use std::collections::HashMap;

use forward_protocol::msgpack::{write_array_len, write_bin, write_map_len, write_str};

use super::*;
use crate::config::{Flags, Sources, load};
use crate::gather::settings::Settings;

const PAGE: &str = include_str!("../../../../docs/inputs.md");
/// The event time of all examples, 2026-11-21T09:20:00Z in ms.
const TIME_MS: i64 = 1_795_252_800_000;

/// One example.
#[derive(Default)]
struct Example {
    heading: String,
    config: String,
    metadata: Map<String, Value>,
    records: Vec<Map<String, Value>>,
    documents: Vec<Value>,
}

/// The examples of the page: records in one or more blocks, then documents.
fn examples() -> Vec<Example> {
    let mut all: Vec<Example> = Vec::new();
    let mut next = Example::default();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("## ") {
            let heading = line.to_owned();
            all.push(std::mem::take(&mut next));
            next.heading = heading;
        }
        let Some(kind) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let body = body.join("\n");
        let values = || serde_json::Deserializer::from_str(&body).into_iter::<Value>();
        let objects = || values().map(|value| value.unwrap().as_object().unwrap().clone());
        if kind != "nginx" && kind != "json document" && !next.documents.is_empty() {
            let (heading, config) = (next.heading.clone(), next.config.clone());
            all.push(std::mem::replace(
                &mut next,
                Example {
                    heading,
                    config,
                    ..Example::default()
                },
            ));
        }
        match kind {
            "toml" => next.config = body,
            "json metadata" => next.metadata = objects().next().unwrap(),
            "json record" => next.records.extend(objects()),
            "json document" => next.documents.extend(values().map(Result::unwrap)),
            "nginx" => {}
            other => panic!("a block of kind {other:?}"),
        }
    }
    all.push(next);
    all.retain(|example| !example.records.is_empty());
    all
}

/// Writes a value of the page as MessagePack; `<bytes 5b8e>` stands for binary.
fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(map) => {
            write_map_len(out, map.len() as u32);
            for (name, value) in map {
                write_str(out, name.as_bytes());
                write(out, value);
            }
        }
        Value::Array(values) => {
            write_array_len(out, values.len() as u32);
            values.iter().for_each(|value| write(out, value));
        }
        Value::String(text) if text.starts_with("<bytes ") => {
            let digits: Vec<u8> = text
                .chars()
                .skip(7)
                .filter_map(|c| c.to_digit(16))
                .map(|n| n as u8)
                .collect();
            let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
            write_bin(out, &bytes);
        }
        other => out.extend(rmp_serde::to_vec(other).unwrap()),
    }
}

fn encode(value: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, &Value::Object(value.clone()));
    out
}

impl Example {
    fn settings(&self) -> Settings {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        file.write_all(self.config.as_bytes()).unwrap();
        let loaded = load(Sources {
            file: Some(file.path().to_owned()),
            flags: Flags::new(),
            env: &HashMap::new(),
        });
        Settings::from_config(&loaded.unwrap().config)
    }

    /// The documents that its records become, in the order of the page.
    fn documents(&self) -> Vec<Value> {
        let folder = tempfile::tempdir().unwrap();
        let mut scene = Scene::with_settings(folder.path(), self.settings());
        let metadata = (!self.metadata.is_empty()).then(|| encode(&self.metadata));
        let mut entries = Vec::new();
        for record in &self.records {
            write_entry(
                &mut entries,
                TIME_MS * 1_000_000,
                metadata.as_deref(),
                &encode(record),
            );
        }
        let count = self.records.len() as u32;
        let stream = EntryStream {
            bytes: &entries,
            count,
        };
        let mut message = Vec::new();
        write_forward(&mut message, b"app", stream, None);
        scene.gather(0, message.into());
        scene.finish().into_values().collect()
    }
}

/// Fields of `windrow` that the page does not show are not compared.
fn without_bookkeeping(mut document: Value, shown: &Value) -> Value {
    let Some(about) = document["windrow"].as_object_mut() else {
        return document;
    };
    about.retain(|name, _| shown["windrow"].get(name).is_some());
    if about.is_empty() {
        document.as_object_mut().unwrap().remove("windrow");
    }
    document
}

#[test]
fn the_examples_of_the_page_hold() {
    let examples = examples();
    assert!(examples.len() >= 12, "{} examples", examples.len());
    for example in examples {
        let found = example.documents();
        assert_eq!(
            found.len(),
            example.documents.len(),
            "{}: {found:#?}",
            example.heading
        );
        let found: Vec<Value> = found
            .into_iter()
            .zip(&example.documents)
            .map(|(document, shown)| without_bookkeeping(document, shown))
            .collect();
        assert_eq!(found, example.documents, "{}", example.heading);
    }
}
