//! Field names of the logger's own fields: plain, ECS or OpenTelemetry.
//!
//! Owns the tables. ECS names are those of the Elastic Common Schema 8, OTel names those of the
//! OpenTelemetry log data model and semantic conventions 1.x.

/// How the fields that the logger itself writes are named: levels, trace ids, durations, static
/// fields and the like. Fields of the application keep their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Naming {
    /// Short names: `level`, `traceId`, `latencyMs`, `service`. The default.
    #[default]
    Plain,
    /// Elastic Common Schema: `log.level`, `trace.id`, `event.duration` (nanoseconds),
    /// `service.name`.
    Ecs,
    /// OpenTelemetry: `severity_text`, `trace_id`, `body`, `service.name`. Windrow finds the text
    /// of a line in `body` if its `trace.text` lists it.
    OTel,
}

/// The unit in which a duration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(
    not(all(feature = "log", feature = "tower")),
    allow(dead_code, reason = "each adapter uses some")
)]
pub(crate) enum DurationUnit {
    Milliseconds,
    Nanoseconds,
    Seconds,
}

/// One name for each of the logger's own fields.
#[derive(Debug)]
#[cfg_attr(
    not(all(feature = "log", feature = "tower")),
    allow(dead_code, reason = "each adapter uses some")
)]
pub(crate) struct Names {
    pub(crate) level: &'static str,
    pub(crate) severity: &'static str,
    pub(crate) target: &'static str,
    pub(crate) message: &'static str,
    pub(crate) trace_id: &'static str,
    pub(crate) span: &'static str,
    pub(crate) span_path: &'static str,
    pub(crate) span_id: &'static str,
    pub(crate) parent_span_id: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: &'static str,
    pub(crate) thread_name: &'static str,
    pub(crate) thread_id: &'static str,
    pub(crate) duration: &'static str,
    pub(crate) request_duration: &'static str,
    pub(crate) duration_unit: DurationUnit,
    pub(crate) outcome: &'static str,
    pub(crate) success: &'static str,
    pub(crate) failure: &'static str,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) status: &'static str,
    pub(crate) service: &'static str,
    pub(crate) version: &'static str,
    pub(crate) environment: &'static str,
    pub(crate) host: &'static str,
    /// The numbers of severity from trace to error.
    pub(crate) severities: [u64; 5],
}

static PLAIN: Names = Names {
    level: "level",
    severity: "severity",
    target: "target",
    message: "message",
    trace_id: "traceId",
    span: "span",
    span_path: "spans",
    span_id: "spanId",
    parent_span_id: "parentSpanId",
    file: "file",
    line: "line",
    thread_name: "thread",
    thread_id: "threadId",
    duration: "latencyMs",
    request_duration: "latencyMs",
    duration_unit: DurationUnit::Milliseconds,
    outcome: "outcome",
    success: "success",
    failure: "failure",
    method: "method",
    path: "path",
    status: "status",
    service: "service",
    version: "version",
    environment: "environment",
    host: "host",
    severities: OTEL_SEVERITIES,
};

static ECS: Names = Names {
    level: "log.level",
    severity: "log.syslog.severity.code",
    target: "log.logger",
    message: "message",
    trace_id: "trace.id",
    span: "span.name",
    span_path: "span.path",
    span_id: "span.id",
    parent_span_id: "parent.id",
    file: "log.origin.file.name",
    line: "log.origin.file.line",
    thread_name: "process.thread.name",
    thread_id: "process.thread.id",
    duration: "event.duration",
    request_duration: "event.duration",
    duration_unit: DurationUnit::Nanoseconds,
    outcome: "event.outcome",
    success: "success",
    failure: "failure",
    method: "http.request.method",
    path: "url.path",
    status: "http.response.status_code",
    service: "service.name",
    version: "service.version",
    environment: "service.environment",
    host: "host.name",
    // RFC 5424: debug 7, informational 6, warning 4, error 3.
    severities: [7, 7, 6, 4, 3],
};

static OTEL: Names = Names {
    level: "severity_text",
    severity: "severity_number",
    target: "otel.scope.name",
    message: "body",
    trace_id: "trace_id",
    span: "span.name",
    span_path: "span.path",
    span_id: "span_id",
    parent_span_id: "parent_span_id",
    file: "code.file.path",
    line: "code.line.number",
    thread_name: "thread.name",
    thread_id: "thread.id",
    duration: "span.duration",
    request_duration: "http.server.request.duration",
    duration_unit: DurationUnit::Seconds,
    outcome: "otel.status_code",
    success: "OK",
    failure: "ERROR",
    method: "http.request.method",
    path: "url.path",
    status: "http.response.status_code",
    service: "service.name",
    version: "service.version",
    environment: "deployment.environment.name",
    host: "host.name",
    severities: OTEL_SEVERITIES,
};

/// Severity numbers of the OpenTelemetry log data model: TRACE, DEBUG, INFO, WARN, ERROR.
const OTEL_SEVERITIES: [u64; 5] = [1, 5, 9, 13, 17];

impl Naming {
    pub(crate) fn names(self) -> &'static Names {
        match self {
            Self::Plain => &PLAIN,
            Self::Ecs => &ECS,
            Self::OTel => &OTEL,
        }
    }
}
