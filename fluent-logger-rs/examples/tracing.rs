//! Sends `tracing` events, with the trace id of the span around them.
//!
//! `cargo run -p fluent-logger-rs --features tracing --example tracing -- 127.0.0.1:24224`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{FluentLayer, Logger};
use tracing::{Instrument as _, info, info_span, warn};
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:24224".to_owned());
    let logger = Logger::builder().address(address).build()?;
    tracing_subscriber::registry()
        .with(FluentLayer::new(logger.clone(), "shop").with_location(true))
        .with(tracing_subscriber::fmt::layer())
        .init();
    for number in 0..3 {
        let span = info_span!("request", traceId = format!("trace-{number}"), path = "/cart");
        async {
            info!(items = number, "cart shown");
            warn!("the hat is sold out");
        }
        .instrument(span)
        .await;
    }
    let lost = logger.close(Duration::from_secs(3)).await;
    println!("{} events not delivered", lost.len());
    Ok(())
}
