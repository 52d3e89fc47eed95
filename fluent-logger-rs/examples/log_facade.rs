//! Sends the records of the `log` facade.
//!
//! `cargo run -p fluent-logger-rs --features log --example log_facade -- 127.0.0.1:24224`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{FluentLog, Logger};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:24224".to_owned());
    let logger = Logger::builder().address(address).build()?;
    let _guard = logger.guard(Duration::from_secs(3));
    FluentLog::new(logger, "app")
        .max_level(log::LevelFilter::Debug)
        .init()?;
    log::info!(traceId = "4bf92f35", workers = 4; "ready");
    log::debug!("{} workers", 4);
    Ok(())
}
