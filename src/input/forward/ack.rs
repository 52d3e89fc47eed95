//! Acknowledgements: built only from a proof that a run is durable, which takes receipts of the
//! journal or of the owners of its traces, so that no ack can be sent before.

use forward_protocol::ack::write_ack;
use forward_protocol::json::write_json_ack;

use crate::cluster::Durable;

/// Encoded acks of one run, in the order of its messages.
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
    pub(super) fn new<'a>(durable: Durable, json: bool, chunks: impl Iterator<Item = &'a [u8]>) -> Self {
        // Consumed: one proof acknowledges one run.
        drop(durable);
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
