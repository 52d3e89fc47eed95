//! Values in the place of an id that a logger or proxy should have replaced or left out.

/// `value` without the quotes around it.
pub(super) fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner.trim_ascii(),
        _ => value,
    }
}

/// Whether a value is the name of a variable in the notation of a logger or proxy that did not replace
/// it: `${ctx:traceId}`, `%X{traceId}`, `{{traceId}}`, `{TraceId}`, `$http_traceparent`.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    let is_name = |name: &[u8]| {
        name.first().is_some_and(u8::is_ascii_alphabetic)
            && name
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
    };
    let is_hex_id = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
    match value {
        [b'$' | b'#' | b'%', b'{', name @ .., b'}'] | [b'%', b'X', b'{', name @ .., b'}'] => is_name(name),
        [b'{', b'{', name @ .., b'}', b'}'] => {
            let name = name.trim_ascii();
            is_name(name.strip_prefix(b".").unwrap_or(name))
        }
        [b'{', name @ .., b'}'] => is_name(name) && !is_hex_id(name),
        [b'$', name @ ..] => is_name(name),
        _ => false,
    }
}
