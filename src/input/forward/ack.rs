//! The acknowledgement. It is built from a journal receipt and from nothing else, so that an ack without durability
//! cannot be written.

use crate::journal::Receipt;
use forward_protocol::ack::write_ack;

/// Acks ready to be sent, in the order of their messages.
#[derive(Debug)]
pub(super) struct Acks {
    bytes: Vec<u8>,
    count: u64,
}

impl Acks {
    /// The acks of the messages of one journal record; `chunks` are their ids exactly as they were sent. All of them go
    /// out in one write: Fluent Bit and Fluentd cannot read an ack that comes in two pieces.
    pub(super) fn new<'a>(receipt: Receipt, chunks: impl Iterator<Item = &'a [u8]>) -> Self {
        // The receipt is used up: one record, one round of acks.
        let Receipt { .. } = receipt;
        let mut acks = Self {
            bytes: Vec::new(),
            count: 0,
        };
        for chunk in chunks {
            write_ack(&mut acks.bytes, chunk);
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
