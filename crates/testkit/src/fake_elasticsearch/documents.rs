//! Documents of the fake Elasticsearch, with its optimistic concurrency: sequence numbers and
//! versions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::check::Stored;

/// All documents by index and id.
#[derive(Debug, Default)]
pub(super) struct Documents {
    entries: BTreeMap<(String, String), Entry>,
    next_seq_no: u64,
}

#[derive(Debug)]
struct Entry {
    source: Vec<u8>,
    seq_no: u64,
    version: u64,
}

/// One item of a bulk request.
pub(super) struct BulkItem<'a> {
    pub(super) op: &'a str,
    pub(super) index: &'a str,
    pub(super) id: &'a str,
    pub(super) if_seq_no: Option<u64>,
    pub(super) source: &'a [u8],
}

/// Result of an item, with its answer.
pub(super) enum ItemResult {
    Created(Value),
    Updated(Value),
    Deleted(Value),
    Conflict(Value),
    Malformed(Value),
}

impl Documents {
    pub(super) fn apply(&mut self, item: &BulkItem<'_>) -> ItemResult {
        let BulkItem {
            op,
            index,
            id,
            if_seq_no,
            source,
        } = *item;
        let key = (index.to_owned(), id.to_owned());
        let known = self
            .entries
            .get(&key)
            .map(|document| (document.seq_no, document.version));
        let exists = op == "create" && known.is_some();
        if exists || if_seq_no.is_some_and(|wanted| known.map(|(seq_no, _)| seq_no) != Some(wanted)) {
            let reason = if exists {
                format!(
                    "[{id}]: version conflict, document already exists (current version [{:?}])",
                    known.map(|k| k.1)
                )
            } else {
                format!("[{id}]: version conflict, required seqNo [{if_seq_no:?}], current {known:?}")
            };
            return ItemResult::Conflict(failure(item, 409, "version_conflict_engine_exception", &reason));
        }
        let delete = op == "delete";
        if !delete && !serde_json::from_slice::<Value>(source).is_ok_and(|value| value.is_object()) {
            return ItemResult::Malformed(failure(
                item,
                400,
                "document_parsing_exception",
                "failed to parse",
            ));
        }
        let seq_no = self.next_seq_no;
        self.next_seq_no += 1;
        let version = known.map_or(1, |(_, version)| version + 1);
        let (result, status) = match (delete, known.is_some()) {
            (true, true) => ("deleted", 200),
            (true, false) => ("not_found", 404),
            (false, true) => ("updated", 200),
            (false, false) => ("created", 201),
        };
        let answer = json!({op: {"_index": index, "_id": id, "_version": version, "result": result, "status": status,
            "_shards": {"total": 1, "successful": 1, "failed": 0}, "_seq_no": seq_no, "_primary_term": 1}});
        if delete {
            self.entries.remove(&key);
            return ItemResult::Deleted(answer);
        }
        self.entries.insert(
            key,
            Entry {
                source: source.to_vec(),
                seq_no,
                version,
            },
        );
        if known.is_some() {
            ItemResult::Updated(answer)
        } else {
            ItemResult::Created(answer)
        }
    }

    /// One document as `GET` and `_mget` show it.
    pub(super) fn look_up(&self, index: &str, id: &str) -> Value {
        match self.entries.get(&(index.to_owned(), id.to_owned())) {
            Some(document) => json!({"_index": index, "_id": id, "_version": document.version, "found": true,
                "_seq_no": document.seq_no, "_primary_term": 1, "_source": parse(&document.source)}),
            None if self.entries.keys().any(|key| key.0 == index) => {
                json!({"_index": index, "_id": id, "found": false})
            }
            None => json!({"_index": index, "_id": id, "error": {"type": "index_not_found_exception",
                "reason": format!("no such index [{index}]"), "index": index}}),
        }
    }

    /// Ids in the order in which they were last written.
    pub(super) fn order(&self, prefix: &str) -> Vec<String> {
        let mine = self
            .entries
            .iter()
            .filter(|((index, _), _)| index.starts_with(prefix));
        let mut written: Vec<_> = mine.map(|((_, id), document)| (document.seq_no, id)).collect();
        written.sort_unstable();
        written.into_iter().map(|(_, id)| id.clone()).collect()
    }

    pub(super) fn delete(&mut self, index: &str, id: &str) -> bool {
        self.entries.remove(&(index.to_owned(), id.to_owned())).is_some()
    }

    pub(super) fn matching(&self, prefix: &str) -> Vec<Stored> {
        self.entries
            .iter()
            .filter(|((index, _), _)| index.starts_with(prefix))
            .map(|((index, id), document)| Stored {
                index: index.clone(),
                id: id.clone(),
                source: parse(&document.source),
            })
            .collect()
    }
}

/// An item that failed.
pub(super) fn failure(item: &BulkItem<'_>, status: u16, kind: &str, reason: &str) -> Value {
    json!({item.op: {"_index": item.index, "_id": item.id, "status": status,
        "error": {"type": kind, "reason": reason}}})
}

fn parse(source: &[u8]) -> Value {
    serde_json::from_slice(source).unwrap_or(Value::Null)
}
