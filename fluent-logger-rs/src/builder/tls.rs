//! TLS options of the builder (feature `tls`).

use std::path::PathBuf;

use super::Builder;

impl Builder {
    /// Trusts the certificate authorities in this PEM file, and no others. Read by
    /// [`build`](Self::build). May be called several times. Default: the authorities that the
    /// operating system trusts.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .address("tls://logs.example")
    ///     .tls_ca_file("ca.pem");
    /// ```
    pub fn tls_ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_files.push(path.into());
        self
    }

    /// The client certificate (chain) and its private key, PEM files, for servers that ask for one
    /// (mTLS). Read by [`build`](Self::build). Default: none.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .tls_client_cert("client.pem", "client-key.pem");
    /// ```
    pub fn tls_client_cert(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.tls.client = Some((cert.into(), key.into()));
        self
    }

    /// The name that the server's certificate must have, and that is sent as SNI. Default: the host
    /// of the address.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .address("tls://10.0.0.1")
    ///     .tls_server_name("logs.example");
    /// ```
    pub fn tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls.server_name = Some(name.into());
        self
    }

    /// Accepts any certificate of any server. The connection is encrypted, but the server is not
    /// authenticated: for tests only. Default: `false`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().tls_insecure_skip_verify(true);
    /// ```
    pub fn tls_insecure_skip_verify(mut self, skip: bool) -> Self {
        self.tls.insecure = skip;
        self
    }
}
