//! A black-box conformance suite for peers of the Fluent Forward protocol.
//!
//! It shares no code with the peers that it judges: bytes are literal vectors from the wire of known senders, or are
//! made by a tiny writer of its own. [`run`] holds a server to the server cases; [`client_cases`] is a scripted server
//! that a client library is pointed at. The program `forward-conformance` does both from the command line.
//! How to use it, what the sources mean, and which peers were measured: `README.md`.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use proto_tests::{Options, Target};
//! let mut target = Target::new("127.0.0.1:24224");
//! target.sink = "windrow-logs=http://127.0.0.1:2020".parse()?;
//! let report = proto_tests::run(&target, &Options::default()).await;
//! assert!(report.is_good(), "{}", report.text());
//! # Ok(())
//! # }
//! ```

mod case;
mod cases;
pub mod client_cases;
mod context;
mod handshake;
mod msgpack;
mod peer;
mod report;
mod run;
#[cfg(test)]
mod self_test;
mod sink;
mod target;
mod tls;
mod vectors;

pub use case::{Case, Options};
pub use cases::all as server_cases;
pub use report::{Expectations, Expected, ExpectedResult, Finding, Outcome, Report};
pub use run::{run, run_expecting};
pub use sink::Sink;
pub use target::{Action, Declared, Hook, Hooks, Security, Target, Tls};
