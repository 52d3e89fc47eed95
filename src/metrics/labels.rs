//! The labels of the metrics: small enums whose values are all known when the program is built.
//!
//! A new reason is one line here. It does not hold any numbers.

/// A label with a fixed set of values.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value, in the order of [`index`](Self::index).
    const ALL: &'static [Self];
    /// How the value is written.
    fn as_str(self) -> &'static str;
    /// Place of the value in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident($label:literal) { $($(#[$vdoc:meta])* $value:ident = $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $value,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// How the value is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    )+};
}

labels! {
    /// How records were carried (Forward Protocol Specification v1, "Carrier Modes").
    Mode("mode") {
        /// One record.
        Message = "message",
        /// An array of entries.
        Forward = "forward",
        /// Entries packed into one string.
        Packed = "packed",
        /// The same, compressed with gzip or zstd.
        Compressed = "compressed",
        /// JSON over TCP.
        Json = "json",
    }

    /// Why a connection was closed before a byte was read.
    Refused("reason") {
        /// The limit of connections in all.
        Total = "total",
        /// The limit of connections from one address.
        Address = "address",
        /// The server is stopping.
        Stopping = "stopping",
    }

    /// An oddity that spoils nothing else.
    DecodeError("reason") {
        /// A value at the top level that is no message; ignored.
        NotAMessage = "not_a_message",
        /// The connection ended inside a message.
        Truncated = "truncated",
        /// The option was no map, or an option had a type that it cannot have; ignored.
        Option = "option",
        /// Bytes after the last compressed member; ignored.
        TrailingBytes = "trailing_bytes",
        /// A key of a record that is an array or map; the pair was left out.
        Key = "key",
        /// Metrics or traces of Fluent Bit instead of logs.
        Signal = "signal",
    }

    /// Why input can never be accepted.
    Poison("reason") {
        /// The tag is neither string nor binary.
        Tag = "tag",
        /// The second element fits no mode.
        Element = "element",
        /// An entry is no array of two or more.
        Entry = "entry",
        /// A record is no map.
        Record = "record",
        /// The compressed payload is damaged.
        Compression = "compression",
        /// The packed entries end inside an entry.
        PackedEnd = "packed_end",
        /// Nested too deep.
        Depth = "depth",
        /// The JSON text is no message.
        Json = "json",
        /// Metrics or traces instead of logs, or a signal that nobody knows.
        Signal = "signal",
        /// Its trace is at its limit of bytes, or it is longer than that.
        TraceBytes = "trace_bytes",
        /// What is in the journal is no message any more.
        Stored = "stored",
    }

    /// Why a connection was closed without an ack.
    Violation("reason") {
        /// A byte that no msgpack value starts with, or an impossible length.
        Msgpack = "msgpack",
        /// An array too short for any mode.
        Arity = "arity",
        /// Too many values that are no messages.
        NotForward = "not_forward",
        /// The message is over the limit.
        MessageSize = "message_size",
        /// The payload is over the limit once decompressed.
        DecompressedSize = "decompressed_size",
        /// More elements, options or keys than allowed.
        Count = "count",
        /// Nested so deep that the end was not looked for.
        Depth = "depth",
        /// A TLS greeting on a plain port.
        TlsOnPlainPort = "tls_on_plain_port",
        /// An HTTP request on the Forward port.
        Http = "http",
        /// Anything but a PING before the handshake was done.
        HandshakeOrder = "handshake_order",
        /// No progress inside a message for too long.
        Stalled = "stalled",
        /// The peer does not read its acks.
        AcksNotRead = "acks_not_read",
        /// JSON that is none.
        Json = "json",
    }

    /// How a handshake ended.
    Handshake("result") {
        /// Accepted.
        Ok = "ok",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The digest of the shared key does not match.
        SharedKey = "shared_key",
        /// Unknown user or wrong password.
        User = "user",
        /// The PING was malformed or too big.
        Ping = "ping",
        /// The address is in no allowed network.
        Network = "network",
        /// Not done in time.
        Timeout = "timeout",
        /// The peer closed the connection first.
        Closed = "closed",
    }

    /// What sealed a part of a trace.
    FlushReason("reason") {
        /// A completion record, and its linger time.
        Completed = "completed",
        /// No line for the idle time.
        Idle = "idle",
        /// Older than the longest age.
        MaxAge = "max_age",
        /// Too many open traces.
        MaxTraces = "max_traces",
        /// Too many bytes in open traces.
        Memory = "memory",
        /// It held the oldest journal segment.
        Journal = "journal",
        /// The trace reached its own limit.
        TraceBytes = "trace_bytes",
        /// The server stops and was told to flush.
        Shutdown = "shutdown",
        /// A record without a trace id: a document of its own.
        NoTrace = "no_trace",
    }

    /// Where documents go.
    Output("output") {
        /// Elasticsearch or OpenSearch.
        Elasticsearch = "elasticsearch",
        /// The embedded database.
        Sqlite = "sqlite",
        /// Standard output.
        Stdout = "stdout",
    }

    /// What became of a document.
    DocumentResult("result") {
        /// It is new.
        Created = "created",
        /// It existed and got what it lacked.
        Merged = "merged",
        /// It existed and held everything already.
        Unchanged = "unchanged",
        /// It can never be accepted and is in the dead letter.
        Rejected = "rejected",
    }

    /// Why a request or one of its items failed.
    OutputError("reason") {
        /// No connection.
        Connection = "connection",
        /// No answer in time.
        Timeout = "timeout",
        /// Asked to slow down (429).
        Throttled = "throttled",
        /// The peer's own trouble (5xx).
        Server = "server",
        /// Not allowed (401, 403).
        Auth = "auth",
        /// The index is read-only or its disk is full.
        ReadOnly = "read_only",
        /// The request was too large (413) and is split.
        TooLarge = "too_large",
        /// Somebody else changed the document meanwhile (409); it is read again.
        Conflict = "conflict",
        /// The document was rejected (other 4xx).
        Rejected = "rejected",
        /// An answer that cannot be understood.
        Response = "response",
        /// A file or the standard output failed.
        Io = "io",
    }

    /// Why records of an output are in the dead letter.
    Dropped("reason") {
        /// The fields do not fit the index's mapping.
        Mapping = "mapping",
        /// The document alone is too large.
        TooLarge = "too_large",
        /// Another rejection.
        Rejected = "rejected",
        /// A document of this id exists and is not ours.
        NotOurs = "not_ours",
    }

    /// Which bytes of an output.
    Direction("stage") {
        /// As made.
        Plain = "plain",
        /// As sent, compressed if so configured.
        Sent = "sent",
    }

    /// Who gave a document to the dead letter.
    DeadLetterSource("source") {
        /// The intake: poison.
        Intake = "intake",
        /// Gathering: lines beyond the limit of a trace.
        Trace = "trace",
        /// Elasticsearch rejected it.
        Elasticsearch = "elasticsearch",
        /// The embedded database rejected it.
        Sqlite = "sqlite",
    }
}
