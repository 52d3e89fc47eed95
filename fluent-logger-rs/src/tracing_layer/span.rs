//! State of an open span: its fields, its ids and whether it failed.

use std::time::Instant;

use super::fields::Fields;
use crate::trace_id;

/// Which spans write a record when they close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SpanRecords {
    /// None. The default.
    #[default]
    None,
    /// Spans without a parent: one record per request, which completes the trace.
    Root,
    /// Every span.
    All,
}

/// Kept in the extensions of the registry while the span is open.
pub(super) struct SpanState {
    pub(super) fields: Fields,
    pub(super) opened: Instant,
    /// An event of level ERROR was logged in it.
    pub(super) failed: bool,
    /// Made for a root span in which nobody gave a trace id.
    pub(super) made_trace_id: Option<String>,
    /// Ids of the span in OpenTelemetry, once known.
    pub(super) otel: Option<OtelIds>,
    pub(super) span_id: Option<String>,
}

/// Trace id and span id of OpenTelemetry.
#[derive(Clone)]
pub(super) struct OtelIds {
    pub(super) trace_id: String,
    pub(super) span_id: String,
}

impl SpanState {
    pub(super) fn new(fields: Fields) -> Self {
        Self {
            fields,
            opened: Instant::now(),
            failed: false,
            made_trace_id: None,
            otel: None,
            span_id: None,
        }
    }

    pub(super) fn make_trace_id(&mut self) {
        if !self.fields.has_trace_id() {
            self.made_trace_id = Some(trace_id::new_trace_id());
        }
    }

    pub(super) fn make_span_id(&mut self) {
        self.span_id = Some(trace_id::new_span_id());
    }

    /// The id of OpenTelemetry if there is one, else the layer's own.
    pub(super) fn id(&self) -> Option<&str> {
        match &self.otel {
            Some(ids) => Some(&ids.span_id),
            None => self.span_id.as_deref(),
        }
    }
}
