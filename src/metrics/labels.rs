//! Labels of the metrics: enums, so that all values are known at compile time.
//!
//! A new value is one line here.

/// A label with a fixed set of values.
pub trait Label: Copy + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// Every value, in the order of [`index`](Self::index).
    const ALL: &'static [Self];
    /// The value as text.
    fn as_str(self) -> &'static str;
    /// Index of the value in [`ALL`](Self::ALL).
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

            /// The value as text.
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
    /// Carrier mode of records (Forward Protocol Specification v1, "Carrier Modes").
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
        /// A record without a message: a JSON object or a map by itself.
        Raw = "raw",
        /// A request to the HTTP input.
        Http = "http",
        /// A request to the OTLP input.
        Otlp = "otlp",
    }

    /// Status of an answer of the HTTP and OTLP inputs.
    HttpStatus("status") {
        /// Accepted, and durable.
        Ok = "200",
        /// A preflight request of a browser.
        NoContent = "204",
        /// The body or a header cannot be read.
        BadRequest = "400",
        /// Credentials are missing or wrong.
        Unauthorized = "401",
        /// A web page that may not send.
        Forbidden = "403",
        /// Not a path of the input.
        NotFound = "404",
        /// Not POST.
        MethodNotAllowed = "405",
        /// The body came too slowly.
        RequestTimeout = "408",
        /// Neither a length nor a chunked body.
        LengthRequired = "411",
        /// The body is over the limit.
        PayloadTooLarge = "413",
        /// A content type or encoding that is not taken.
        UnsupportedMediaType = "415",
        /// The journal takes nothing; the client should send again.
        ServiceUnavailable = "503",
    }

    /// Why a connection was refused.
    Refused("reason") {
        /// The total limit of connections.
        Total = "total",
        /// The limit of connections from one address.
        Address = "address",
        /// The server is stopping.
        Stopping = "stopping",
    }

    /// Malformed input that is skipped.
    DecodeError("reason") {
        /// A top-level value that is not a message; ignored.
        NotAMessage = "not_a_message",
        /// The connection ended inside a message.
        Truncated = "truncated",
        /// The option is not a map, or a value in it has a wrong type; ignored.
        Option = "option",
        /// Bytes after the last compressed member; ignored.
        TrailingBytes = "trailing_bytes",
        /// A key of a record that is an array or map; the pair is omitted.
        Key = "key",
        /// Metrics or traces of Fluent Bit instead of logs.
        Signal = "signal",
    }

    /// What the text of a record without a text was made of.
    MadeText("from") {
        /// A text field that holds an object, array, number or boolean: its JSON.
        Value = "value",
        /// All fields of the record, which has no text field.
        Fields = "fields",
    }

    /// Why input can never be accepted.
    Poison("reason") {
        /// The tag is neither string nor binary.
        Tag = "tag",
        /// The second element matches no mode.
        Element = "element",
        /// An entry is not an array of two or more elements.
        Entry = "entry",
        /// A record is not a map.
        Record = "record",
        /// The compressed payload is damaged.
        Compression = "compression",
        /// The packed entries end inside an entry.
        PackedEnd = "packed_end",
        /// Nested too deeply.
        Depth = "depth",
        /// The JSON text is not a message.
        Json = "json",
        /// Metrics or traces instead of logs, or an unknown signal.
        Signal = "signal",
        /// The record is longer than any document may be.
        TraceBytes = "trace_bytes",
        /// The journal record is not a message.
        Stored = "stored",
    }

    /// Why a connection was closed without an ack.
    Violation("reason") {
        /// A byte that starts no MessagePack value, or an impossible length.
        Msgpack = "msgpack",
        /// An array too short for any mode.
        Arity = "arity",
        /// Too many values that are not messages.
        NotForward = "not_forward",
        /// The message is over the limit.
        MessageSize = "message_size",
        /// The payload is over the limit once decompressed.
        DecompressedSize = "decompressed_size",
        /// More elements, options or keys than allowed.
        Count = "count",
        /// Nested too deeply to find the end.
        Depth = "depth",
        /// A TLS greeting on a plain port.
        TlsOnPlainPort = "tls_on_plain_port",
        /// An HTTP request on the Forward port.
        Http = "http",
        /// A header of the PROXY protocol that is not expected, or none that is.
        ProxyProtocol = "proxy_protocol",
        /// Anything but a PING before the end of the handshake.
        HandshakeOrder = "handshake_order",
        /// No progress inside a message within the timeout.
        Stalled = "stalled",
        /// The peer does not read its acks.
        AcksNotRead = "acks_not_read",
        /// Invalid JSON.
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
        /// It did not finish within the timeout.
        Timeout = "timeout",
        /// The peer closed the connection first.
        Closed = "closed",
    }

    /// Why records stay at this instance although another one may own their traces.
    Kept("reason") {
        /// The owner did not make them durable in time.
        Slow = "slow",
        /// The connection to the owner was lost.
        Away = "away",
        /// Too many bytes were on their way to the owner.
        Busy = "busy",
        /// A part of a line came under their tag.
        PartOfLine = "part_of_line",
        /// Their chunk cannot be split exactly.
        Indivisible = "indivisible",
        /// Their chunk is too large to be split.
        TooLarge = "too_large",
    }

    /// What sealed a part of a trace.
    FlushReason("reason") {
        /// A completion record, and its linger time.
        Completed = "completed",
        /// No line for the idle time.
        Idle = "idle",
        /// The store has its document complete: its completion record came to another instance.
        CompletedElsewhere = "completed_elsewhere",
        /// At the maximum age.
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

    /// An output.
    Output("output") {
        /// Elasticsearch or OpenSearch.
        Elasticsearch = "elasticsearch",
        /// The embedded database.
        Sqlite = "sqlite",
        /// Standard output.
        Stdout = "stdout",
    }

    /// Result of a document.
    DocumentResult("result") {
        /// It is new.
        Created = "created",
        /// It existed; the union was written.
        Merged = "merged",
        /// It existed and contained everything.
        Unchanged = "unchanged",
        /// It can never be accepted and is in the dead letter.
        Rejected = "rejected",
    }

    /// Why a request or one of its items failed.
    OutputError("reason") {
        /// No connection.
        Connection = "connection",
        /// No response within the timeout.
        Timeout = "timeout",
        /// Throttled (429).
        Throttled = "throttled",
        /// A server error (5xx).
        Server = "server",
        /// Not allowed (401, 403).
        Auth = "auth",
        /// The index is read-only or its disk is full.
        ReadOnly = "read_only",
        /// The request was too large (413) and is split.
        TooLarge = "too_large",
        /// Another writer changed the document (409); it is read again.
        Conflict = "conflict",
        /// The document was rejected (other 4xx).
        Rejected = "rejected",
        /// An unreadable response.
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
        /// A foreign document with this id exists.
        NotOurs = "not_ours",
    }

    /// Stage at which bytes of an output are counted.
    Direction("stage") {
        /// Before compression.
        Plain = "plain",
        /// As sent, possibly compressed.
        Sent = "sent",
    }

    /// Who sent a document to the dead letter.
    DeadLetterSource("source") {
        /// Elasticsearch rejected it.
        Elasticsearch = "elasticsearch",
        /// The embedded database rejected it.
        Sqlite = "sqlite",
    }
}
