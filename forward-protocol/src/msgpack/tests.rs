//! Every form of MessagePack against literal bytes, and random bytes against the scanners.

use proptest::prelude::*;

use super::*;

/// One example of every form of first byte, with its value.
fn forms() -> Vec<(Vec<u8>, Value<'static>)> {
    static LONG: [u8; 70_000] = [b'x'; 70_000];
    let with = |head: &[u8], body: &[u8]| [head, body].concat();
    vec![
        (vec![0x00], Value::U64(0)),
        (vec![0x7f], Value::U64(127)),
        (vec![0xe0], Value::I64(-32)),
        (vec![0xff], Value::I64(-1)),
        (vec![0xc0], Value::Nil),
        (vec![0xc2], Value::Bool(false)),
        (vec![0xc3], Value::Bool(true)),
        (vec![0xa0], Value::Str(b"")),
        (with(&[0xbf], &LONG[..31]), Value::Str(&LONG[..31])),
        (with(&[0xd9, 0x20], &LONG[..32]), Value::Str(&LONG[..32])),
        (with(&[0xda, 0x01, 0x00], &LONG[..256]), Value::Str(&LONG[..256])),
        (with(&[0xdb, 0x00, 0x01, 0x11, 0x70], &LONG), Value::Str(&LONG)),
        (vec![0xc4, 0x00], Value::Bin(b"")),
        (with(&[0xc5, 0x01, 0x00], &LONG[..256]), Value::Bin(&LONG[..256])),
        (with(&[0xc6, 0x00, 0x01, 0x11, 0x70], &LONG), Value::Bin(&LONG)),
        (vec![0xca, 0x3f, 0xc0, 0, 0], Value::F32(1.5)),
        (vec![0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], Value::F64(1.5)),
        (vec![0xcc, 0x80], Value::U64(128)),
        (vec![0xcd, 0x01, 0x00], Value::U64(256)),
        (vec![0xce, 0x00, 0x01, 0x00, 0x00], Value::U64(65_536)),
        (
            vec![0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            Value::U64(u64::MAX),
        ),
        (vec![0xd0, 0xdf], Value::I64(-33)),
        (vec![0xd0, 0x05], Value::U64(5)),
        (vec![0xd1, 0xff, 0x00], Value::I64(-256)),
        (vec![0xd2, 0xff, 0xff, 0x00, 0x00], Value::I64(-65_536)),
        (vec![0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Value::I64(i64::MIN)),
        (vec![0xd4, 0x05, 0x01], Value::Ext(5, &LONG[..0])),
        (vec![0xd5, 0xff, 0x01, 0x02], Value::Ext(-1, &LONG[..0])),
        (vec![0xd6, 0x05, 1, 2, 3, 4], Value::Ext(5, &LONG[..0])),
        (
            vec![0xd7, 0x00, 1, 2, 3, 4, 5, 6, 7, 8],
            Value::Ext(0, &LONG[..0]),
        ),
        (with(&[0xd8, 0x05], &LONG[..16]), Value::Ext(5, &LONG[..16])),
        (with(&[0xc7, 0x03, 0x05], &LONG[..3]), Value::Ext(5, &LONG[..3])),
        (
            with(&[0xc8, 0x01, 0x00, 0x05], &LONG[..256]),
            Value::Ext(5, &LONG[..256]),
        ),
        (
            with(&[0xc9, 0x00, 0x01, 0x11, 0x70, 0x05], &LONG),
            Value::Ext(5, &LONG),
        ),
    ]
}

#[test]
fn every_scalar_form_is_read_and_skipped() {
    for (bytes, expected) in forms() {
        let (value, next) = Value::read(&bytes, 0).unwrap();
        match (value, expected) {
            // The short extension examples above only name the type.
            (Value::Ext(kind, data), Value::Ext(wanted, [])) => {
                assert_eq!(kind, wanted);
                assert_eq!(data, &bytes[2..]);
            }
            (value, expected) => assert_eq!(value, expected),
        }
        assert_eq!(next, bytes.len());
        assert_eq!(skip(&bytes, 0, 0), Ok(bytes.len()));
        for cut in (0..bytes.len()).take(300) {
            assert!(
                matches!(skip(&bytes[..cut], 0, 0), Err(Error::Incomplete { .. })),
                "{cut} of {bytes:02x?}"
            );
            assert!(matches!(
                Value::read(&bytes[..cut], 0),
                Err(Error::Incomplete { .. })
            ));
        }
    }
}

#[test]
fn containers_of_every_width_are_skipped() {
    for head in [
        &[0x92][..],
        &[0xdc, 0, 2],
        &[0xdd, 0, 0, 0, 2],
        &[0x81],
        &[0xde, 0, 1],
        &[0xdf, 0, 0, 0, 1],
    ] {
        let bytes = [head, &[0xa1, b'k', 0xc0]].concat();
        assert_eq!(skip(&bytes, 0, 1), Ok(bytes.len()));
        assert_eq!(skip(&bytes, 0, 0), Err(Error::TooDeep { at: 0, limit: 0 }));
        let (value, next) = Value::read(&bytes, 0).unwrap();
        assert!(matches!(value, Value::Array(2) | Value::Map(1)));
        assert_eq!(next, head.len());
    }
}

#[test]
fn the_written_form_is_the_shortest() {
    let integers: [(i64, &[u8]); 12] = [
        (0, &[0]),
        (127, &[0x7f]),
        (128, &[0xcc, 0x80]),
        (255, &[0xcc, 0xff]),
        (256, &[0xcd, 1, 0]),
        (65_536, &[0xce, 0, 1, 0, 0]),
        (1 << 32, &[0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        (-32, &[0xe0]),
        (-33, &[0xd0, 0xdf]),
        (-129, &[0xd1, 0xff, 0x7f]),
        (-32_769, &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
        (
            -2_147_483_649,
            &[0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        ),
    ];
    for (value, expected) in integers {
        let mut out = Vec::new();
        write_i64(&mut out, value);
        assert_eq!(out, expected);
    }
    let mut out = Vec::new();
    write_event_time(&mut out, 1_700_000_000, 123_456_789);
    assert_eq!(out, [0xd7, 0, 0x65, 0x53, 0xf1, 0x00, 0x07, 0x5b, 0xcd, 0x15]);
}

#[test]
fn nesting_beyond_the_limit_is_refused_without_recursion() {
    let mut deep = vec![0x91; 100_000];
    deep.push(0xc0);
    assert_eq!(skip(&deep, 0, 100), Err(Error::TooDeep { at: 100, limit: 100 }));
    assert_eq!(skip(&deep, 0, 100_000), Ok(deep.len()));
    let exact = [&[0x91; 100][..], &[0xc0]].concat();
    assert_eq!(skip(&exact, 0, 100), Ok(101));
    // Many containers beside each other are not deep.
    let flat = [&[0xdc, 0x03, 0xe8][..], &[0x91, 0xc0].repeat(1000)].concat();
    assert_eq!(skip(&flat, 0, 2), Ok(flat.len()));
    let mut scanner = Scanner::new(0, usize::MAX, 1000);
    assert_eq!(
        scanner.scan(&deep),
        Err(Error::TooDeep {
            at: 1000,
            limit: 1000
        })
    );
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused_from_the_header() {
    for header in [
        [0xdb, 0xff, 0xff, 0xff, 0xff],
        [0xc6, 0xff, 0xff, 0xff, 0xff],
        [0xdd, 0xff, 0xff, 0xff, 0xff],
        [0xdf, 0xff, 0xff, 0xff, 0xff],
    ] {
        let mut scanner = Scanner::new(0, 1 << 20, 100);
        assert_eq!(scanner.scan(&header[..4]), Ok(None));
        assert!(
            matches!(scanner.scan(&header), Err(Error::TooLong { needed, limit: 0x10_0000 }) if needed > 0xffff_ffff)
        );
        assert!(matches!(skip(&header, 0, 100), Err(Error::Incomplete { .. })));
    }
}

#[test]
fn the_illegal_byte_is_found_where_it_stands() {
    assert_eq!(skip(&[0x92, 0xc0, 0xc1], 0, 9), Err(Error::Malformed { at: 2 }));
    assert_eq!(
        Scanner::new(0, 99, 9).scan(&[0x92, 0xc0, 0xc1]),
        Err(Error::Malformed { at: 2 })
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_both_scanners_agree(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let whole = skip(&bytes, 0, u32::MAX);
        let mut scanner = Scanner::new(0, usize::MAX, u32::MAX);
        let mut stepped = Ok(None);
        for end in 0..=bytes.len() {
            stepped = scanner.scan(&bytes[..end]);
            if stepped != Ok(None) {
                break;
            }
        }
        match whole {
            Ok(end) => prop_assert_eq!(stepped, Ok(Some(end))),
            Err(Error::Incomplete { .. }) => {
                let waits = matches!(stepped, Ok(None) | Err(Error::TooLong { .. }));
                prop_assert!(waits);
            }
            Err(error) => prop_assert_eq!(stepped, Err(error)),
        }
        let mut reader = Reader::new(&bytes);
        while reader.value().is_ok() {}
    }
}
