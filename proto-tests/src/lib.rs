//! A black-box conformance suite for the Fluent Forward protocol.
//!
//! Shares no code with the peers under test: messages are captured from known senders or written by
//! its own encoder. [`run`] runs the server cases; [`client_cases`] runs client libraries against
//! scripted servers. The program `forward-conformance` does both. Usage, sources and measured
//! peers: `README.md`.
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
mod case_result;
mod cases;
pub mod client_cases;
mod context;
mod handshake;
mod msgpack;
mod need;
mod options;
mod peer;
mod report;
mod run;
#[cfg(test)]
mod self_test;
mod sink;
mod target;
mod tls;
mod vectors;

pub use case::Case;
pub use cases::all as server_cases;
pub use options::Options;
pub use report::{Expectations, Expected, ExpectedResult, Finding, Outcome, Report};
pub use run::{run, run_expecting};
pub use sink::Sink;
pub use target::{Action, Declared, Hook, Hooks, Security, Target, Tls};
