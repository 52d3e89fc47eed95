//! Messages in the place of options.

use super::*;

#[test]
fn a_message_in_the_place_of_the_options_has_the_options() {
    let inner = "93a175 9192 0281a16202 81a56368756e6ba178";
    for (bytes, nesting) in [
        (format!("93a174 9192 0181a16101 {inner}"), 1),
        (format!("93a174 90 93a176 90 {inner}"), 2),
    ] {
        let bytes = hex(&bytes);
        let run = scan(&bytes);
        assert_eq!((run.end, run.violation), (bytes.len(), None));
        let message = run.frames[0].message(&bytes).unwrap();
        assert_eq!(
            (message.tag, message.options.chunk),
            (&b"t"[..], Some(&b"\xa1x"[..]))
        );
        assert!(!message.options.ignored);
        let mut nested = message.nested;
        for _ in 1..nesting {
            let outer = messages(nested.unwrap(), Limits::default())
                .next()
                .unwrap()
                .unwrap();
            nested = outer.nested;
        }
        assert_eq!(nested, Some(&*hex(inner)));
    }
    for other in ["93a17490 91a175", "93a17490 92a17505", "93a17490 920590"] {
        let bytes = hex(other);
        let run = scan(&bytes);
        let message = run.frames[0].message(&bytes).unwrap();
        assert_eq!((message.nested, message.options.ignored), (None, true), "{other}");
    }
    let without = hex("93a174 90 92a17590");
    let run = scan(&without);
    let message = run.frames[0].message(&without).unwrap();
    assert_eq!(
        (message.nested, message.options.chunk),
        (Some(&hex("92a17590")[..]), None)
    );
}
