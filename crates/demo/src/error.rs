//! Errors of the demo programs, with messages that say what to do.

use std::{io, net::SocketAddr, path::PathBuf, time::Duration};

/// An error that ends one of the demo programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another program listens on the address.
    #[error(
        "{address} is in use by another program: stop it, or choose another port with --port or {variable}"
    )]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// The environment variable that chooses the port.
        variable: &'static str,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The log file cannot be opened or created.
    #[error(
        "cannot write the log file {path}: {source}; make its folder writable for this user, or choose another \
         file with --log-path"
    )]
    LogFile {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Requests were still running when the time for a graceful stop was over.
    #[error(
        "{in_flight} request(s) still running {grace:?} after the stop signal: their lines may be missing"
    )]
    StopTimeout {
        /// How long it was waited.
        grace: Duration,
        /// How many requests had not ended.
        in_flight: i64,
    },
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built: {0}")]
    HttpClient(#[source] reqwest::Error),
    /// A URL from the command line or the environment is invalid.
    #[error("{option} must be an http:// or https:// address, but is {value:?}")]
    BadUrl {
        /// The flag.
        option: &'static str,
        /// The value.
        value: String,
    },
    /// The logger cannot be started.
    #[error("the logger cannot be started: {0}; see --windrow-addr")]
    Logger(String),
    /// Records were still in flight at the end.
    #[error("{count} log record(s) could not be delivered within {grace:?}: they are lost")]
    Undelivered {
        /// How many.
        count: usize,
        /// How long delivery was tried.
        grace: Duration,
    },
    /// An error of the operating system, with the operation that failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Error {
    /// Builds [`Error::Io`]; for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
