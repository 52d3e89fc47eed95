//! Demo of Windrow: applications as a user would have them, and their sidecars.
//!
//! Owns the HTTP server and client of the first scene, the three services with their sidecars, and
//! the showcase behind `windrow demo`. Uses no code of the server: Windrow is an address, and in
//! the showcase a program to start. The applications do not know Windrow unless they log to it
//! directly.

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
