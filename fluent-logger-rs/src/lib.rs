//! Logger for the Fluent Forward protocol: to Windrow, Fluent Bit, Fluentd or the OpenTelemetry
//! Collector.
//!
//! [`Logger::log`] encodes an event on the calling thread, copies it into a bounded buffer and
//! returns; it does no I/O and does not wait. One task gathers events into chunks, one per tag,
//! and sends them over one connection with several chunks in flight. A chunk stays in memory until
//! the server acknowledged it. When a connection breaks, what was not acknowledged is sent again
//! over the next one: the same bytes with the same chunk id, in the same order.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use fluent_logger::Logger;
//!
//! #[derive(serde::Serialize)]
//! struct Sale<'a> { item: &'a str, cents: u32 }
//!
//! let logger = Logger::builder().address("127.0.0.1:24224").tag_prefix("shop").build()?;
//! logger.log("sale", &Sale { item: "hat", cents: 1999 })?;          // queued
//! logger.send("sale", &Sale { item: "tie", cents: 999 }).await?;    // acknowledged
//! for event in logger.close(Duration::from_secs(5)).await {         // what could not be delivered
//!     eprintln!("lost: {event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! | | with `request_ack` (default) | without |
//! |---|---|---|
//! | `log` said `Ok` | delivered, or reported to the delivery callback as dropped or given up, or returned by `close` | the same |
//! | "delivered" means | the server acknowledged it | the operating system took its bytes |
//! | server or network dies | nothing is lost; a chunk whose ack was lost comes twice, **with the same chunk id**: Windrow drops the repetition, Fluent Bit and Fluentd do not | what was on its way is lost, unnoticed |
//! | order | per tag, in the order of the calls; a chunk that is sent again comes later than it would have | the same |
//! | this process dies | what waits in memory is lost, at most the bounds of the buffer; with a spool at most what was queued within the last `flush_interval` | what waits in memory is lost |
//!
//! The meaning of an ack depends on the server: Windrow acknowledges what is on its disk, Fluent
//! Bit what is in its memory (by default), Fluentd what is in its output buffer.
//!
//! An application that must not lose events when it is killed awaits [`Logger::send`] before it
//! goes on, or has a spool.
//!
//! # The spool
//!
//! With the feature `spool` and `Builder::spool` a chunk is written to a file before it is sent,
//! and the file is removed when the chunk is acknowledged. What a process leaves there, the next
//! one with the same folder sends first: the same bytes, the same chunk ids. `log` never waits for
//! the disk, so an event is not durable when `log` returns, but when `Logger::sync` does. With
//! `Fsync::Always` (the default) that means durable even if the power fails, with `Fsync::Never`
//! durable if the process ends in any way.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | |
//! |---|---|
//! | `gzip` | mode `PackedGzip` |
//! | `log` | `FluentLog`, for the `log` facade |
//! | `metrics` | `Logger::publish_metrics` |
//! | `opentelemetry` | trace ids and span ids of `tracing-opentelemetry` in `FluentLayer` |
//! | `spool` | `Builder::spool`, `Logger::sync` |
//! | `tls` | addresses `tls://…`, with rustls and ring |
//! | `tower` | `RequestLayer` and `TraceContext`, for axum, tonic and hyper |
//! | `tracing` | `FluentLayer`, for `tracing-subscriber` |
//!
//! # The end of a program
//!
//! The logger runs on a thread of its own, which ends with the process. Keep [`Logger::guard`] in
//! `main`: its drop delivers what is queued, within a limit. [`Logger::close`] returns the events
//! that were not delivered. Without both, the drop of the last handle, or on Linux the end of
//! `main`, says on stderr how many events are not delivered yet.
//!
//! # Design
//!
//! * **Why is the buffer bounded in events and in bytes?** Because a bound in events alone is none
//!   for large events, and one in bytes alone is hard to reason about for small ones.
//! * **Why is there one connection and not a pool?** Several chunks are in flight on it, so that a
//!   second one would add nothing but disorder. Load spreads over servers by
//!   [`reconnect_interval`](Builder::reconnect_interval).
//! * **Why may chunks hold only half of the buffer?** So that with [`OnFull::DropOldest`] there is
//!   always something that can be dropped: what may be at the server already is never dropped.
//! * **Why is the spool not larger than the buffer?** Because then it can stay as simple as a file
//!   per chunk. A buffer for outages of hours is what a Windrow or a Fluent Bit on the same machine
//!   is for.
//! * **Why does an unknown ack end the connection?** After it the acks can no longer be matched to
//!   chunks. Sending again is safe, guessing is not.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod builder;
mod callbacks;
mod chunk;
mod connect;
mod connection;
mod delivery;
mod error;
mod event;
mod handshake;
#[cfg(feature = "log")]
mod log_facade;
mod logger;
mod loss_report;
mod naming;
mod options;
mod queue;
mod random;
mod record;
#[cfg(any(feature = "log", feature = "tracing"))]
mod record_map;
mod shared;
#[cfg(feature = "spool")]
mod spool;
#[cfg(not(feature = "spool"))]
#[path = "spool/disabled.rs"]
mod spool;
mod static_fields;
mod suppression;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tower")]
mod tower_layer;
#[cfg(feature = "tower")]
mod trace_context;
#[cfg(feature = "tracing")]
mod trace_id;
#[cfg(feature = "tracing")]
mod tracing_layer;
mod wire;
mod worker;

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

pub use builder::Builder;
pub use error::{BuildError, CloseError, ConnectionError, FlushError, Rejected, SendError, SpoolError};
pub use event::{DecodeError, Event, Outcome, Report, Stats};
#[cfg(feature = "log")]
pub use log_facade::FluentLog;
pub use logger::{Guard, Logger, Queueing, Sending};
pub use naming::Naming;
#[cfg(feature = "spool")]
pub use options::Fsync;
pub use options::{Balance, Mode, OnFull};
#[cfg(feature = "tower")]
pub use tower_layer::{RequestFuture, RequestLayer, RequestService};
#[cfg(feature = "tower")]
pub use trace_context::{Scope, TraceContext};
#[cfg(feature = "tracing")]
pub use tracing_layer::{FluentLayer, SpanRecords};
