//! Random trace ids and span ids in the form of W3C Trace Context.

use std::cell::RefCell;
use std::fmt::Write as _;

use crate::random::Random;

thread_local! {
    static RANDOM: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// 32 hexadecimal digits.
pub(crate) fn new_trace_id() -> String {
    hex(bytes::<16>())
}

/// 16 hexadecimal digits.
pub(crate) fn new_span_id() -> String {
    hex(bytes::<8>())
}

/// Between 0 and 1.
#[cfg(feature = "tracing")]
pub(crate) fn random_share() -> f64 {
    RANDOM.with_borrow_mut(|random| generator(random).map_or(0.0, Random::unit))
}

/// Random bytes, never all zero, which W3C forbids.
fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = RANDOM.with_borrow_mut(|random| generator(random).map_or([0; N], Random::bytes));
    if bytes == [0; N] {
        bytes = [1; N];
    }
    bytes
}

/// The generator of this thread. `None`: the operating system gave no random bytes.
fn generator(random: &mut Option<Random>) -> Option<&mut Random> {
    if random.is_none() {
        *random = Random::new().ok();
    }
    random.as_mut()
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    let mut text = String::with_capacity(2 * N);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
