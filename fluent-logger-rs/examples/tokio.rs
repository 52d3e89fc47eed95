//! Logging from an async application: queue events, await what matters, close at the end.
//!
//! `cargo run -p fluent-logger-rs --example tokio -- 127.0.0.1:24224`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{Logger, Rejected};
use serde::Serialize;

#[derive(Serialize)]
struct Sale<'a> {
    #[serde(rename = "traceId")]
    trace_id: &'a str,
    item: &'a str,
    cents: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:24224".to_owned());
    let logger = Logger::builder()
        .address(address)
        .tag_prefix("shop")
        .async_reconnect_interval(Duration::from_secs(60))
        .on_connection_error(|error| eprintln!("logging: {error}"))
        .build()?;
    for cents in 0..100 {
        match logger.log(
            "sale",
            &Sale {
                trace_id: "4bf92f35",
                item: "hat",
                cents,
            },
        ) {
            Ok(()) => {}
            Err(Rejected::Full { events, .. }) => {
                eprintln!("{events} events wait already, this one is not taken");
            }
            Err(refused) => return Err(refused.into()),
        }
    }
    let paid = logger.send(
        "paid",
        &Sale {
            trace_id: "4bf92f35",
            item: "hat",
            cents: 1999,
        },
    );
    match tokio::time::timeout(Duration::from_secs(3), paid).await {
        Ok(result) => println!("acknowledged: {result:?}"),
        Err(_) => println!("not acknowledged in 3 s, still queued"),
    }
    let lost = logger.close(Duration::from_secs(3)).await;
    println!("{} events not delivered; {:?}", lost.len(), logger.stats());
    Ok(())
}
