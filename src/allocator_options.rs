//! Options of the allocator, which mimalloc reads from the environment before `main`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Freed memory goes back to the system after this time, in ms. mimalloc's default of a second
/// keeps as much as was in use at any time of it: at a memory limit of 64 MiB, 30 to 50 MiB.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10");

/// Runs this program again, in the same process, with the options in its environment. Returns if
/// they are there already, or if the system does not run it: then memory is given back later.
pub(crate) fn apply() {
    let (name, value) = PURGE_DELAY;
    if std::env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(own_name) = arguments.next() {
        command.arg0(own_name);
    }
    let _cannot_run = command.args(arguments).env(name, value).exec();
}
