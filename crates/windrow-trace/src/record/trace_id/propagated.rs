//! The id in a trace context as services pass it on: W3C, AWS, Google, Jaeger, B3.

use super::is_hex;

/// The id in a trace context as services pass it on.
pub(super) fn propagated(text: &[u8]) -> Option<&[u8]> {
    // AWS X-Ray's SDK for Java: AWS-XRAY-TRACE-ID: 1-…@span.
    let text = text.strip_prefix(b"AWS-XRAY-TRACE-ID: ").unwrap_or(text);
    let parts = |separator: u8| text.split(move |byte| *byte == separator);
    match text {
        // W3C Trace Context: version-trace-parent-flags.
        [_, _, b'-', ..] if text.len() >= 55 => {
            let mut parts = parts(b'-');
            let (version, id, parent) = (parts.next()?, parts.next()?, parts.next()?);
            let is_known = version != b"ff" && is_hex(version) && id.len() == 32 && parent.len() == 16;
            (is_known && is_hex(id) && is_hex(parent)).then_some(id)
        }
        // AWS: Root=1-…;Parent=…;Sampled=1, in any order, with Self in front behind a load balancer.
        _ if text.contains(&b'=') && parts(b';').any(|part| part.trim_ascii().starts_with(b"Root=")) => {
            parts(b';')
                .find_map(|part| part.trim_ascii().strip_prefix(b"Root="))
                .filter(|root| !root.is_empty())
        }
        [
            b'1',
            b'-',
            root @ ..,
            b'@',
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            _,
        ] if root.len() == 33 && root[8] == b'-' => text.get(..35),
        // Google: trace/span;o=1.
        _ if text.get(32) == Some(&b'/') && is_hex(&text[..32]) => Some(&text[..32]),
        // Google's logging libraries: projects/NAME/traces/ID.
        _ if text.starts_with(b"projects/") => {
            let mut parts = parts(b'/').skip(2);
            let (traces, id) = (parts.next()?, parts.next()?);
            (traces == b"traces" && !id.is_empty()).then_some(id)
        }
        _ => {
            // Jaeger: trace:span:parent:flags. B3: trace-span, trace-span-sampled,
            // trace-span-sampled-parent.
            let (separator, lengths) = match text.iter().find(|byte| !byte.is_ascii_hexdigit())? {
                b':' => (b':', 4..=4),
                b'-' => (b'-', 2..=4),
                // Jaeger's clients escape the value of their header.
                b'%' => return escaped_jaeger(text),
                _ => return None,
            };
            let mut parts = parts(separator);
            let (id, span) = (parts.next()?, parts.next()?);
            let is_known = if separator == b':' {
                id.len() <= 32 && is_hex(id) && is_hex(span)
            } else {
                matches!(id.len(), 16 | 32) && is_hex(id) && span.len() == 16 && is_hex(span)
            };
            (is_known && lengths.contains(&(2 + parts.count()))).then_some(id)
        }
    }
}

/// The trace in `trace%3Aspan%3Aparent%3Aflags`.
fn escaped_jaeger(text: &[u8]) -> Option<&[u8]> {
    let colons =
        memchr::memmem::find_iter(text, b"%3A").count() + memchr::memmem::find_iter(text, b"%3a").count();
    let id = text.split(|byte| *byte == b'%').next()?;
    (colons == 3 && (1..=32).contains(&id.len()) && is_hex(id)).then_some(id)
}
