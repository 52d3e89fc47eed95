//! What an output wants to stand before each document in a batch's text, so that it can send the text as it is.

/// See above. A newline follows each document then.
pub trait Framing: Send {
    /// Appends it, for the document of this id whose first event was then (Unix ns).
    fn write_prefix(&mut self, out: &mut Vec<u8>, id: &str, first_ns: i64);
}
