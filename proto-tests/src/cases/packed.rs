//! Cases 15 to 18: PackedForward without compression.

use super::{batch, cases, message, opts};
use crate::case_result::{CaseResult, check};
use crate::context::{CaseContext, T0, random};
use crate::msgpack::{Format, array, bin, blob, hex, map, s, uint, unhex};
use crate::vectors;

cases! {
    15 "packed-bin" [] "S1: MUST accept bin" "PackedForward in a bin, no option: events" => packed_bin;
    16 "packed-str32" [] "S1: MUST accept str; FD-out"
        "PackedForward in a str32 of bytes that are not UTF-8: events" => packed_str32;
    17 "packed-all-headers" [] "S1" "fixstr, str8/16/32 and bin8/16/32 payloads: the same events" => all_headers;
    18 "packed-compressed-text" [] "FD-out always; V" "{\"compressed\": \"text\"}: plain" => compressed_text;
}

async fn packed_bin(c: CaseContext) -> CaseResult {
    super::send_and_expect(
        &c,
        batch(&c, bin(&c.entries(&["one", "two"])), None),
        &["one", "two"],
    )
    .await
}

async fn packed_str32(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::FLUENTD_PACKED)).await?;
    let ack = peer.raw(1).await;
    check(
        ack == unhex(vectors::FLUENTD_ACK_REPLY),
        format!("ack {}", vectors::FLUENTD_ACK_REPLY),
        hex(&ack),
    )?;
    // The byte d7 of EventTime followed by 00 is not UTF-8.
    peer.send(&batch(&c, blob(Format::Str32, &c.entries(&["one", "two"])), None))
        .await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}

async fn all_headers(c: CaseContext) -> CaseResult {
    // A fixstr holds 31 bytes, so its record has a short token and nothing else.
    let short = c.with_token(format!("{:012x}", random() >> 16));
    let tiny = array(&[uint(T0.into()), map(&[(s("traceId"), s(&short.token))])]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, blob(Format::FixStr, &tiny), None)).await?;
    let forms = [
        Format::Str8,
        Format::Str16,
        Format::Str32,
        Format::Bin8,
        Format::Bin16,
        Format::Bin32,
    ];
    let names: Vec<String> = forms.iter().map(|form| format!("{form:?}")).collect();
    for ((n, form), name) in (0..).zip(forms).zip(&names) {
        peer.send(&batch(&c, blob(form, &c.entry(n, name)), None)).await?;
    }
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await?;
    short.expect_count(1).await
}

async fn compressed_text(c: CaseContext) -> CaseResult {
    let option = opts(&[
        ("size", uint(1)),
        ("compressed", s("text")),
        ("chunk", s(&c.token)),
    ]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, blob(Format::Str32, &c.entry(0, "one")), Some(option)))
        .await?;
    peer.expect_ack(&s(&c.token)).await?;
    // In Message mode the key must be ignored.
    peer.send(&message(
        &c,
        c.time(1),
        c.record("two"),
        Some(opts(&[("compressed", s("text"))])),
    ))
    .await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}
