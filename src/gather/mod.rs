//! Gathering: journal records become traces, and sealed traces become batches of documents for the
//! outputs.
//!
//! * `record_queue`: committed journal records, from memory or read back from the journal;
//! * `gatherer`: the gathering thread; `gatherer/message` walks the entries of one message;
//! * `classifier`, `metadata`: what one walk over an entry finds;
//! * `id_finder`: trace ids of a message that is not gathered here;
//! * `rewrite`: records that mean another record, such as JSON in a text;
//! * `router`: where each record goes;
//! * `duplicate_window`, `tag_interner`: chunks and tags seen last;
//! * `key_watch`: the warning about keys that no record has;
//! * `batcher`: documents on their way to the outputs; `reject_buffer`: bytes on their way to the
//!   dead letter;
//! * `open_traces`: requests of people for the traces that are open;
//! * `silent_lookup`: when the store is asked about traces that are silent;
//! * `unreleased`: what `windrow journal inspect` counts.
//!
//! Knows nothing of sockets, and of outputs only that they take batches.

mod batcher;
mod classifier;
mod duplicate_window;
mod gatherer;
mod gauges;
mod id_finder;
mod key_watch;
mod metadata;
mod open_traces;
mod record_queue;
mod reject_buffer;
mod rewrite;
mod router;
mod settings;
mod silent_lookup;
mod tag_interner;
mod unreleased;

#[doc(hidden)]
pub use self::classifier::{OnRecord, classify_entries};
pub(crate) use self::gatherer::{Dependencies, Gatherer};
pub(crate) use self::gauges::Gauges;
pub(crate) use self::id_finder::{IdFinder, IdSettings, Indivisible};
pub use self::open_traces::{OpenTraces, OpenTracesProbe};
pub(crate) use self::record_queue::{QueueConsumer, QueueProducer, RecordQueue};
pub(crate) use self::reject_buffer::RejectBuffer;
pub(crate) use self::router::Router;
#[cfg(test)]
pub(crate) use self::router::tests::config as router_test_config;
pub(crate) use self::settings::{Settings, field_names};
pub use self::unreleased::UnreleasedSummary;
