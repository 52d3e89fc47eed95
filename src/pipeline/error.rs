//! Reasons why the server cannot start.

use std::io;
use std::path::PathBuf;

use crate::cluster::ClusterError;
use crate::input::forward::{BindError, TlsError};
use crate::output::{elasticsearch, sqlite};

/// Why the server cannot start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The data folder cannot be made or used.
    #[error("data folder {path}: {source} (choose another with --data-dir, or fix its permissions)")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] windrow_journal::OpenError),
    /// The dead letter cannot be opened.
    #[error("dead letter folder {path}: {source}")]
    DeadLetter {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The folder of rejected input cannot be opened.
    #[error("folder of rejected input {path}: {source}")]
    Rejected {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The embedded store cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] sqlite::StoreError),
    /// A setting of the Elasticsearch output cannot be used.
    #[error(transparent)]
    Elasticsearch(#[from] elasticsearch::OpenError),
    /// A certificate file cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Other instances cannot be connected to.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin port cannot be listened on.
    #[error(
        "cannot listen on {address} for the admin port: {source} (choose another with --admin, port 0 for any)"
    )]
    Admin {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}
