//! Logger with a disk spool: the next start sends what was not acknowledged when the process ended.
//!
//! `cargo run -p fluent-logger-rs --features spool --example spool -- /tmp/spool [host:port]`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{Fsync, Logger};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: spool FOLDER [HOST:PORT]")?;
    let logger = Logger::builder()
        .address(arguments.next().unwrap_or_else(|| "127.0.0.1:24224".to_owned()))
        .spool(folder)
        .spool_fsync(Fsync::Always)
        .on_spool_error(|error| eprintln!("logging: {error}"))
        .build()?;
    println!("{} events left by an earlier run", logger.stats().recovered);
    for number in 0..10 {
        logger.log("app", &json!({ "log": "hello", "number": number }))?;
    }
    // From here on they survive a kill -9, server or not.
    logger.blocking_sync(Duration::from_secs(10))?;
    logger.blocking_close(Duration::from_secs(2))?;
    println!("{} chunks left for the next run", logger.stats().spooled_chunks);
    Ok(())
}
