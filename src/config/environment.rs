//! Environment variables as the configuration reads them.
//!
//! The trait lets tests pass a map instead of the variables of the process.

use std::collections::HashMap;

/// Read access to environment variables.
pub trait Environment {
    /// The value of a variable, if it is set and is text.
    fn get(&self, name: &str) -> Option<String>;
    /// The names of all variables that are valid UTF-8.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .collect()
    }
}

impl<S: std::hash::BuildHasher> Environment for HashMap<String, String, S> {
    fn get(&self, name: &str) -> Option<String> {
        Self::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}
