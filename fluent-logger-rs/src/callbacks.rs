//! Callbacks that the application registers.

use std::sync::Arc;

use crate::error::{ConnectionError, SpoolError};
use crate::event::Report;

type DeliveryCallback = Arc<dyn Fn(Report) + Send + Sync>;
type ErrorCallback = Arc<dyn Fn(&ConnectionError) + Send + Sync>;
type SpoolCallback = Arc<dyn Fn(&SpoolError) + Send + Sync>;

/// The registered callbacks.
#[derive(Clone, Default)]
pub(crate) struct Callbacks {
    pub(crate) delivery: Option<DeliveryCallback>,
    pub(crate) connection_error: Option<ErrorCallback>,
    pub(crate) spool_error: Option<SpoolCallback>,
}
