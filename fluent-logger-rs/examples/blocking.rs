//! Logging from a program without an async runtime: the logger runs on a thread of its own.
//!
//! `cargo run -p fluent-logger-rs --example blocking -- unix:///run/fluent.sock`

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use fluent_logger::{Logger, OnFull, Outcome};

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:24224".to_owned());
    let logger = Logger::builder()
        .address(address)
        .on_full(OnFull::DropOldest)
        .max_retry(5)
        .on_delivery(|report| match report.outcome {
            Outcome::Dropped => eprintln!("{} events of {} dropped", report.events, report.tag),
            Outcome::GaveUp { attempts, lost } => {
                eprintln!("{} events given up after {attempts} attempts", lost.len());
            }
            _ => {}
        })
        .build()?;
    for number in 0..10 {
        logger.log("app", &BTreeMap::from([("number", number)]))?;
    }
    println!("flushed: {:?}", logger.blocking_flush(Duration::from_secs(3)));
    for event in logger.blocking_close(Duration::from_secs(3))? {
        eprintln!("not delivered: {event:?}");
    }
    Ok(())
}
