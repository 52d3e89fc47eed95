//! Round trips, damage and versions of states.

use proptest::prelude::*;

use super::*;

fn states() -> impl Strategy<Value = DocumentState> {
    let parts = prop::collection::vec((any::<[u8; 12]>(), any::<i64>(), any::<u32>()), 1..4);
    (
        parts,
        any::<bool>(),
        0..5usize,
        any::<i64>(),
        prop::option::of("[a-z]{0,9}"),
    )
        .prop_flat_map(|(parts, key, reason, sealed_at, text_name)| {
            let n = parts.len() as u32;
            let line = (
                any::<i64>(),
                0..n,
                any::<u32>(),
                prop::option::of(0..u32::MAX - 1),
                0..7u8,
                prop_oneof![8 => prop::option::of(0..3u32), 1 => any::<Option<u32>>()],
            );
            let renamed = prop::collection::vec(("[a-z._]{1,9}", "[a-z._]{0,9}", any::<bool>()), 0..3);
            (prop::collection::vec(line, 0..20), renamed).prop_map(move |(lines, renamed)| DocumentState {
                renamed: renamed
                    .into_iter()
                    .map(|(name, original, same)| RenamedField {
                        location: FieldLocation::TopLevel,
                        natural: if same { name.clone() } else { format!("{name}_") },
                        name,
                        original,
                    })
                    .collect(),
                schema: DocumentSchema::ALL[reason % 3],
                key_name: if key {
                    default_key(DocumentSchema::ALL[reason % 3]).into()
                } else {
                    "own.id".into()
                },
                text_name: text_name.clone(),
                reason: SealReason::ALL[reason],
                sealed_at,
                parts: parts
                    .iter()
                    .map(|&(id, received, total)| PartState {
                        id: PartId(id),
                        received,
                        total,
                    })
                    .collect(),
                fields: lines
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % 3 == 1)
                    .map(|(i, _)| FieldState {
                        rule: MergeRule::ALL[i % 6],
                        location: if i % 2 == 0 {
                            FieldLocation::TopLevel
                        } else {
                            FieldLocation::Metadata
                        },
                        name: format!("field {i}"),
                        line: i as u32,
                    })
                    .collect(),
                lines: lines
                    .into_iter()
                    .map(|(time, part, position, text, level, service)| LineState {
                        time,
                        part,
                        position,
                        text,
                        level: Severity::from_u8(level),
                        service,
                    })
                    .collect(),
            })
        })
}

proptest! {
    #[test]
    fn reads_what_it_wrote(state in states()) {
        let mut text = Vec::new();
        state.write(&mut text);
        prop_assert_eq!(DocumentState::read(std::str::from_utf8(&text).unwrap()).unwrap(), state);
    }

    #[test]
    fn damage_is_an_error_or_another_state_but_never_a_panic(state in states(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut text = Vec::new();
        state.write(&mut text);
        let mut bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        DocumentState::read(&URL_SAFE_NO_PAD.encode(&bytes)).ok();
        prop_assert!(DocumentState::read(&URL_SAFE_NO_PAD.encode(&bytes[..at])).is_err());
    }
}

#[test]
fn a_newer_version_is_said_to_be_one() {
    assert_eq!(
        DocumentState::read(&URL_SAFE_NO_PAD.encode([9, 0])),
        Err(StateError::Version(9))
    );
    assert_eq!(DocumentState::read("!"), Err(StateError::Base64));
}
