//! Exit codes. Part of the program's interface: supervisors and scripts depend on them.

/// Done, or stopped cleanly by a signal.
pub const OK: u8 = 0;
/// A failure at run time: a port in use, an unusable data folder, a failed check.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is invalid (`EX_USAGE` of sysexits.h). A restart does not
/// help.
pub const USAGE: u8 = 64;
/// Ended at once by a second stop signal (128 + SIGINT, the convention of shells). Nothing
/// acknowledged is lost: the next start continues from the journal.
pub const SECOND_SIGNAL: u8 = 130;
