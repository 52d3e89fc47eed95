//! The client cases.
