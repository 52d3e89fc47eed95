//! The demo application of Windrow: what a user's own programs would be.
//!
//! It owns the HTTP server and client of the first scene, the three services with their sidecars, and the
//! showcase behind `windrow demo`. It knows Windrow only as an address (and, in the showcase, as a program to
//! start): nothing of the server's code is used here, and the applications themselves know nothing of Windrow
//! unless they log to it directly.

pub mod app_log;
pub mod cli;
pub mod client;
pub mod error;
pub mod forward;
pub mod id;
pub mod server;
pub mod service;
pub mod showcase;
pub mod sidecar;
pub mod signal;
pub mod web;

pub use error::Error;
