//! Messages of real clients, hostile ones, and any fragmentation into reads.

use proptest::prelude::*;

mod nested;

use super::*;
use crate::entries::{Entry, Time, decompress};
use crate::msgpack::{Kind, write_bin, write_map_len, write_str};
use crate::vectors::{self, NANOS, RECORD, RECORD_MAP32, SECONDS, hex};

fn scan(bytes: &[u8]) -> Run {
    Framer::new(Limits::default()).scan(bytes)
}

/// The one message in `bytes`.
fn message(bytes: &[u8]) -> Message<'_> {
    let run = scan(bytes);
    assert_eq!(
        (run.end, run.frames.len(), run.violation),
        (bytes.len(), 1, None),
        "{bytes:02x?}"
    );
    let framed = run.frames[0].message(bytes).unwrap();
    let again: Vec<_> = messages(bytes, Limits::default()).collect();
    assert_eq!(
        again,
        [Ok(framed)],
        "reading it again from storage gives the same"
    );
    framed
}

/// The message as hex; `…` stands for the record `{"log":"hi"}` in an entry with the time 1.
fn from(text: &str) -> Vec<u8> {
    hex(&text.replace('…', "920181a36c6f67a26869"))
}

fn entries(message: &Message<'_>) -> Vec<(Time, Vec<u8>, Option<Vec<u8>>)> {
    let own = |entry: Entry<'_>| {
        (
            entry.time,
            entry.record.to_vec(),
            entry.metadata.map(<[u8]>::to_vec),
        )
    };
    match message.payload(100) {
        Payload::Entries(entries) => entries.map(|entry| own(entry.unwrap())).collect(),
        Payload::Compressed { compression, bytes } => {
            let plain = decompress(compression, bytes, 1 << 20).unwrap();
            assert_eq!(plain.damage, None);
            crate::entries::Entries::new(&plain.bytes, 100)
                .map(|entry| own(entry.unwrap()))
                .collect()
        }
        Payload::Opaque(_) => panic!("no log events"),
    }
}

#[test]
fn the_vectors_of_real_clients_are_read() {
    let nanos = Time::At(NANOS);
    let seconds = Time::At(SECONDS);
    type Case = (&'static str, Mode, Time, &'static [u8], Option<&'static [u8]>);
    let cases: [Case; 13] = [
        (vectors::MESSAGE_INT, Mode::Message, seconds, RECORD, None),
        (vectors::MESSAGE_FIXEXT8, Mode::Message, nanos, RECORD, None),
        (vectors::MESSAGE_EXT8, Mode::Message, nanos, RECORD, None),
        (vectors::GO_EMPTY_OPTIONS, Mode::Message, seconds, RECORD, None),
        (vectors::DOCKER_NIL_OPTIONS, Mode::Message, seconds, RECORD, None),
        (vectors::BIT_DEFAULT, Mode::Forward, nanos, RECORD, None),
        (vectors::BIT_SEND_OPTIONS, Mode::Forward, nanos, RECORD, None),
        (
            vectors::BIT_ACK,
            Mode::Forward,
            nanos,
            RECORD,
            Some(b"wjuG8UNGMPQTCSrJs/JvPA=="),
        ),
        (
            vectors::BIT_V1_ACK,
            Mode::Forward,
            nanos,
            RECORD,
            Some(b"MA/y7fgeYcS5gSPqPlJ9CA=="),
        ),
        (
            vectors::FLUENTD_PACKED,
            Mode::Packed,
            nanos,
            RECORD,
            Some(b"p88ngmxTQVC8/nh2wlKKeQ==\n"),
        ),
        (vectors::BIT_MAP32, Mode::Forward, nanos, RECORD_MAP32, None),
        (
            vectors::BIT_MAP32_ACK,
            Mode::Forward,
            nanos,
            RECORD_MAP32,
            Some(b"x/luxLeJFY1u14Q6/riPNQ=="),
        ),
        (vectors::BIT_INT_TIME, Mode::Forward, seconds, RECORD_MAP32, None),
    ];
    for (vector, mode, time, record, chunk) in cases {
        let bytes = hex(vector);
        let message = message(&bytes);
        assert_eq!((message.tag, message.mode), (&b"t.a"[..], mode), "{vector}");
        assert_eq!(entries(&message), [(time, record.to_vec(), None)], "{vector}");
        let mut raw = Vec::new();
        if let Some(chunk) = chunk {
            write_str(&mut raw, chunk);
        }
        assert_eq!(message.options.chunk, chunk.map(|_| &raw[..]), "{vector}");
        assert_eq!(scan(&bytes).frames[0].chunk(&bytes), message.options.chunk);
        assert_eq!(
            &message.bytes[message.body_offset..][..message.body.len()],
            message.body
        );
    }
}

#[test]
fn a_dynamic_tag_of_fluent_bit_brings_metadata_in_the_options() {
    let bytes = hex(vectors::BIT_DYNAMIC_TAG);
    let message = message(&bytes);
    assert_eq!(message.tag, b"dyn.x");
    assert_eq!(
        entries(&message),
        [(Time::At(NANOS), RECORD_MAP32.to_vec(), Some(hex("81a16ba176")))]
    );
}

#[cfg(feature = "gzip")]
#[test]
fn both_gzip_members_are_read() {
    let bytes = hex(vectors::GZIP_TWO_MEMBERS);
    let message = message(&bytes);
    assert_eq!(message.options.compressed, Compressed::Gzip);
    assert_eq!(message.options.size, Some(2));
    assert!(!message.compression_mismatch());
    assert_eq!(entries(&message).len(), 2);
}

#[test]
fn heartbeats_are_no_messages() {
    let run = scan(&[0xc0; 1000]);
    assert_eq!((run.end, run.frames.len(), run.violation), (1000, 1000, None));
    assert!(run.is_idle());
    assert_eq!(run.frames[0].outcome, Outcome::Heartbeat);
    assert_eq!(messages(&[0xc0, 0xc0], Limits::default()).count(), 0);

    let bytes = hex(vectors::LEGACY_HEARTBEAT);
    assert_eq!(entries(&message(&bytes)), []);
    assert!(scan(&bytes).is_idle());
    // Without entries but with an ack to give it is not idle.
    assert!(!scan(&from("93a0 90 81a56368756e6ba178")).is_idle());
}

#[test]
fn options_in_every_shape() {
    let chunk = |text: &str| message(&from(text)).options.chunk.map(<[u8]>::to_vec);
    // str8, bin, int, empty string: echoed with their type.
    assert_eq!(chunk("93a174 91… 81a56368756e6bd90178"), Some(hex("d90178")));
    assert_eq!(chunk("93a174 91… 81a56368756e6bc40178"), Some(hex("c40178")));
    assert_eq!(chunk("93a174 91… 81a56368756e6b07"), Some(hex("07")));
    assert_eq!(chunk("93a174 91… 81a56368756e6ba0"), Some(hex("a0")));
    // bin key; the first of two counts; keys that are no text are passed over.
    assert_eq!(chunk("93a174 91… 81c4056368756e6ba178"), Some(hex("a178")));
    assert_eq!(
        chunk("93a174 91… 82a56368756e6ba178a56368756e6ba179"),
        Some(hex("a178"))
    );
    assert_eq!(
        chunk("93a174 91… 8301c0 9101c0 a56368756e6ba178"),
        Some(hex("a178"))
    );
    // nil, containers, and a value that is not a map.
    assert_eq!(chunk("93a174 91… 81a56368756e6bc0"), None);
    assert_eq!(chunk("93a174 91… 81a56368756e6b9101"), None);
    assert!(message(&from("93a174 91… 07")).options.ignored);
    assert!(!message(&from("93a174 91… c0")).options.ignored);
    // More elements than any mode has.
    assert_eq!(chunk("95a174 91… 81a56368756e6ba178 c0 c0"), Some(hex("a178")));
    // `size` is whatever it is.
    assert_eq!(message(&from("93a174 91… 81a473697a65ff")).options.size, Some(-1));
    assert_eq!(
        message(&from("93a174 91… 81a473697a65cfffffffffffffffff"))
            .options
            .size,
        None
    );
    // Metadata counts in Message mode only.
    assert_eq!(
        message(&from("93a174 91… 81a86d65746164617461 81a16101"))
            .options
            .metadata,
        None
    );
}

#[test]
fn signals_that_are_no_logs_are_not_decoded() {
    for (code, signal) in [("01", Signal::Metrics), ("02", Signal::Traces)] {
        let bytes = from(&format!("93a174 c40381a161 81ad666c75656e745f7369676e616c{code}"));
        let message = message(&bytes);
        assert_eq!(message.options.signal, signal);
        assert!(matches!(message.payload(100), Payload::Opaque(b"\x81\xa1a")));
    }
    // fluentd_compat: a record that is an array.
    let bytes = from("93a174 91 92 d7006553f100075bcd15 9180 81ad666c75656e745f7369676e616c01");
    assert!(matches!(message(&bytes).payload(100), Payload::Opaque(_)));
}

#[test]
fn poison_is_named_and_keeps_its_chunk_id() {
    let cases = [
        ("93 07 91… 81a56368756e6ba178", Poison::TagType(Kind::Int)),
        ("93 9101 91… 81a56368756e6ba178", Poison::TagType(Kind::Array)),
        ("94 a174 80 80 81a56368756e6ba178", Poison::NoMode(Kind::Map)),
        (
            "93a174 91… 82a56368756e6ba178 ad666c75656e745f7369676e616c 63",
            Poison::Signal,
        ),
        (
            "93a174 91… 82a56368756e6ba178 ad666c75656e745f7369676e616c a178",
            Poison::Signal,
        ),
    ];
    for (text, poison) in cases {
        let bytes = from(text);
        let run = scan(&bytes);
        assert_eq!((run.end, run.violation), (bytes.len(), None), "{text}");
        assert_eq!(run.frames[0].outcome, Outcome::Poison(poison), "{text}");
        assert_eq!(run.frames[0].chunk(&bytes), Some(&b"\xa1x"[..]), "{text}");
        assert_eq!(run.frames[0].message(&bytes), None);
        let refused = messages(&bytes, Limits::default()).next().unwrap().unwrap_err();
        assert_eq!(
            (refused.reason, refused.chunk),
            (RejectReason::Poison(poison), Some(&b"\xa1x"[..]))
        );
        assert_eq!(refused.bytes, bytes);
    }
    let bytes = hex("92 a174 01");
    assert_eq!(scan(&bytes).frames[0].outcome, Outcome::Poison(Poison::NoRecord));

    let limits = Limits::default();
    for (len, outcome) in [
        (limits.tag, Outcome::Accepted),
        (
            limits.tag + 1,
            Outcome::Poison(Poison::TagTooLong {
                len: limits.tag + 1,
                limit: limits.tag,
            }),
        ),
    ] {
        let mut bytes = vec![0x92];
        write_bin(&mut bytes, &vec![0xff; len]);
        bytes.push(0x90);
        assert_eq!(scan(&bytes).frames[0].outcome, outcome);
    }
}

#[test]
fn violations_close_but_keep_what_came_before() {
    let good = hex(vectors::MESSAGE_INT);
    let n = good.len();
    let limits = Limits::default();
    let cases = [
        (vec![0xc1], Violation::Malformed { at: n }),
        (hex("92a174c1"), Violation::Malformed { at: n + 3 }),
        (hex("90"), Violation::TooShort { at: n, elements: 0 }),
        (hex("9101"), Violation::TooShort { at: n, elements: 1 }),
        (
            hex("92a174 dbffffffff"),
            Violation::TooLarge {
                at: n,
                needed: 3 + 5 + 0xffff_ffff,
                limit: limits.message,
            },
        ),
        (
            hex("92a174 ddffffffff"),
            Violation::TooLarge {
                at: n,
                needed: 3 + 5 + 0xffff_ffff,
                limit: limits.message,
            },
        ),
        (
            hex("ddffffffff"),
            Violation::TooLarge {
                at: n,
                needed: 5 + 0xffff_ffff,
                limit: limits.message,
            },
        ),
        (
            vec![0x92; 20_000],
            Violation::TooDeep {
                at: n + 10_001,
                limit: 10_000,
            },
        ),
        (vec![0x00; 20], Violation::TooManyStrays { count: 9 }),
    ];
    for (bad, violation) in cases {
        let run = scan(&[&good[..], &bad].concat());
        assert_eq!(run.frames[0].range, 0..n);
        assert_eq!(run.violation, Some(violation));
    }

    let mut chunk = hex("93a17490 81a56368756e6b");
    write_str(&mut chunk, &[b'x'; 1025]);
    assert_eq!(
        scan(&chunk).violation,
        Some(Violation::ChunkTooLong {
            at: 0,
            len: 1025,
            limit: 1024
        })
    );
    let mut options = hex("93a17490");
    write_map_len(&mut options, 65);
    options.extend([0x01; 130]);
    assert_eq!(
        scan(&options).violation,
        Some(Violation::TooManyOptions {
            at: 0,
            pairs: 65,
            limit: 64
        })
    );
}

#[test]
fn other_protocols_are_recognised_from_their_first_bytes() {
    assert_eq!(scan(b"GET / HTTP/1.1\r\n").violation, Some(Violation::Http));
    assert_eq!(scan(&[0x16, 0x03, 0x01, 0x02]).violation, Some(Violation::Tls));
    for proxy in [
        &b"PROXY TCP4 192.0.2.1 198.51.100.1 5 24224\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
    ] {
        assert_eq!(scan(proxy).violation, Some(Violation::ProxyProtocol));
        assert_eq!(scan(&proxy[..5]).violation, None, "not decided yet");
    }
    assert_eq!(
        scan(b"SSH-2.0-x\r\n").violation,
        Some(Violation::TooManyStrays { count: 9 })
    );
}

#[test]
fn the_message_limit_is_exact_and_the_tag_is_known_for_the_log() {
    let bytes = hex(vectors::FLUENTD_PACKED);
    let limits = |message| Limits {
        message,
        ..Limits::default()
    };
    assert_eq!(Framer::new(limits(bytes.len())).scan(&bytes).end, bytes.len());
    let mut framer = Framer::new(limits(bytes.len() - 1));
    let violation = Violation::TooLarge {
        at: 0,
        needed: bytes.len() as u64,
        limit: bytes.len() - 1,
    };
    assert_eq!(framer.scan(&bytes).violation, Some(violation));
    assert_eq!(framer.unfinished_tag(&bytes), Some(&b"t.a"[..]));
    // The limit does not apply to what was stored.
    assert!(messages(&bytes, limits(10)).next().unwrap().is_ok());
}

#[test]
fn deep_records_do_not_lose_the_framing() {
    let mut bytes = hex("93a17401 81a161");
    bytes.extend([0x91; 5000]);
    bytes.push(0xc0);
    let message = message(&bytes);
    let Payload::Entries(mut entries) = message.payload(100) else {
        panic!()
    };
    assert!(entries.next().unwrap().is_err());
    assert!(entries.next().is_none());
}

#[test]
fn how_many_bytes_are_missing_is_known_from_the_header() {
    let mut framer = Framer::new(Limits::default());
    let run = framer.scan(&hex("93a174 db00010000"));
    // The payload and at least one byte for the third element.
    assert_eq!((run.end, run.needed), (0, 65_536 + 1));
}

#[test]
fn damaged_storage_is_told_apart_from_poison() {
    let bytes = hex(vectors::MESSAGE_INT);
    let mut cut = messages(&bytes[..10], Limits::default());
    assert_eq!(cut.next().unwrap().unwrap_err().reason, RejectReason::Truncated);
    assert_eq!(cut.next(), None);
    let mut damaged = messages(&[0xc1], Limits::default());
    assert_eq!(
        damaged.next().unwrap().unwrap_err().reason,
        RejectReason::Damaged(Violation::Malformed { at: 0 })
    );
}

/// Reads `bytes` as a connection would that gets them in parts of these lengths.
fn in_parts(bytes: &[u8], parts: &[usize]) -> (Vec<Frame>, Option<Violation>) {
    let mut framer = Framer::new(Limits::default());
    let (mut frames, mut consumed, mut arrived) = (Vec::new(), 0, 0);
    let mut parts = parts.iter().copied().chain(std::iter::repeat(1));
    while arrived < bytes.len() {
        arrived = bytes.len().min(arrived + parts.next().unwrap().max(1));
        let run = framer.scan(&bytes[consumed..arrived]);
        frames.extend(run.frames.into_iter().map(|mut frame| {
            frame.range = frame.range.start + consumed..frame.range.end + consumed;
            frame
        }));
        consumed += run.end;
        if run.violation.is_some() {
            // Where it is counts from the buffer of that read; what it is must agree.
            return (frames, run.violation);
        }
    }
    (frames, None)
}

fn kind(violation: Option<Violation>) -> Option<std::mem::Discriminant<Violation>> {
    violation.as_ref().map(std::mem::discriminant)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        picks in prop::collection::vec(0..20usize, 1..12),
        parts in prop::collection::vec(1..60usize, 0..40),
    ) {
        let all = [
            vectors::MESSAGE_INT, vectors::MESSAGE_FIXEXT8, vectors::MESSAGE_EXT8, vectors::BIT_DEFAULT,
            vectors::BIT_SEND_OPTIONS, vectors::BIT_ACK, vectors::BIT_V1_ACK, vectors::GROUPED,
            vectors::FLUENTD_PACKED, vectors::LEGACY_HEARTBEAT, vectors::GO_EMPTY_OPTIONS,
            vectors::DOCKER_NIL_OPTIONS, vectors::GZIP_TWO_MEMBERS, vectors::BIT_MAP32, vectors::BIT_MAP32_ACK,
            vectors::BIT_DYNAMIC_TAG, vectors::BIT_INT_TIME, "c0", "a3616263", "940707c007",
        ];
        let bytes: Vec<u8> = picks.iter().flat_map(|pick| hex(all[*pick])).collect();
        let whole = scan(&bytes);
        prop_assert_eq!(in_parts(&bytes, &parts), (whole.frames, whole.violation));
    }

    #[test]
    fn random_bytes_never_panic_and_split_alike(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x90..0x95u8, 0xa0..0xa4u8, 0xc0..0xe0u8], 0..300),
        parts in prop::collection::vec(1..30usize, 0..30),
    ) {
        let whole = scan(&bytes);
        prop_assert_eq!(whole.end, whole.frames.last().map_or(0, |frame| frame.range.end));
        let (frames, violation) = in_parts(&bytes, &parts);
        prop_assert_eq!(&frames, &whole.frames);
        prop_assert_eq!(kind(violation), kind(whole.violation));
        // What was framed once is framed again.
        for item in messages(&bytes[..whole.end], Limits::default()) {
            match item {
                Ok(message) => if let Payload::Entries(entries) = message.payload(100) {
                    prop_assert!(entries.count() <= message.body.len());
                },
                Err(refused) => prop_assert!(matches!(refused.reason, RejectReason::Poison(_))),
            }
        }
    }
}
