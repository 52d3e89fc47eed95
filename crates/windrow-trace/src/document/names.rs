//! Configured field names: which fields of a record hold trace id, text, level and service, and
//! what becomes of the others.

use super::field_names::top_level::MAPPED;
use super::merge_rule::MergeRule;
use super::msgpack::Token;
use super::schema::DocumentSchema;
use crate::record::trace_id::IdForm;

/// The fields that are read as trace id, text, level and service, each in order of preference, and
/// how they are read.
#[derive(Clone, Debug)]
pub struct FieldNames {
    /// Paths that may hold the trace id; `|bytes`, `|base64`, `|hex` or `|context` behind one says
    /// what its value is. The first is the name of the trace id in the document.
    pub keys: Vec<String>,
    /// Paths that may hold the text.
    pub text: Vec<String>,
    /// Paths that may hold the level of a line: the first that has one.
    pub level: Vec<String>,
    /// Paths that may hold the service that wrote a line: the first that has one.
    pub service: Vec<String>,
    /// Values that are no trace ids, in any case. Blanks and zeros are none either.
    pub ignore: Vec<String>,
    /// Whether ANSI escape sequences are removed from texts.
    pub strip_ansi: bool,
    /// What documents look like.
    pub document: DocumentOptions,
}

/// What documents look like.
#[derive(Clone, Debug, Default)]
pub struct DocumentOptions {
    /// Merge rules of fields. Of the others the newest value counts; of those that hold the level
    /// that of the worst line.
    pub merge: Vec<(String, MergeRule)>,
    /// The names of what Windrow knows of a trace.
    pub schema: DocumentSchema,
    /// Keep the fields of every line, so that each record can be got back.
    pub keep_fields: bool,
}

/// Where loggers and collectors write the trace id: loggers of JavaScript, Java, Go, Ruby and Rust
/// (`traceId`, `trace_id`), ECS (`trace.id`), .NET (`TraceId`), Serilog (`@tr`), Python's
/// `OpenTelemetry` (`otelTraceID`), Datadog (`dd.trace_id`), log4j2 and Logback (`contextMap`,
/// `mdc`), Monolog (`context`, `extra`), tracing (`fields`, `span`), GELF (`_trace_id`), Google
/// Cloud, AWS Powertools (`xray_trace_id`), Fluent Bit's `Merge_Log_Key log_processed`, Azure
/// (`OperationId`), Honeycomb (`trace.trace_id`), winston and Elixir (`metadata`), ECS of log4j2
/// (`labels`), .NET's JSON console (`Scopes`), semantic_logger (`named_tags`), loguru (`record`),
/// Kong (`trace_id.w3c`), and the headers that proxies log.
pub const KEY_NAMES: [&str; 77] = [
    "traceId",
    "trace_id",
    "trace.id",
    "traceID",
    "TraceId",
    "TraceID",
    "traceid",
    "trace-id",
    "TRACE_ID",
    "otelTraceID",
    "otelTraceId",
    "otel.trace_id",
    "@tr",
    "dd.trace_id",
    "dd_trace_id",
    "_trace_id",
    "_traceId",
    "xray_trace_id",
    "logging.googleapis.com/trace",
    "log_processed.traceId",
    "log_processed.trace_id",
    "log_processed.trace.id",
    "context.trace_id",
    "context.traceId",
    "extra.trace_id",
    "extra.traceId",
    "contextMap.traceId",
    "contextMap.trace_id",
    "mdc.traceId",
    "mdc.trace_id",
    "fields.trace_id",
    "span.trace_id",
    "attributes.trace_id",
    "traceparent",
    "http.request.headers.traceparent",
    "headers.traceparent",
    "x-amzn-trace-id",
    "X-Amzn-Trace-Id",
    "x-b3-traceid",
    "X-B3-TraceId",
    "b3",
    "uber-trace-id",
    "x-cloud-trace-context",
    "X-Cloud-Trace-Context",
    "operation_Id",
    "OperationId",
    "x-trace-id",
    "X-Trace-Id",
    "TRACEID",
    "trace.trace_id",
    "trace.traceId",
    "otel_trace_id",
    "opentelemetry_trace_id",
    "labels.traceId",
    "labels.trace_id",
    "metadata.traceId",
    "metadata.trace_id",
    "metadata.otel_trace_id",
    "properties.traceId",
    "properties.trace_id",
    "Properties.TraceId",
    "Scopes.TraceId",
    "named_tags.trace_id",
    "record.extra.trace_id",
    "spans.trace_id",
    "trace|context",
    "xrayTraceId",
    "AWS-XRAY-TRACE-ID",
    "sentry-trace",
    "x-datadog-trace-id",
    "X-Datadog-Trace-Id",
    "x_b3_traceid",
    "req.headers.traceparent",
    "request.headers.traceparent",
    "request.headers.Traceparent",
    "request_Traceparent",
    "trace_id.w3c",
];

/// Where loggers write the text: the document keeps the name of the first three; a text under one
/// of the others is joined under the first name.
pub const TEXT_NAMES: [&str; 24] = [
    "message",
    "log",
    "msg",
    "event",
    "MESSAGE",
    "Message",
    "short_message",
    "body",
    "Body",
    "@message",
    "@m",
    "RenderedMessage",
    "textPayload",
    "jsonPayload.message",
    "fields.message",
    "log_processed.message",
    "log_processed.msg",
    "record.message",
    "log_message",
    "@mt",
    "MessageTemplate",
    "text",
    "formattedMessage",
    "event.original",
];

/// Those of [`TEXT_NAMES`] under which no document has its text: structlog (`event`), journald
/// (`MESSAGE`), Windows and .NET (`Message`), GELF (`short_message`), `OpenTelemetry` (`body`),
/// `CloudWatch` (`@message`), Serilog (`@m`, `@mt`, `RenderedMessage`), Google Cloud (`textPayload`,
/// `jsonPayload`), tracing (`fields`), loguru (`text`, `record`), Logback (`formattedMessage`), ECS
/// (`event.original`).
pub(crate) const FURTHER_TEXT_NAMES: &[&str] = TEXT_NAMES.split_at(3).1;

/// Values of trace ids with which loggers and proxies say that there is none. (`%!s(<nil>)` is Go's,
/// `…_IS_UNDEFINED` Logback's.) First letters that are
/// hex digits cost: the usual ids that begin with them are compared with this list.
pub const IGNORED_IDS: [&str; 54] = [
    "-",
    "--",
    "null",
    "(null)",
    "<null>",
    "nil",
    "<nil>",
    "none",
    "(none)",
    "<none>",
    "undefined",
    "unknown",
    "n/a",
    "nan",
    "<no value>",
    "[object Object]",
    "missing",
    "empty",
    "na",
    "n.a.",
    "undef",
    "unset",
    "(undefined)",
    "<undefined>",
    "(unknown)",
    "<unknown>",
    "(empty)",
    "<empty>",
    "not set",
    "not_set",
    "no trace",
    "no-trace",
    "no_trace",
    "notrace",
    "invalid",
    "traceId_IS_UNDEFINED",
    "trace_id_IS_UNDEFINED",
    "%!s(<nil>)",
    "%!v(<nil>)",
    "$null",
    "?",
    "{}",
    "[]",
    "(missing)",
    "<missing>",
    "(not set)",
    "<invalid>",
    "<unset>",
    "not available",
    "not applicable",
    "unavailable",
    "no trace id",
    "TID: N/A",
    "TID:N/A",
];

/// Where loggers write the level: zap, slog, zerolog, logrus, winston, pino, bunyan, log4j2,
/// Logback, structlog, Monolog, semantic_logger, GELF (`level`); Google Cloud (`severity`); ECS
/// (`log.level`); Python (`levelname`, `levelno`); `OpenTelemetry` (`severity_text`,
/// `severity_number`); Serilog (`@l`); journald (`PRIORITY`); loguru (`record.level.name`);
/// PostgreSQL (`error_severity`); hclog (`@level`); Azure (`SeverityLevel`).
pub const LEVEL_NAMES: [&str; 30] = [
    "level",
    "severity",
    "log.level",
    "lvl",
    "levelname",
    "level_name",
    "severity_text",
    "severityText",
    "SeverityText",
    "@l",
    "Level",
    "Severity",
    "LEVEL",
    "loglevel",
    "log_level",
    "logLevel",
    "LogLevel",
    "severity_number",
    "severityNumber",
    "SeverityNumber",
    "PRIORITY",
    "level_value",
    "levelno",
    "record.level.name",
    "syslog_severity",
    "error_severity",
    "pri",
    "@level",
    "SeverityLevel",
    "severityLevel",
];

/// Where applications and collectors write the service.
pub const SERVICE_NAMES: [&str; 28] = [
    "service_name",
    "service.name",
    "serviceName",
    "ServiceName",
    "service",
    "app",
    "app_name",
    "appName",
    "application",
    "dd.service",
    "resource.service.name",
    "resource.attributes.service.name",
    "kubernetes.labels.app.kubernetes.io/name",
    "kubernetes.labels.app_kubernetes_io/name",
    "kubernetes.labels.app",
    "kubernetes.labels.k8s-app",
    "kubernetes.container_name",
    "container_name",
    "SYSLOG_IDENTIFIER",
    "appname",
    "ident",
    "_SYSTEMD_UNIT",
    "otelServiceName",
    "cloud_RoleName",
    "AppRoleName",
    "resources.service.name",
    "Resource.service.name",
    "CONTAINER_NAME",
];

impl Default for FieldNames {
    fn default() -> Self {
        let own = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        Self {
            keys: own(&KEY_NAMES),
            text: own(&TEXT_NAMES),
            level: own(&LEVEL_NAMES),
            service: own(&SERVICE_NAMES),
            document: DocumentOptions::default(),
            ignore: own(&IGNORED_IDS),
            strip_ansi: true,
        }
    }
}

impl FieldNames {
    /// The name of the trace id in the document.
    #[must_use]
    pub fn key(&self) -> &str {
        let configured = || {
            self.keys
                .first()
                .map_or(super::state::DEFAULT_KEY, |key| IdForm::path_of_key(key))
        };
        self.document.schema.key().unwrap_or_else(configured)
    }

    /// The paths of the keys, without the forms of their values.
    pub fn key_paths(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| IdForm::path_of_key(key))
    }

    /// Whether stores map fields of this name as values: a list or an object there is displaced.
    pub(crate) fn is_value_name(&self, name: &[u8]) -> bool {
        name == self.key().as_bytes() || MAPPED.iter().any(|other| other.as_bytes() == name)
    }

    /// The names of a document that no record gives it, with the name of its text.
    pub(crate) fn own<'n>(&'n self, text: Option<&'n str>) -> impl Iterator<Item = &'n str> {
        let derived = self.document.schema.derived_names().iter().copied();
        text.into_iter().chain([self.key()]).chain(derived)
    }

    fn text_rank(&self, name: &[u8]) -> Option<usize> {
        self.text.iter().position(|text| text.as_bytes() == name)
    }

    /// The name of the joined text in the document, when its best name in the records has this rank.
    pub(crate) fn text_name(&self, rank: usize) -> Option<&str> {
        let name = self.text.get(rank)?;
        Some(self.document.schema.text().unwrap_or(name))
    }

    /// The merge rule of a field of records.
    pub(crate) fn merge_rule(&self, name: &[u8]) -> MergeRule {
        let configured = &self.document.merge;
        if let Some((_, rule)) = configured.iter().find(|(known, _)| known.as_bytes() == name) {
            return *rule;
        }
        if self.text_rank(name).is_none() && self.holds_level(name) {
            MergeRule::Worst
        } else {
            MergeRule::Newest
        }
    }

    /// The merge rule of a field of metadata.
    pub(crate) fn metadata_rule(&self, name: &[u8]) -> MergeRule {
        // Fluent Bit has the severity of an OTLP record there.
        if name == b"otlp" || self.holds_level(name) {
            MergeRule::Worst
        } else {
            MergeRule::Newest
        }
    }

    /// Whether the field may hold the level: it is a path to it, or where such a path begins.
    fn holds_level(&self, name: &[u8]) -> bool {
        self.level.iter().any(|path| {
            path.as_bytes()
                .strip_prefix(name)
                .is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
        })
    }
}

/// The bytes of a value that counts as a string: `str`, or `bin` that is UTF-8 (Ruby and Python
/// clients send both).
pub fn as_text(token: Token<'_>) -> Option<&[u8]> {
    match token {
        Token::Str(text) => Some(text),
        Token::Bin(bytes) if std::str::from_utf8(bytes).is_ok() => Some(bytes),
        _ => None,
    }
}
