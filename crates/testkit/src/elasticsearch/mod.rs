//! A real Elasticsearch or OpenSearch node from Maven Central, without Docker, and a client with
//! what checks need.
//!
//! The node is one Java process on loopback that ends when its standard input closes, so it cannot
//! outlive the tests even when they are killed. It can be restarted on the same folder and port
//! after SIGKILL.

mod client;
mod node;

use std::sync::OnceLock;

pub use client::Client;
pub use node::{Kind, Node};

use crate::env::Missing;

/// The one Elasticsearch of a test program, started at the first call. Tests share it and tell
/// their indices apart by a prefix; a test that kills its node starts its own.
///
/// # Errors
/// When Java or Maven is missing, or Maven cannot get the packages.
pub fn shared() -> Result<&'static Node, Missing> {
    static NODE: OnceLock<Result<Node, Missing>> = OnceLock::new();
    NODE.get_or_init(|| Node::start(Kind::ELASTICSEARCH))
        .as_ref()
        .map_err(Clone::clone)
}
