//! TLS with an own authority, a shared key, a user, and two servers.
//!
//! `cargo run -p fluent-logger-rs --features tls,gzip --example secure -- ca.pem one.example
//! two.example`

use std::error::Error;
use std::time::Duration;

use fluent_logger::{Balance, Logger, Mode};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let authority = arguments.next().ok_or("usage: secure CA-FILE HOST…")?;
    let mut builder = Logger::builder()
        .tls_ca_file(authority)
        .shared_key(std::env::var("FLUENT_SHARED_KEY").unwrap_or_default())
        .user("app", std::env::var("FLUENT_PASSWORD").unwrap_or_default())
        .balance(Balance::Failover)
        .mode(Mode::PackedGzip)
        .on_connection_error(|error| eprintln!("logging: {error}"));
    for host in arguments {
        builder = builder.address(format!("tls://{host}"));
    }
    let logger = builder.build()?;
    logger.log("app", &json!({ "log": "over TLS" }))?;
    println!(
        "{} events not delivered",
        logger.close(Duration::from_secs(5)).await.len()
    );
    Ok(())
}
