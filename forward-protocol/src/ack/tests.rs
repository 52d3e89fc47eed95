//! Acks against the bytes of real servers, whole and in parts.

use super::*;
use crate::frame::{Framer, Limits};
use crate::vectors::{self, hex};

#[test]
fn an_ack_echoes_the_chunk_id_with_its_type() {
    for (message, reply) in [
        (vectors::BIT_ACK, vectors::BIT_ACK_REPLY),
        (vectors::FLUENTD_PACKED, vectors::FLUENTD_ACK_REPLY),
    ] {
        let bytes = hex(message);
        let run = Framer::new(Limits::default()).scan(&bytes);
        let mut out = Vec::new();
        write_ack(&mut out, run.frames[0].chunk(&bytes).unwrap());
        assert_eq!(out, hex(reply));
    }
}
