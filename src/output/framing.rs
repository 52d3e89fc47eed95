//! Framing of documents in a batch's text, so that an output can send the text without a copy.

use super::DestinationId;

/// Writes the frame before each document; a newline follows each document.
pub trait Framing: Send {
    /// Appends the frame of the document with this id and destination, whose first event was at
    /// `first_ns` (Unix ns).
    fn write_prefix(&mut self, out: &mut Vec<u8>, id: &str, first_ns: i64, destination: DestinationId);
}
