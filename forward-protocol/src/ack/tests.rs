//! Acks of real servers, whole and fragmented.

use super::*;
use crate::encode::ChunkId;
use crate::frame::{Framer, Limits};
use crate::msgpack::{Kind, write_str};
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

fn replies(parts: &[&[u8]]) -> Vec<Result<Reply, BadReply>> {
    let mut reader = AckReader::new();
    let mut replies = Vec::new();
    for part in parts {
        reader.feed(part);
        loop {
            match reader.reply() {
                Ok(Some(reply)) => replies.push(Ok(reply)),
                Ok(None) => break,
                Err(bad) => {
                    replies.push(Err(bad));
                    return replies;
                }
            }
        }
    }
    replies
}

#[test]
fn every_form_of_answer_is_read() {
    for (text, reply) in [
        (
            vectors::BIT_ACK_REPLY,
            Reply::Ack(b"wjuG8UNGMPQTCSrJs/JvPA==".to_vec()),
        ),
        (
            vectors::FLUENTD_ACK_REPLY,
            Reply::Ack(b"p88ngmxTQVC8/nh2wlKKeQ==\n".to_vec()),
        ),
        // map32, bin key and value, extra keys of any type before and after.
        ("df00000001 c403 61636b c40178", Reply::Ack(b"x".to_vec())),
        ("83 a161 9101 a361636b a178 07 80", Reply::Ack(b"x".to_vec())),
        ("80", Reply::Nack),
        ("81a361636bc0", Reply::Nack),
        ("81a36e6f6ba178", Reply::Nack),
        ("92a448454c4f80", Reply::Helo),
        ("c0", Reply::Other(Kind::Nil)),
        ("90", Reply::Other(Kind::Array)),
    ] {
        let bytes = hex(text);
        assert_eq!(replies(&[&bytes]), [Ok(reply.clone())], "{text}");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(replies(&single), [Ok(reply)], "{text} byte by byte");
    }
    assert_eq!(replies(&[&[0xc1]]), [Err(BadReply::Malformed)]);
    assert!(matches!(
        replies(&[&hex("dbffffffff")])[..],
        [Err(BadReply::TooLong { .. })]
    ));
    assert!(matches!(replies(&[&[0x91; 100]])[..], [Err(BadReply::Malformed)]));
}

#[test]
fn acks_match_in_any_order_also_several_at_once() {
    let ids: Vec<ChunkId> = (0..3).map(|n| ChunkId::from_random([n; 16])).collect();
    let mut matcher = AckMatcher::new();
    for (n, id) in ids.iter().enumerate() {
        matcher.sent(*id, n);
    }
    let mut bytes = Vec::new();
    for n in [2, 0] {
        let mut chunk = Vec::new();
        write_str(&mut chunk, ids[n].as_bytes());
        write_ack(&mut bytes, &chunk);
    }
    let acked: Vec<_> = replies(&[&bytes])
        .into_iter()
        .map(|reply| match reply {
            Ok(Reply::Ack(id)) => matcher.acked(&id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(acked, [Some(2), Some(0)]);
    assert_eq!(matcher.acked(ids[2].as_bytes()), None, "an ack counts once");
    assert_eq!((matcher.len(), matcher.oldest()), (1, Some(&1)));
    assert_eq!(matcher.take_unacked().collect::<Vec<_>>(), [(ids[1], 1)]);
    assert!(matcher.is_empty());
}
