//! The acknowledgement. It is built from a journal receipt and from nothing else, so that an ack without durability
//! cannot be written.

use forward_protocol::ack::write_ack;
use forward_protocol::json::write_json_ack;

use windrow_journal::Receipt;

/// Acks ready to be sent, in the order of their messages.
#[derive(Debug)]
pub(super) struct Acks {
    bytes: Vec<u8>,
    count: u64,
}

impl Acks {
    /// The acks of the messages of one journal record; `chunks` are their ids exactly as they were sent. All of them go
    /// out in one write: Fluent Bit and Fluentd cannot read an ack that comes in two pieces.
    /// A client that writes JSON reads JSON.
    pub(super) fn new<'a>(receipt: Receipt, json: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Self {
        // Used up here: one record, one round of acks.
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
