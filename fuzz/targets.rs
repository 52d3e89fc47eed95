//! The fuzz targets: properties that must hold for any bytes.
//!
//! Each function panics when a property fails. Shared by the libFuzzer binaries and by the corpus
//! test of forward-protocol.

use std::ops::ControlFlow;

use forward_protocol::ack::{AckMatcher, AckReader, Reply, write_ack};
use forward_protocol::encode::{
    ChunkId, EntryStream, compress, write_compressed, write_entry, write_forward, write_message, write_packed,
};
use forward_protocol::entries::{
    Compression, Decompressed, Decompressor, Entries, MapPairs, Piece, decompress,
};
use forward_protocol::frame::{Frame, Framer, Limits, Payload, RejectReason, Violation, messages};
use forward_protocol::handshake::client::{AfterHelo, AfterPong, AwaitHelo, Credentials};
use forward_protocol::handshake::server::{AfterPing, AwaitPing, Hello, User};
use forward_protocol::json::JsonCarrier;
use forward_protocol::msgpack::skip;

/// The fuzzer's bytes as a source of values; zeros at the end.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let n = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first byte seeds the fragmentation of the rest into reads. Any fragmentation gives the same
/// messages as one read, framed messages can be read back from storage, and every entry lies within
/// its message.
pub(crate) fn decoder(data: &[u8]) {
    let Some((&seed, bytes)) = data.split_first() else {
        return;
    };
    let limits = Limits::default();
    let whole = Framer::new(limits).scan(bytes);
    let (frames, violation) = in_reads(bytes, seed, limits);
    assert_eq!(frames, whole.frames);
    assert_eq!(kind(violation), kind(whole.violation));

    let mut end = 0;
    for frame in &whole.frames {
        assert_eq!(frame.range.start, end, "messages follow each other without gaps");
        end = frame.range.end;
        if let Some(chunk) = frame.chunk(bytes) {
            assert_eq!(skip(chunk, 0, 1), Ok(chunk.len()), "a chunk id is one scalar");
        }
    }
    assert_eq!(end, whole.end);
    let (run, _) = bytes.split_at(end);
    let accepted = whole.frames.iter().filter_map(|frame| frame.message(bytes));
    let mut stored = messages(run, limits).filter(|item| match item {
        Ok(_) => true,
        Err(refused) => {
            assert!(matches!(refused.reason, RejectReason::Poison(_)), "{refused:?}");
            false
        }
    });
    for message in accepted {
        assert_eq!(stored.next(), Some(Ok(message)));
        match message.payload(limits.depth) {
            Payload::Entries(entries) => walk(entries, message.body),
            Payload::Compressed { compression, bytes } => {
                if let Ok(plain) = decompress(compression, bytes, 1 << 20) {
                    walk(Entries::new(&plain.bytes, limits.depth), &plain.bytes);
                }
            }
            Payload::Opaque(_) => {}
        }
    }
    assert_eq!(stored.next(), None);
}

fn walk(entries: Entries<'_>, bytes: &[u8]) {
    let mut covered = 0;
    for item in entries {
        let (start, len) = match item {
            Ok(entry) => {
                assert_eq!(skip(entry.record, 0, 100), Ok(entry.record.len()));
                let mut pairs = MapPairs::new(entry.record);
                let declared = pairs.remaining() as usize;
                assert_eq!(pairs.by_ref().count(), declared);
                (entry.offset, entry.record.len())
            }
            Err(bad) => (bad.offset, bad.bytes.len()),
        };
        assert!(start >= covered);
        covered = start + len;
    }
    assert!(covered <= bytes.len());
}

fn in_reads(bytes: &[u8], seed: u8, limits: Limits) -> (Vec<Frame>, Option<Violation>) {
    let mut framer = Framer::new(limits);
    let (mut frames, mut from, mut arrived, mut step) = (Vec::new(), 0, 0, usize::from(seed));
    while arrived < bytes.len() {
        // A pseudo-random sequence of lengths between 1 and 64.
        step = (step * 31 + 7) % 64;
        arrived = bytes.len().min(arrived + step + 1);
        let run = framer.scan(&bytes[from..arrived]);
        for mut frame in run.frames {
            frame.range = frame.range.start + from..frame.range.end + from;
            frames.push(frame);
        }
        from += run.end;
        if run.violation.is_some() {
            return (frames, run.violation);
        }
    }
    (frames, None)
}

fn kind(violation: Option<Violation>) -> Option<std::mem::Discriminant<Violation>> {
    violation.as_ref().map(std::mem::discriminant)
}

/// The first byte chooses the format. Decompression respects its limit, checking the size agrees
/// with it, and compressed data round-trips.
pub(crate) fn decompression(data: &[u8]) {
    const LIMIT: usize = 1 << 16;
    let Some((&seed, bytes)) = data.split_first() else {
        return;
    };
    let compression = if seed & 1 == 0 {
        Compression::Gzip
    } else {
        Compression::Zstd
    };
    let mut decompressor = Decompressor::new();
    let first = decompressor.decompress(compression, bytes, LIMIT);
    if let Ok(plain) = &first {
        assert!(plain.bytes.len() <= LIMIT);
        // The output before a defect depends on the buffer, so only undamaged payloads have an
        // exact size.
        if plain.damage.is_none() {
            assert_eq!(
                decompressor.check_size(compression, bytes, plain.bytes.len()),
                Ok(())
            );
        }
    }
    assert_eq!(
        decompressor.decompress(compression, bytes, LIMIT),
        first,
        "no state is carried over between payloads"
    );
    if let Ok(plain) = &first {
        in_pieces(&mut decompressor, compression, bytes, plain);
    }

    let packed = compress(compression, bytes, u32::from(seed >> 1)).expect("both formats are built in");
    assert_eq!(Compression::sniff(&packed), Some(compression));
    let plain = decompressor
        .decompress(compression, &packed, bytes.len())
        .expect("exactly the limit");
    assert_eq!((plain.bytes.as_slice(), plain.damage), (bytes, None));
}

/// The streaming walk gives the same entries and the same damage.
fn in_pieces(decompressor: &mut Decompressor, compression: Compression, bytes: &[u8], plain: &Decompressed) {
    let (mut good, mut bad) = (0, 0);
    let damage = decompressor.walk(compression, bytes, 100, 1 << 20, |piece| {
        match piece {
            Piece::Entries(entries) => {
                for entry in entries {
                    *(if entry.is_ok() { &mut good } else { &mut bad }) += 1;
                }
            }
            Piece::TooLong => bad += 1,
        }
        ControlFlow::Continue(())
    });
    assert_eq!(damage.is_some(), plain.damage.is_some());
    // The output before a defect, and where it is detected, depends on the buffer.
    if damage.is_none() {
        let all: Vec<_> = Entries::new(&plain.bytes, 100).collect();
        assert_eq!(good, all.iter().filter(|item| item.is_ok()).count());
        assert_eq!(good + bad, all.len());
    }
}

/// Arbitrary bytes never establish a session; honest peers always do, in any fragmentation.
pub(crate) fn handshake(data: &[u8]) {
    let mut source = Source(data);
    let step = usize::from(source.byte()) + 1;
    let (hostname, key) = (source.bytes(64), source.bytes(64));
    let (name, password, salt) = (source.bytes(32), source.bytes(32), source.bytes(64));
    let with_user = source.byte() & 1 == 1;
    let hello = Hello {
        hostname: "server.example",
        nonce: [source.byte(); 16],
        auth: with_user.then_some([source.byte(); 16]),
        keepalive: true,
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (hostname, name, password) = (text(hostname), text(name), text(password));
    let credentials = Credentials {
        hostname: hostname.clone(),
        shared_key: key.to_vec(),
        user: Some((name.clone(), password.clone())),
    };
    let users = [User {
        name: name.as_bytes(),
        password: password.as_bytes(),
    }];

    let rest = source.0;
    let mut helo = Vec::new();
    let forged = AwaitPing::begin(&hello, &mut Vec::new()).receive(rest, b"a key that nobody knows", &users);
    assert!(!matches!(forged, AfterPing::Established { .. }));
    let waiting = AwaitPing::begin(&hello, &mut helo);
    if let Ok(AfterHelo::Ping { next, .. }) = AwaitHelo::new(credentials.clone(), salt).receive(&helo) {
        assert!(!matches!(next.receive(rest), Ok(AfterPong::Established { .. })));
    }
    let _ = AwaitHelo::new(credentials.clone(), salt).receive(rest);

    if hostname == "server.example" {
        return;
    }
    let mut client = AwaitHelo::new(credentials, salt);
    let mut end = 0;
    let (ping, pong_waiting) = loop {
        end = helo.len().min(end + step);
        match client.receive(&helo[..end]).expect("an honest server") {
            AfterHelo::More(more) => client = more,
            AfterHelo::Ping { send, next, .. } => break (send, next),
        }
    };
    let mut server = waiting;
    end = 0;
    let pong = loop {
        end = ping.len().min(end + step);
        match server.receive(&ping[..end], key, &users) {
            AfterPing::More(more) => server = more,
            AfterPing::Established {
                reply,
                consumed,
                session,
            } => {
                assert_eq!(consumed, ping.len());
                assert_eq!(session.username.is_some(), with_user);
                break reply;
            }
            AfterPing::Refused { reason, .. } => panic!("an honest client was refused: {reason}"),
        }
    };
    match pong_waiting.receive(&pong) {
        Ok(AfterPong::Established { consumed, .. }) => assert_eq!(consumed, pong.len()),
        other => panic!("an honest server was rejected: {other:?}"),
    }
}

/// The first byte gives the fragment length. Any fragmentation gives the same messages, and these
/// are well-formed.
pub(crate) fn json(data: &[u8]) {
    let Some((&seed, text)) = data.split_first() else {
        return;
    };
    let mut whole = Vec::new();
    let expected = JsonCarrier::new(1 << 20).convert(text, &mut whole);
    let mut at = 0;
    while at < whole.len() {
        at = skip(&whole, at, 200).expect("a whole value");
    }
    let (mut carrier, mut out, mut from, mut arrived) = (JsonCarrier::new(1 << 20), Vec::new(), 0, 0);
    while arrived < text.len() {
        arrived = text.len().min(arrived + usize::from(seed % 16) + 1);
        let converted = carrier.convert(&text[from..arrived], &mut out);
        from += converted.consumed;
        if converted.violation.is_some() {
            break;
        }
    }
    assert_eq!((out, from), (whole, expected.consumed));
}

/// A client and a server with two pipes between them. The bytes are a list of steps: log an event,
/// send the batch in some mode, deliver some bytes to either end. At the end every event arrived
/// once and in order, and every chunk was acknowledged.
pub(crate) fn session(data: &[u8]) {
    let mut source = Source(data);
    let limits = Limits::default();
    let (mut to_server, mut to_client): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut logged, mut seen, mut chunks) = (0u8, Vec::new(), 0u8);
    let mut batch: Vec<u8> = Vec::new();
    let (mut framer, mut received) = (Framer::new(limits), Vec::new());
    let (mut reader, mut waiting) = (AckReader::new(), AckMatcher::new());
    for _ in 0..200 {
        if source.is_empty() {
            break;
        }
        match source.byte() % 8 {
            0..=2 => {
                write_entry(
                    &mut batch,
                    i64::from(logged) + 1_000_000_000,
                    None,
                    &record(logged),
                );
                logged = (logged + 1) % 128;
            }
            3 => {
                let count = count(&batch);
                let entries = EntryStream { bytes: &batch, count };
                let id = (source.byte() & 1 == 1).then(|| {
                    chunks = chunks.wrapping_add(1);
                    ChunkId::from_random([chunks; 16])
                });
                let id = id.as_ref();
                match source.byte() % 5 {
                    0 => write_forward(&mut to_server, b"t", entries, id),
                    1 => write_packed(&mut to_server, b"t", entries, id),
                    2 | 3 => {
                        let compression =
                            [Compression::Gzip, Compression::Zstd][usize::from(source.byte() & 1)];
                        let packed = compress(compression, &batch, 1).expect("both formats are built in");
                        write_compressed(&mut to_server, b"t", compression, &packed, count, id);
                    }
                    _ => {
                        to_server.extend([0xc0, 0xc0]);
                        write_packed(&mut to_server, b"t", entries, id);
                    }
                }
                if let Some(id) = id {
                    waiting.sent(*id, ());
                }
                batch.clear();
            }
            4 if batch.is_empty() => {
                write_message(&mut to_server, b"t", 1_000_000_000, &record(logged), None, None);
                logged = (logged + 1) % 128;
            }
            5 | 6 => {
                let n = usize::from(source.byte()).min(to_server.len());
                received.extend(to_server.drain(..n));
                serve(&mut framer, &mut received, limits, &mut seen, &mut to_client);
            }
            _ => {
                let n = usize::from(source.byte()).min(to_client.len());
                let part: Vec<u8> = to_client.drain(..n).collect();
                take_acks(&mut reader, &part, &mut waiting);
            }
        }
    }
    received.append(&mut to_server);
    serve(&mut framer, &mut received, limits, &mut seen, &mut to_client);
    take_acks(&mut reader, &to_client, &mut waiting);
    assert!(received.is_empty() && waiting.is_empty());
    // Numbers wrap at 128; events that were logged but not sent are not expected.
    let sent = 128 + usize::from(logged) - count(&batch) as usize % 128;
    assert_eq!(seen.len() % 128, sent % 128);
    for (n, record_seen) in seen.iter().enumerate() {
        assert_eq!(record_seen, &record((n % 128) as u8));
    }
}

/// `{"n": n}`.
fn record(n: u8) -> Vec<u8> {
    vec![0x81, 0xa1, b'n', n % 128]
}

fn count(batch: &[u8]) -> u32 {
    Entries::new(batch, 9).count() as u32
}

fn serve(
    framer: &mut Framer,
    received: &mut Vec<u8>,
    limits: Limits,
    seen: &mut Vec<Vec<u8>>,
    to_client: &mut Vec<u8>,
) {
    let run = framer.scan(received);
    assert_eq!(run.violation, None);
    for frame in &run.frames {
        let Some(message) = frame.message(received) else {
            continue;
        };
        let plain;
        let entries = match message.payload(limits.depth) {
            Payload::Entries(entries) => entries,
            Payload::Compressed { compression, bytes } => {
                plain = decompress(compression, bytes, 1 << 20).expect("small");
                assert_eq!(plain.damage, None);
                Entries::new(&plain.bytes, limits.depth)
            }
            Payload::Opaque(_) => panic!("only logs were sent"),
        };
        seen.extend(entries.map(|entry| entry.expect("a good entry").record.to_vec()));
        if let Some(chunk) = frame.chunk(received) {
            write_ack(to_client, chunk);
        }
    }
    received.drain(..run.end);
}

fn take_acks(reader: &mut AckReader, part: &[u8], waiting: &mut AckMatcher<()>) {
    reader.feed(part);
    while let Some(reply) = reader.reply().expect("an honest server") {
        let Reply::Ack(id) = reply else {
            panic!("{reply:?} is not an ack")
        };
        assert!(waiting.acked(&id).is_some(), "an ack for an unknown chunk");
    }
}
