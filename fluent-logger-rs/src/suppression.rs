//! Suppression of the logger's own log lines.
//!
//! Owns one flag per thread, set while the worker is polled. The `tracing` layer and the `log`
//! adapter skip what is logged meanwhile (by the worker, its TLS and its callbacks): a logger that
//! logged its own sending would never stop sending.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local! {
    static SUPPRESSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is polling the worker of a logger.
#[cfg_attr(
    not(any(feature = "log", feature = "tracing")),
    expect(dead_code, reason = "asked by the features")
)]
pub(crate) fn is_suppressed() -> bool {
    SUPPRESSED.get()
}

/// A future during whose polls logging is suppressed.
pub(crate) struct Suppressed(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Suppressed {
    pub(crate) fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

/// Restores the flag, also when the future panics.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        SUPPRESSED.set(self.0);
    }
}

impl Future for Suppressed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let _restore = Restore(SUPPRESSED.replace(true));
        self.0.as_mut().poll(context)
    }
}
