//! Log that is sent to a Forward server with fluent-logger-rs: asynchronous, acknowledged,
//! reconnecting at an interval so that several servers behind one address get an even load. The
//! application never waits for the network.

use std::{io, time::Duration};

use fluent_logger::Logger;
use serde_json::{Map, Value};

use crate::{Error, forward::Target, sidecar::Identity};

/// Target and sender of the records.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server and the credentials for it.
    pub target: Target,
    /// The tag of the records.
    pub tag: String,
    /// Added by the application, since there is no sidecar.
    pub identity: Identity,
}

/// The log of an application that sends its records itself.
#[derive(Debug)]
pub struct DirectLog {
    logger: Logger,
    tag: String,
    identity: Identity,
}

impl DirectLog {
    /// Starts the logger; it connects and reconnects in the background.
    ///
    /// # Errors
    /// [`Error::Logger`] when the options are invalid.
    pub fn start(options: Options) -> Result<Self, Error> {
        let logger = options
            .target
            .builder()?
            .on_connection_error(|error| tracing::warn!("logging: {error}"))
            .build()
            .map_err(|error| Error::Logger(error.to_string()))?;
        Ok(Self {
            logger,
            tag: options.tag,
            identity: options.identity,
        })
    }

    pub(super) fn write(&self, mut record: Map<String, Value>) -> io::Result<()> {
        record.insert(
            "service_name".to_owned(),
            self.identity.service_name.as_str().into(),
        );
        record.insert(
            "environment".to_owned(),
            self.identity.environment.as_str().into(),
        );
        self.logger
            .log(&self.tag, &record)
            .map_err(|rejected| io::Error::other(rejected.to_string()))
    }

    pub(super) async fn finish(&self, grace: Duration) -> Result<(), Error> {
        match self.logger.close(grace).await.len() {
            0 => Ok(()),
            count => Err(Error::Undelivered { count, grace }),
        }
    }
}
