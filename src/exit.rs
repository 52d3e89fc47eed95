//! Exit codes of the program. They are part of its interface: supervisors and scripts look at them.

/// Done, or stopped cleanly by a signal.
pub const OK: u8 = 0;
/// Something failed while running: a port in use, a data folder that cannot be used, a check that says no.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong (`EX_USAGE` of sysexits.h). Starting again will not help.
pub const USAGE: u8 = 64;
/// Ended at once by a second stop signal (128 + SIGINT, as shells count). Nothing acknowledged is lost; the next
/// start goes on from the journal.
pub const SECOND_SIGNAL: u8 = 130;
