//! Options of the layer.

use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::registry::Extensions;

use super::limit::{RepeatLimit, Sampling};
use super::{FluentLayer, SpanRecords};
use crate::logger::Logger;

impl FluentLayer {
    /// Sends with this tag. Names and severity are those of the logger
    /// ([`naming`](crate::Builder::naming),
    /// [`numeric_severity`](crate::Builder::numeric_severity)).
    pub fn new(logger: Logger, tag: impl Into<String>) -> Self {
        let settings = logger.settings();
        let names = settings.naming.names();
        Self {
            logger,
            tag: tag.into(),
            names,
            numeric_severity: settings.numeric_severity,
            trace_key: names.trace_id.to_owned(),
            location: false,
            thread: false,
            span_ids: false,
            span_path: false,
            make_trace_ids: false,
            span_records: SpanRecords::None,
            completion_message: "request completed".to_owned(),
            sampling: Sampling::default(),
            repeats: None,
            reserved: vec![names.level, names.target, names.span, names.severity],
            in_span: None,
            in_context: None,
            #[cfg(feature = "opentelemetry")]
            opentelemetry: None,
        }
    }

    /// The key of the trace id in the record. Default: that of the naming, `traceId`.
    #[must_use]
    pub fn trace_id_key(mut self, key: impl Into<String>) -> Self {
        self.trace_key = key.into();
        self
    }

    /// Adds `file` and `line` of the event or span. Default: `false`.
    #[must_use]
    pub fn with_location(mut self, location: bool) -> Self {
        let names = self.names;
        self.location = location;
        self.reserve(location, &[names.file, names.line])
    }

    /// Adds `thread`, the name of the thread if it has one, and `threadId`. Default: `false`.
    #[must_use]
    pub fn with_thread(mut self, thread: bool) -> Self {
        let names = self.names;
        self.thread = thread;
        self.reserve(thread, &[names.thread_name, names.thread_id])
    }

    /// Adds `spanId`, the id of the innermost span, and `parentSpanId`: 16 hexadecimal digits,
    /// those of OpenTelemetry where known, else random. Default: `false`.
    #[must_use]
    pub fn with_span_ids(mut self, span_ids: bool) -> Self {
        let names = self.names;
        self.span_ids = span_ids;
        self.reserve(span_ids, &[names.span_id, names.parent_span_id])
    }

    /// Adds `spans`, the names of all spans around the event from the outermost on, such as
    /// `request:query`. Default: `false`.
    #[must_use]
    pub fn with_span_path(mut self, span_path: bool) -> Self {
        let names = self.names;
        self.span_path = span_path;
        self.reserve(span_path, &[names.span_path])
    }

    fn reserve(mut self, reserve: bool, keys: &[&'static str]) -> Self {
        self.reserved.retain(|key| !keys.contains(key));
        if reserve {
            self.reserved.extend(keys);
        }
        self
    }

    /// Makes a trace id (32 hexadecimal digits, W3C Trace Context) for each root span for which
    /// neither a field nor OpenTelemetry nor a closure gives one. Default: `false`.
    #[must_use]
    pub fn make_trace_ids(mut self, make: bool) -> Self {
        self.make_trace_ids = make;
        self
    }

    /// Sends a record when a span closes: `message`, `latencyMs` since it was opened, `outcome`
    /// (`failure` if an event of level ERROR was logged in it or a field `error` recorded, else
    /// `success`; a field `outcome` of the span wins) and the fields of the span. Default:
    /// [`SpanRecords::None`].
    ///
    /// The record of a root span says `request completed`, by which Windrow knows that the trace is
    /// complete; that of another span says `span closed`.
    #[must_use]
    pub fn span_records(mut self, spans: SpanRecords) -> Self {
        self.span_records = spans;
        self
    }

    /// The message of the record of a closed root span. Default: `request completed`, which
    /// completes a trace in Windrow (`trace.complete`).
    #[must_use]
    pub fn completion_message(mut self, message: impl Into<String>) -> Self {
        self.completion_message = message.into();
        self
    }

    /// Sends only this share, 0 to 1, of the events of a target and of the modules below it, chosen
    /// at random. Warnings, errors and the records of closed spans are always sent. Events left out
    /// are counted in [`Stats::sampled_out`](crate::Stats::sampled_out). May be called several
    /// times; the longest target decides.
    ///
    /// ```
    /// # fn configure(layer: fluent_logger::FluentLayer) -> fluent_logger::FluentLayer {
    /// layer.sample("hyper", 0.01).sample("shop::cart", 0.1)
    /// # }
    /// ```
    #[must_use]
    pub fn sample(mut self, target: impl Into<String>, share: f64) -> Self {
        self.sampling.set(target.into(), share);
        self
    }

    /// Sends a line with the same target and message at most `max` times within `interval`. The
    /// rest is counted in [`Stats::suppressed`](crate::Stats::suppressed), and the first line after
    /// the interval says in `repeated` how many were left out. Default: no limit.
    ///
    /// Lines that belong to different traces and have the same text count as the same line.
    #[must_use]
    pub fn limit_repeats(mut self, max: u32, interval: Duration) -> Self {
        self.repeats = Some(RepeatLimit::new(max, interval));
        self
    }

    /// Takes trace id and span id from the `tracing-opentelemetry` layer of the same subscriber
    /// (feature `opentelemetry`). Add that layer before this one.
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn with_opentelemetry(mut self) -> Self {
        self.opentelemetry = Some(Arc::default());
        self
    }

    /// Looks for a trace id where the thread is when it logs, when neither a field nor a
    /// [span](Self::trace_id_from_span) has one. So the trace id of OpenTelemetry is found without
    /// this crate depending on a version of it, with `tracing-opentelemetry` and without:
    ///
    /// ```
    /// use opentelemetry::Context;
    /// use opentelemetry::trace::TraceContextExt as _;
    ///
    /// # fn configure(layer: fluent_logger::FluentLayer) -> fluent_logger::FluentLayer {
    /// layer.trace_id_from_context(|| {
    ///     let context = Context::current();
    ///     let span = context.span().span_context().clone();
    ///     span.is_valid().then(|| span.trace_id().to_string())
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn trace_id_from_context(
        mut self,
        finder: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.in_context = Some(Arc::new(finder));
        self
    }

    /// Looks for a trace id in what another layer has put into the extensions of the spans around
    /// an event, innermost first, when no field has one. The closure must not touch the extensions
    /// of other spans.
    ///
    /// ```
    /// struct MyTrace(String);
    ///
    /// # fn configure(layer: fluent_logger::FluentLayer) -> fluent_logger::FluentLayer {
    /// layer.trace_id_from_span(|extensions| Some(extensions.get::<MyTrace>()?.0.clone()))
    /// # }
    /// ```
    #[must_use]
    pub fn trace_id_from_span(
        mut self,
        finder: impl Fn(&Extensions<'_>) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.in_span = Some(Arc::new(finder));
        self
    }
}
