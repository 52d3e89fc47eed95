//! Pipeline: builds the stages of the server, connects them, and drains them in order at shutdown.
//!
//! ```text
//! input ──▶ journal ──▶ record queue ──▶ gatherer ──▶ outputs ──▶ claim.confirm ──▶ journal.release
//!   ▲          │ Receipt
//!   └── ack ◀──┘
//! ```
//!
//! * `build`: opens folders, ports and certificates; all that can be refused is refused before
//!   anything runs;
//! * `run`: starts the threads and tasks, and drains them;
//! * `outputs`: opens and starts the configured outputs;
//! * `status`: readiness and gauges; `liveness`: threads that must not end; `progress`: stages that
//!   do not get on; `dead_letter_watch`: the size of the dead letter.
//!
//! The only folder that knows every stage. Contains no data processing.

mod build;
mod dead_letter_watch;
mod error;
mod liveness;
mod outputs;
mod progress;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use self::build::Pipeline;
pub use self::error::BuildError;
pub use self::outputs::{Store, open_elasticsearch, search_names};
pub use self::status::{Readiness, Status};
