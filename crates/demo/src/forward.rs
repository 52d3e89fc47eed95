//! Forward target: addresses, TLS and credentials, shared by applications that log directly and the
//! logging sidecar. Becomes a `fluent_logger::Builder`; sends nothing itself.

use std::{fmt, path::PathBuf, time::Duration};

use fluent_logger::{Builder, Logger};

use crate::Error;

/// A Forward server, or several.
#[derive(Clone, Default)]
pub struct Target {
    /// `host:port` or `tls://host:port`; several with commas between. Each connection takes the
    /// next.
    pub address: String,
    /// The age at which a connection is replaced, so that several servers behind one address get an
    /// even load.
    pub reconnect_interval: Option<Duration>,
    /// The key that the server shares with its clients.
    pub shared_key: Option<String>,
    /// User and password, where the server asks for them.
    pub user: Option<(String, String)>,
    /// PEM file with the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client's certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
}

impl Target {
    /// An address without TLS and credentials.
    #[must_use]
    pub fn plain(address: String) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }

    /// A logger with acknowledgements, to be completed.
    ///
    /// # Errors
    /// [`Error::Logger`] when files for TLS are given but no address uses TLS.
    pub fn builder(&self) -> Result<Builder, Error> {
        let servers: Vec<&str> = self.address.split(',').map(str::trim).collect();
        let for_tls = self.ca_file.is_some() || self.client_cert.is_some();
        if for_tls && !servers.iter().any(|server| server.starts_with("tls://")) {
            return Err(Error::Logger(format!(
                "certificates are given, but {} is an address without TLS: write tls://host:port",
                self.address
            )));
        }
        let mut builder = Logger::builder().request_ack(true);
        for server in servers {
            builder = builder.address(server);
        }
        if let Some(interval) = self.reconnect_interval {
            builder = builder.async_reconnect_interval(interval);
        }
        if let Some(key) = &self.shared_key {
            builder = builder.shared_key(key);
        }
        if let Some((name, password)) = &self.user {
            builder = builder.user(name, password);
        }
        if let Some(file) = &self.ca_file {
            builder = builder.tls_ca_file(file);
        }
        if let Some((certificate, key)) = &self.client_cert {
            builder = builder.tls_client_cert(certificate, key);
        }
        Ok(builder)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without key and password.
        f.debug_struct("Target")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_without_tls_are_a_mistake() {
        let mut target = Target::plain("one:24224,two:24224".to_owned());
        assert!(target.builder().is_ok());
        target.ca_file = Some("ca.pem".into());
        let error = target.builder().err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.contains("tls://host:port")));
        target.address = "tls://one:24224".to_owned();
        assert!(target.builder().is_ok());
    }

    #[test]
    fn keys_are_not_shown() {
        let target = Target {
            shared_key: Some("secret".to_owned()),
            ..Target::plain("one".to_owned())
        };
        assert!(!format!("{target:?}").contains("secret"));
    }
}
