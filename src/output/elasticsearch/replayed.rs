//! Dead-letter documents on their way back: the same write as for new documents, once, without a journal behind it.

use bytes::Bytes;
use tokio::time::{Duration, sleep};

use super::Elasticsearch;
use super::bulk::Document;
use super::cluster::{Done, Outcome, Written};
use super::outcome::Problem;
use crate::output::dead_letter::{Content, Entry};
use crate::output::replay::Fate;

/// Tries of what is only delayed, before the replay stops. The entries stay where they are.
const TRIES: u32 = 5;

struct Replayed {
    id: String,
    is_trace: bool,
    first_ns: i64,
    json: Bytes,
}

impl Document for Replayed {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_trace(&self) -> bool {
        self.is_trace
    }
    fn first_ns(&self) -> i64 {
        self.first_ns
    }
    fn json(&self) -> &[u8] {
        &self.json
    }
}

impl Elasticsearch {
    /// Writes entries of the dead letter again: one fate for each. An entry that is no document of this output
    /// (an undecodable chunk, say) is [`Fate::NotMine`].
    pub async fn replay(&self, entries: &[Entry]) -> Vec<Fate> {
        let mut fates: Vec<Fate> = entries.iter().map(|_| Fate::NotMine).collect();
        let mut pending: Vec<usize> = (0..entries.len())
            .filter(|&at| document(&entries[at]).is_some())
            .collect();
        for n in 0..TRIES {
            if pending.is_empty() {
                break;
            }
            if n > 0 {
                sleep(super::flow::full_jitter(
                    self.config.backoff_base,
                    Duration::from_secs(5),
                    n,
                ))
                .await;
            }
            let documents: Vec<Replayed> = pending.iter().filter_map(|&at| document(&entries[at])).collect();
            let outcomes = match self.cluster.write(&documents).await {
                Written::All => vec![Outcome::Done(Done::Created); documents.len()],
                Written::Each(outcomes, _) => outcomes,
                Written::Failed(problem) => {
                    let alone = documents.len() == 1;
                    for &at in &pending {
                        fates[at] = match &problem {
                            Problem::TooLarge(reason) if alone => failed(413, "document_too_large", reason),
                            other => Fate::Later(other.reason().to_owned()),
                        };
                    }
                    if let Problem::TooLarge(_) | Problem::Malformed(_) = problem
                        && !alone
                    {
                        for at in pending {
                            fates[at] = Box::pin(self.replay(&entries[at..=at])).await.remove(0);
                        }
                        break;
                    }
                    continue;
                }
            };
            let mut again = Vec::new();
            for (&at, outcome) in pending.iter().zip(outcomes) {
                fates[at] = match outcome {
                    Outcome::Done(_) => Fate::Written,
                    Outcome::Again(_) => {
                        again.push(at);
                        Fate::Later("Elasticsearch asks to come again later".into())
                    }
                    Outcome::Blocked(reason) => Fate::Later(reason),
                    Outcome::Rejected(r) => failed(r.status, &r.kind, &r.reason),
                };
            }
            pending = again;
        }
        fates
    }
}

fn failed(status: u16, kind: &str, reason: &str) -> Fate {
    Fate::Failed {
        status: Some(status),
        kind: kind.into(),
        reason: reason.into(),
    }
}

fn document(entry: &Entry) -> Option<Replayed> {
    match (&entry.id, entry.first_ns, &entry.content) {
        (Some(id), Some(first_ns), Content::Document(json)) => Some(Replayed {
            id: id.clone(),
            is_trace: entry.is_trace.unwrap_or(true),
            first_ns,
            json: json.clone(),
        }),
        _ => None,
    }
}
