//! The handshake against literal bytes, against itself, and against misbehaving peers.

use proptest::prelude::*;

use super::HexDigest;
use super::client::{AfterHelo, AfterPong, AwaitHelo, AwaitPong, Credentials, HandshakeError, hex_salt};
use super::server::{AfterPing, AwaitPing, Hello, Refusal, User};
use crate::msgpack::{write_bin, write_str};
use crate::vectors::hex;

// Shared key `secret`, user `alice` with `pass`, client `client.example`, server `server.example`,
// a salt of 16 raw bytes in a `str`. The digests were made with another implementation.
const HELO: &str = "92a448454c4f83a56e6f6e6365c410000102030405060708090a0b0c0d0e0fa461757468c410101112131415161718191a1b1c1d1e1fa96b656570616c697665c3";
const PING: &str = "96a450494e47ae636c69656e742e6578616d706c65b0202122232425262728292a2b2c2d2e2fd9803333653961646262336364326237383130653338326366383939333264393266343339646361653662623737656637376533303166656566653438633530646133393736623633336333663931343639323939623265386535646235363562363864626335653338393334373363316230653865383333323062643662386561a5616c696365d9803966343863353239333664613031323438653163336532666661623135386138613363633230316363313361656361386239643638396136656131336539386630643636316161363735653933343930383035623064383833346363636335646639303238633961336132373937653731303836656564623835303639323233";
const PONG: &str = "95a4504f4e47c3a0ae7365727665722e6578616d706c65d9806438343464633836306131313066356130333637663163613466376336646365613231616666393333623133636235666437336366653263643538633964316137356232346632636264666565646262616565643361323532346666323234336437366462633330373764386539656161323466663337323063353264336531";
/// A PING without a user, as Fluent Bit answers an auth salt: digest over the empty name and
/// password.
const NO_USER_DIGEST: &str = "743ea02a3e4ce5c64fe19855f611fdc5897737c0e6ff65226126edbd97fa0b9f67f4588b85662b8b3ec267eb787442fc04b49e0c7b1fcca0200ed774975472a0";

fn sixteen(from: u8) -> [u8; 16] {
    std::array::from_fn(|n| from + n as u8)
}

fn hello(auth: bool) -> Hello<'static> {
    Hello {
        hostname: "server.example",
        nonce: sixteen(0),
        auth: auth.then(|| sixteen(0x10)),
        keepalive: true,
    }
}

fn server(auth: bool) -> AwaitPing {
    AwaitPing::begin(&hello(auth), &mut Vec::new())
}

fn credentials() -> Credentials {
    Credentials {
        hostname: "client.example".into(),
        shared_key: b"secret".to_vec(),
        user: Some(("alice".into(), "pass".into())),
    }
}

const USERS: &[User<'static>] = &[
    User {
        name: b"bob",
        password: b"other",
    },
    User {
        name: b"alice",
        password: b"pass",
    },
];

fn refusal(step: AfterPing) -> Refusal {
    match step {
        AfterPing::Refused { reply, reason } => {
            let text = reason.to_string();
            let expected = [
                b"\x95\xa4PONG\xc2",
                &[0xa0 | text.len() as u8][..],
                text.as_bytes(),
                b"\xa0\xa0",
            ];
            assert_eq!(reply, expected.concat());
            reason
        }
        other => panic!("{other:?}"),
    }
}

fn ping_sent(helo: &[u8]) -> (Vec<u8>, usize, AwaitPong) {
    match AwaitHelo::new(credentials(), &sixteen(0x20)).receive(helo) {
        Ok(AfterHelo::Ping { send, consumed, next }) => (send, consumed, next),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_three_messages_are_those_of_the_vectors() {
    let mut helo = Vec::new();
    let waiting = AwaitPing::begin(&hello(true), &mut helo);
    assert_eq!(helo, hex(HELO));
    let (ping, consumed, client) = ping_sent(&helo);
    assert_eq!((ping.clone(), consumed), (hex(PING), helo.len()));
    // Events may follow the PING in the same segment.
    let segment = [&ping[..], &[0x93, 0xa1]].concat();
    let AfterPing::Established {
        reply,
        consumed,
        session,
    } = waiting.receive(&segment, b"secret", USERS)
    else {
        panic!()
    };
    assert_eq!((reply.clone(), consumed), (hex(PONG), ping.len()));
    assert_eq!(session.client_hostname, b"client.example");
    assert_eq!(session.username.as_deref(), Some(&b"alice"[..]));
    assert!(reply.len() < 512);
    let segment = [&reply[..], &[0x81]].concat();
    let Ok(AfterPong::Established { consumed, session }) = client.receive(&segment) else {
        panic!()
    };
    assert_eq!(consumed, reply.len());
    assert_eq!(
        (session.server_hostname, session.keepalive),
        (b"server.example".to_vec(), true)
    );
}

#[test]
fn wrong_keys_and_users_are_refused_with_one_text_for_both() {
    let ping = hex(PING);
    assert_eq!(
        refusal(server(true).receive(&ping, b"Secret", USERS)),
        Refusal::SharedKey
    );
    assert_eq!(
        refusal(server(true).receive(&ping, b"", USERS)),
        Refusal::SharedKey
    );
    assert_eq!(
        refusal(server(true).receive(&ping, b"secret", &[])),
        Refusal::User
    );
    assert_eq!(
        refusal(server(true).receive(&ping, b"secret", &USERS[..1])),
        Refusal::User
    );
    let wrong = [User {
        name: b"alice",
        password: b"Pass",
    }];
    assert_eq!(
        refusal(server(true).receive(&ping, b"secret", &wrong)),
        Refusal::User
    );
    assert_eq!(refusal(server(true).refuse(Refusal::Denied)), Refusal::Denied);
    // The digest in upper case is another one.
    let upper: Vec<u8> = ping.iter().map(u8::to_ascii_uppercase).collect();
    assert_eq!(
        refusal(server(true).receive(&upper, b"secret", USERS)),
        Refusal::SharedKey
    );
}

#[test]
fn without_users_any_user_is_ignored() {
    let mut helo = Vec::new();
    let waiting = AwaitPing::begin(&hello(false), &mut helo);
    assert!(helo.ends_with(&hex("a461757468a0a96b656570616c697665c3")));
    // Fluent Bit sends name and digest anyway.
    assert!(matches!(
        waiting.receive(&hex(PING), b"secret", &[]),
        AfterPing::Established { session, .. } if session.username.is_none()
    ));
    // We do not.
    let (ping, ..) = ping_sent(&helo);
    assert!(ping.ends_with(b"\xa0\xa0"));
    assert!(matches!(
        server(false).receive(&ping, b"secret", &[]),
        AfterPing::Established { .. }
    ));
    // A server with users refuses that, and a digest over nothing.
    assert_eq!(
        refusal(server(true).receive(&ping, b"secret", USERS)),
        Refusal::User
    );
    let without = &ping[..ping.len() - 2];
    let digest = [without, b"\xa0\xd9\x80", NO_USER_DIGEST.as_bytes()].concat();
    assert_eq!(
        refusal(server(true).receive(&digest, b"secret", USERS)),
        Refusal::User
    );
    let nobody = [User {
        name: b"",
        password: b"",
    }];
    assert!(matches!(
        server(true).receive(&digest, b"secret", &nobody),
        AfterPing::Established { .. }
    ));
}

#[test]
fn what_is_no_ping_is_refused() {
    let event = hex(crate::vectors::MESSAGE_INT);
    let ping = hex(PING);
    let five = [&[0x95], &ping[1..ping.len() - 130]].concat();
    let seven = [&[0x97], &ping[1..], &[0xc0]].concat();
    let nil_hostname = [&ping[..6], &[0xc0], &ping[21..]].concat();
    let too_long = [&ping[..6], &hex("db0000ffff")].concat();
    for bytes in [
        &event[..],
        &five,
        &seven,
        &nil_hostname,
        &too_long,
        b"\xc1",
        b"\xc0",
        b"\x80",
        b"GET / ",
    ] {
        assert_eq!(
            refusal(server(true).receive(bytes, b"secret", USERS)),
            Refusal::NoPing,
            "{bytes:02x?}"
        );
    }
}

#[test]
fn the_salt_may_be_bin_or_hex_and_the_key_empty() {
    for salt in [&sixteen(0x20)[..], &hex_salt(sixteen(0xf0)), b""] {
        let mut client = credentials();
        client.shared_key.clear();
        let mut helo = Vec::new();
        let waiting = AwaitPing::begin(&hello(true), &mut helo);
        let Ok(AfterHelo::Ping { send, next, .. }) = AwaitHelo::new(client, salt).receive(&helo) else {
            panic!()
        };
        let AfterPing::Established { reply, .. } = waiting.receive(&send, b"", USERS) else {
            panic!()
        };
        assert!(matches!(next.receive(&reply), Ok(AfterPong::Established { .. })));
    }
    let ping = hex(PING);
    let bin = [&ping[..21], &[0xc4, 16], &ping[22..]].concat();
    assert!(matches!(
        server(true).receive(&bin, b"secret", USERS),
        AfterPing::Established { .. }
    ));
    assert_eq!(&hex_salt(sixteen(0xf0)), b"f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
}

#[test]
fn helos_of_every_kind_are_answered() {
    for nonce in ["", "00ff02030405060708090a0b0c0d0e0f", "0001"] {
        for head in [0xa0, 0xc4] {
            let raw = hex(nonce);
            let mut helo = hex("92c40448454c4f82a56e6f6e6365");
            match head {
                0xa0 => write_str(&mut helo, &raw),
                _ => write_bin(&mut helo, &raw),
            }
            helo.extend(hex("a96b656570616c697665c2"));
            let (ping, _, client) = ping_sent(&helo);
            assert!(ping.ends_with(b"\xa0\xa0"), "auth is absent");
            let proof = HexDigest::of(&[&sixteen(0x20), b"s", &raw, b"secret"]);
            let pong = [b"\x95\xa4PONG\xc3\xc0\xa1s\xd9\x80", &proof.0[..]].concat();
            let Ok(AfterPong::Established { session, .. }) = client.receive(&pong) else {
                panic!()
            };
            assert!(!session.keepalive);
        }
    }
    let fail = |text: &str| {
        AwaitHelo::new(credentials(), b"")
            .receive(&hex(text))
            .unwrap_err()
    };
    assert_eq!(fail("92a448454c4f80"), HandshakeError::NoNonce);
    assert_eq!(fail("92a448454c41c0"), HandshakeError::NoHelo);
    assert_eq!(fail("81a361636ba178"), HandshakeError::NoHelo);
    assert!(matches!(fail("c1"), HandshakeError::BadBytes(_)));
    assert!(matches!(fail("dbffffffff"), HandshakeError::BadBytes(_)));
}

#[test]
fn a_false_pong_ends_the_handshake() {
    let fail = |pong: &[u8]| ping_sent(&hex(HELO)).2.receive(pong).unwrap_err();
    let pong = hex(PONG);
    let mut wrong = pong.clone();
    wrong[60] ^= 1;
    assert_eq!(fail(&wrong), HandshakeError::ServerDigest);
    assert_eq!(
        fail(&[&[0x94], &pong[1..pong.len() - 130]].concat()),
        HandshakeError::NoPong
    );
    assert_eq!(
        fail(&hex("95a4504f4e47c2a26e6fa0a0")),
        HandshakeError::Refused { reason: "no".into() }
    );
    assert_eq!(fail(&hex("81a361636ba178")), HandshakeError::NoPong);
    assert_eq!(fail(&hex("95a4504f4e47c0a0a0a0")), HandshakeError::NoPong);
    // Our own proof, sent back to us under our own name, proves nothing.
    let ping = hex(PING);
    let mirrored = [b"\x95\xa4PONG\xc3\xa0", &ping[6..21], &ping[38..168]].concat();
    assert_eq!(
        fail(&mirrored),
        HandshakeError::SameName {
            name: "client.example".into()
        }
    );
}

proptest! {
    #[test]
    fn any_split_gives_the_same_handshake(parts in prop::collection::vec(1..80usize, 0..20)) {
        let (ping, pong) = (hex(PING), hex(PONG));
        let mut ends = vec![];
        for part in parts {
            ends.push((ends.last().unwrap_or(&0) + part).min(ping.len()));
        }
        ends.push(ping.len());
        let mut waiting = server(true);
        for end in &ends {
            match waiting.receive(&ping[..*end], b"secret", USERS) {
                AfterPing::More(more) => {
                    prop_assert!(*end < ping.len());
                    waiting = more;
                }
                AfterPing::Established { reply, .. } => {
                    prop_assert_eq!(*end, ping.len());
                    prop_assert_eq!(reply, &pong[..]);
                    break;
                }
                refused => return Err(TestCaseError::fail(format!("{refused:?}"))),
            }
        }
        let mut client = ping_sent(&hex(HELO)).2;
        for end in 0..=pong.len() {
            match client.receive(&pong[..end]) {
                Ok(AfterPong::More(more)) => client = more,
                Ok(AfterPong::Established { consumed, .. }) => {
                    prop_assert_eq!((end, consumed), (pong.len(), pong.len()));
                    return Ok(());
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
        prop_assert!(false, "the PONG was never complete");
    }

    #[test]
    fn random_bytes_never_establish_anything(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let established = matches!(server(true).receive(&bytes, b"secret", USERS), AfterPing::Established { .. });
        prop_assert!(!established);
        let _ = AwaitHelo::new(credentials(), b"").receive(&bytes);
        let established =
            matches!(ping_sent(&hex(HELO)).2.receive(&bytes), Ok(AfterPong::Established { .. }));
        prop_assert!(!established);
    }
}
