//! axum service whose requests become documents: traces, events and completion records.
//!
//! `cargo run -p fluent-logger-rs --features spool,tower --example axum`, then `curl -i
//! localhost:3000/cart/7`. Reads `FLUENT_LOGGER_ADDRESS` and the like, `LISTEN` and `SPOOL`.

use std::env::var;
use std::error::Error;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing::get};
use fluent_logger::{Builder, FluentLayer, Logger, RequestLayer};
use tracing::{info, instrument};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let logger = Builder::from_env()
        .service_name("shop")
        .this_host()
        .spool(var("SPOOL").unwrap_or_else(|_| "/tmp/shop-spool".to_owned()))
        .build()?;
    let _guard = logger.guard(Duration::from_secs(5));
    let layer = FluentLayer::new(logger.clone(), "shop").with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(layer).init();
    let app = Router::new()
        .route("/cart/{id}", get(cart))
        .layer(RequestLayer::new(logger.clone(), "shop"))
        .route("/synced", get(synced))
        .with_state(logger);
    let listener =
        tokio::net::TcpListener::bind(var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

#[instrument]
async fn cart(Path(id): Path<u64>) -> String {
    info!(items = id % 5, "cart shown");
    format!("cart {id}\n")
}

/// Answers when everything logged so far is on the disk: it survives a kill from here on.
async fn synced(State(logger): State<Logger>) -> StatusCode {
    match logger.sync().await {
        Ok(()) => StatusCode::OK,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
