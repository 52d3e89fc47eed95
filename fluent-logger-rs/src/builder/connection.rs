//! Connection options of the builder: retries, timeouts, reconnects and the handshake.

use std::time::Duration;

use super::Builder;

impl Builder {
    /// Messages that may be unacknowledged on a connection. 1 to 65,536. Default: 8, in Message
    /// mode 256.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().in_flight(32);
    /// ```
    pub fn in_flight(mut self, messages: usize) -> Self {
        self.in_flight = Some(messages);
        self
    }

    /// The first pause after all addresses have failed; it doubles with each further round. The
    /// real pause is drawn between half and all of it. 1 ms to 1 hour. Default: 500 ms.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().retry_wait(Duration::from_millis(200));
    /// ```
    pub fn retry_wait(mut self, wait: Duration) -> Self {
        self.retry_wait = wait;
        self
    }

    /// The longest pause between attempts. At least `retry_wait`, at most 1 hour. Default: 10 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().max_retry_wait(Duration::from_secs(30));
    /// ```
    pub fn max_retry_wait(mut self, wait: Duration) -> Self {
        self.max_retry_wait = wait;
        self
    }

    /// Gives a chunk up after this many failed attempts, that is connections that could not be made
    /// or broke while it waited. It is then counted ([`Stats::given_up`](crate::Stats::given_up))
    /// and handed to the delivery callback. Default: never, since memory is bounded anyway.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().max_retry(10);
    /// ```
    pub fn max_retry(mut self, attempts: u32) -> Self {
        self.max_retry = Some(attempts);
        self
    }

    /// Time for name resolution, connect and TLS together. 1 ms to 1 hour. Default: 5 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().connect_timeout(Duration::from_secs(2));
    /// ```
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Time for the shared-key handshake. 1 ms to 1 hour. Default: 10 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().handshake_timeout(Duration::from_secs(5));
    /// ```
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// A connection that takes no bytes for this long is dropped. 1 ms to 1 hour. Default: 30 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().write_timeout(Duration::from_secs(10));
    /// ```
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// A chunk that is not acknowledged for this long after its last byte was written is sent again
    /// over a new connection. 1 ms to 1 hour. Default: 60 s.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().ack_timeout(Duration::from_secs(20));
    /// ```
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// How long delivery goes on in the background after the last handle was dropped without
    /// `close`. 0 to 30 days. Default: 5 s. Dropping never blocks.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().drop_timeout(Duration::from_secs(1));
    /// ```
    pub fn drop_timeout(mut self, timeout: Duration) -> Self {
        self.drop_timeout = timeout;
        self
    }

    /// Replaces each connection when it is this old, so that load spreads over servers that were
    /// added: no new chunk is sent over it, the acks that are due are awaited, it is closed, and
    /// the next chunk goes over a new connection, to the next address. Nothing is lost or doubled
    /// by it. 10 ms to 30 days; default: never.
    ///
    /// The Go logger has the option under the name
    /// [`async_reconnect_interval`](Self::async_reconnect_interval).
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder().reconnect_interval(Duration::from_secs(60));
    /// ```
    pub fn reconnect_interval(mut self, interval: Duration) -> Self {
        self.reconnect_interval = Some(interval);
        self
    }

    /// [`reconnect_interval`](Self::reconnect_interval) under the name that the Go logger gives it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// let builder = fluent_logger::Logger::builder()
    ///     .async_reconnect_interval(Duration::from_secs(60));
    /// ```
    pub fn async_reconnect_interval(self, interval: Duration) -> Self {
        self.reconnect_interval(interval)
    }

    /// By which share of itself the reconnect interval varies from connection to connection, so
    /// that clients started together do not move together. 0.0 to 1.0. Default: 0.1.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().reconnect_jitter(0.2);
    /// ```
    pub fn reconnect_jitter(mut self, share: f64) -> Self {
        self.reconnect_jitter = share;
        self
    }

    /// The key that the server shares with its clients (`shared_key` of Fluent Bit and Fluentd).
    /// With it the client expects the handshake of the Forward Protocol Specification v1 and sends
    /// nothing before it has succeeded; the key itself is never sent. At most 4096 bytes; may be
    /// empty. Default: no handshake.
    ///
    /// The handshake proves that both sides know the key; it encrypts nothing. Use `tls://` for
    /// that.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().shared_key("secret");
    /// ```
    pub fn shared_key(mut self, key: impl Into<String>) -> Self {
        self.security.shared_key = Some(key.into());
        self
    }

    /// User and password for servers that ask for them besides the shared key, at most 1024 bytes
    /// each. Default: none.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder()
    ///     .shared_key("secret")
    ///     .user("shop", "password");
    /// ```
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.security.username = name.into();
        self.security.password = password.into();
        self
    }

    /// The name by which this client presents itself in the handshake, at most 255 bytes. Fluentd
    /// refuses a client that has its own name. Default: the host's name, else `fluent-logger-rs`.
    ///
    /// ```
    /// let builder = fluent_logger::Logger::builder().self_hostname("shop-1");
    /// ```
    pub fn self_hostname(mut self, name: impl Into<String>) -> Self {
        self.security.hostname = name.into();
        self
    }
}
