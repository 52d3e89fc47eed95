//! PackedForward without compression: cases 15 to 18.

use super::{batch, cases, message, opts};
use crate::case::{Verdict, check};
use crate::context::{Ctx, T0, random};
use crate::msgpack::{Form, array, bin, blob, hex, map, s, uint, unhex};
use crate::vectors;

cases! {
    15 "packed-bin" [] "S1: MUST accept bin" "PackedForward in a bin, no option: events" => packed_bin;
    16 "packed-str32" [] "S1: MUST accept str; FD-out"
        "PackedForward in a str32 of bytes that are not UTF-8: events" => packed_str32;
    17 "packed-all-headers" [] "S1" "fixstr, str8/16/32 and bin8/16/32 payloads: the same" => all_headers;
    18 "packed-compressed-text" [] "FD-out always; V" "{\"compressed\": \"text\"}: plain" => compressed_text;
}

async fn packed_bin(c: Ctx) -> Verdict {
    super::sends(
        &c,
        batch(&c, bin(&c.entries(&["one", "two"])), None),
        &["one", "two"],
    )
    .await
}

async fn packed_str32(c: Ctx) -> Verdict {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::V9)).await?;
    let ack = peer.raw(1).await;
    check(
        ack == unhex(vectors::V9_ACK),
        format!("ack {}", vectors::V9_ACK),
        hex(&ack),
    )?;
    // The byte d7 of EventTime followed by 00 is not UTF-8.
    peer.send(&batch(&c, blob(Form::Str32, &c.entries(&["one", "two"])), None))
        .await?;
    c.alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}

async fn all_headers(c: Ctx) -> Verdict {
    // A fixstr holds 31 bytes, so its record has a short token and nothing else.
    let short = c.with_token(format!("{:012x}", random() >> 16));
    let tiny = array(&[uint(T0.into()), map(&[(s("traceId"), s(&short.token))])]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, blob(Form::FixStr, &tiny), None)).await?;
    let forms = [
        Form::Str8,
        Form::Str16,
        Form::Str32,
        Form::Bin8,
        Form::Bin16,
        Form::Bin32,
    ];
    let names: Vec<String> = forms.iter().map(|form| format!("{form:?}")).collect();
    for ((n, form), name) in (0..).zip(forms).zip(&names) {
        peer.send(&batch(&c, blob(form, &c.entry(n, name)), None)).await?;
    }
    c.alive(&mut peer).await?;
    c.expect_texts(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .await?;
    short.expect_count(1).await
}

async fn compressed_text(c: Ctx) -> Verdict {
    let option = opts(&[
        ("size", uint(1)),
        ("compressed", s("text")),
        ("chunk", s(&c.token)),
    ]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, blob(Form::Str32, &c.entry(0, "one")), Some(option)))
        .await?;
    peer.expect_ack(&s(&c.token)).await?;
    // In Message mode the key says nothing and must do nothing.
    peer.send(&message(
        &c,
        c.time(1),
        c.rec("two"),
        Some(opts(&[("compressed", s("text"))])),
    ))
    .await?;
    c.alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}
