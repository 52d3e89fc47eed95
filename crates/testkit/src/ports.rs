//! Free TCP ports on loopback that stay free while a process is restarted.
//!
//! Port 0 gives a port of the kernel's ephemeral range, which the next outgoing connection of any
//! process may take while the server that listened there is down. So ports for restarts come from
//! below that range.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

const FIRST_PORT: u16 = 15_000;
const PORT_COUNT: u16 = 17_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nothing listens now, and which this process gives out once only.
///
/// # Panics
/// When none of the range is free.
pub fn free() -> u16 {
    // Test programs that run side by side begin at different places.
    let offset = u16::try_from(std::process::id() % 331).unwrap_or_default() * 50;
    for _ in 0..PORT_COUNT {
        let port = FIRST_PORT + (offset + NEXT.fetch_add(1, Relaxed)) % PORT_COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!(
        "no free port between {FIRST_PORT} and {}",
        FIRST_PORT + PORT_COUNT
    );
}
