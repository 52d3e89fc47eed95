//! The `windrow` program: a table of contents. Everything else is in the library.

fn main() {}
