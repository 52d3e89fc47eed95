//! Acknowledgements: built only from a journal receipt, so that no ack can be sent before its
//! record is durable.

use forward_protocol::ack::write_ack;
use forward_protocol::json::write_json_ack;

use windrow_journal::Receipt;

/// Encoded acks of one journal record, in the order of its messages.
#[derive(Debug)]
pub(super) struct Acks {
    bytes: Vec<u8>,
    count: u64,
}

impl Acks {
    /// Encodes an ack for each of `chunks`, the chunk ids exactly as received, in the format that
    /// the client writes.
    ///
    /// All acks go out in one write: Fluent Bit and Fluentd cannot read an ack that comes in two
    /// pieces.
    pub(super) fn new<'a>(receipt: Receipt, json: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Self {
        // Consumed: one receipt acknowledges one record.
        drop(receipt);
        let mut acks = Self {
            bytes: Vec::new(),
            count: 0,
        };
        for chunk in chunks {
            if json {
                write_json_ack(&mut acks.bytes, chunk);
            } else {
                write_ack(&mut acks.bytes, chunk);
            }
            acks.count += 1;
        }
        acks
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
