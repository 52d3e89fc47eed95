//! Sends `tracing` events and closed spans; each root span is a trace.
//!
//! `cargo run -p fluent-logger-rs --features tracing --example tracing -- 127.0.0.1:24224`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{FluentLayer, Logger, SpanRecords};
use tracing::{Instrument as _, info, info_span, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:24224".to_owned());
    let logger = Logger::builder().address(address).build()?;
    let _guard = logger.guard(Duration::from_secs(3));
    // Without a filter the layer sends TRACE, too.
    let layer = FluentLayer::new(logger, "shop")
        .make_trace_ids(true)
        .span_records(SpanRecords::Root)
        .with_filter(LevelFilter::INFO);
    tracing_subscriber::registry()
        .with(layer)
        .with(tracing_subscriber::fmt::layer().with_filter(LevelFilter::INFO))
        .init();
    for number in 0..3 {
        let span = info_span!("request", number, path = "/cart");
        async {
            info!(items = number, "cart shown");
            warn!("the hat is sold out");
        }
        .instrument(span)
        .await;
    }
    Ok(())
}
