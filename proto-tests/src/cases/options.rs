//! Cases 31 to 38: options, tags and additional elements.

use super::{batch, cases, chunk, message, opts};
use crate::case_result::{CaseError, CaseResult};
use crate::context::CaseContext;
use crate::msgpack::{array, bin, int, map, map32, nil, s, str_bytes, uint, unhex};
use crate::peer::Peer;

cases! {
    31 "size-is-a-hint" [] "FL; ND"
        "`size` absent, 0, negative, huge or a byte count: the events decide" => size_hint;
    32 "unknown-options" [] "S1: MAY ignore; ND" "unknown and non-string option keys: ignored" => unknown_options;
    33 "duplicate-chunk-keys" [] "FB-in" "`chunk` twice in the option map: the first wins, one ack" => two_chunks;
    34 "option-order" [] "FB-fmt" "option map in any order, map32 header: accepted" => option_order;
    35 "extra-elements" [] "FD-in; FB-in" "elements after the option: ignored" => extra_elements;
    36 "tag-bin" [] "Ruby clients" "tag as bin: accepted" => tag_bin;
    37 "tag-64-kib" [] "FLB_INPUT_CHUNK_TAG_MAX"
        "tag of 64 KiB less the header: accepted; 64 KiB + 1: ack or close" => long_tag;
    38 "tag-empty" [] "legacy heartbeat; FD-out"
        "empty tag with events: accepted; [\"\", []]: ignored" => empty_tag;
}

async fn size_hint(c: CaseContext) -> CaseResult {
    let before = c.memory();
    let mut peer = c.connect().await?;
    let sizes = [
        None,
        Some(int(0)),
        Some(int(-1)),
        Some(uint(u32::MAX.into())),
        Some(uint(u64::MAX)),
        Some(uint(87)),
    ];
    let texts: Vec<String> = (0..sizes.len()).map(|n| format!("size {n}")).collect();
    for ((n, size), text) in (0..).zip(sizes).zip(&texts) {
        let mut pairs = vec![("chunk", chunk(&c, n))];
        pairs.extend(size.map(|size| ("size", size)));
        peer.send(&batch(&c, bin(&c.entry(n, text)), Some(opts(&pairs))))
            .await?;
        peer.expect_ack(&chunk(&c, n)).await?;
    }
    c.expect_memory(before, 64 << 20)?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await
}

async fn unknown_options(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let private = opts(&[
        ("chunk", chunk(&c, 0)),
        ("eventEntryDataSize", uint(87)),
        ("x", array(&[nil(), map(&[])])),
        ("y", nil()),
    ]);
    peer.send(&batch(&c, array(&[c.entry(0, "unknown keys")]), Some(private)))
        .await?;
    peer.expect_ack(&chunk(&c, 0)).await?;
    let odd = map(&[
        (uint(7), s("x")),
        (nil(), nil()),
        (bin(b"k"), uint(1)),
        (s("chunk"), chunk(&c, 1)),
    ]);
    peer.send(&batch(&c, bin(&c.entry(1, "odd keys")), Some(odd)))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["unknown keys", "odd keys"]).await
}

async fn two_chunks(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[
        ("chunk", chunk(&c, 1)),
        ("size", uint(1)),
        ("chunk", chunk(&c, 2)),
    ]);
    peer.send(&batch(&c, array(&[c.entry(0, "one")]), Some(option)))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    // A second ack would precede that of the next message.
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}

async fn option_order(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let pairs = [
        (s("fluent_signal"), uint(0)),
        (s("compressed"), s("text")),
        (s("size"), uint(1)),
    ];
    for n in 0..4 {
        let mut order = pairs.to_vec();
        order.insert(n as usize, (s("chunk"), chunk(&c, n)));
        peer.send(&batch(
            &c,
            bin(&c.entry(n, &format!("place {n}"))),
            Some(map32(&order)),
        ))
        .await?;
        peer.expect_ack(&chunk(&c, n)).await?;
    }
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["place 0", "place 1", "place 2", "place 3"])
        .await
}

async fn extra_elements(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = |n| opts(&[("chunk", chunk(&c, n))]);
    peer.send(&array(&[
        c.tag(),
        c.time(0),
        c.record("message"),
        option(0),
        s("extra"),
        nil(),
    ]))
    .await?;
    peer.expect_ack(&chunk(&c, 0)).await?;
    peer.send(&array(&[
        c.tag(),
        array(&[c.entry(1, "forward")]),
        option(1),
        uint(1),
    ]))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.send(&array(&[
        c.tag(),
        bin(&c.entry(2, "packed")),
        option(2),
        map(&[]),
    ]))
    .await?;
    peer.expect_ack(&chunk(&c, 2)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["message", "forward", "packed"]).await
}

async fn tag_bin(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1))]);
    peer.send(&array(&[
        bin(b"conformance.bin"),
        c.time(0),
        c.record("one"),
        option,
    ]))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}

async fn long_tag(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = |n| opts(&[("chunk", chunk(&c, n))]);
    peer.send(&array(&[
        str_bytes(&[b't'; 65_531]),
        c.time(0),
        c.record("long"),
        option(1),
    ]))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_texts(&["long"]).await?;
    peer.send(&array(&[
        str_bytes(&[b't'; 65_537]),
        c.time(0),
        c.with_suffix("longer").record("longer"),
        option(2),
    ]))
    .await?;
    acked_or_closed(&c, &mut peer, &chunk(&c, 2)).await?;
    c.expect_listener_alive().await
}

/// Expects either an ack and a live connection, or a close without a byte.
pub(super) async fn acked_or_closed(c: &CaseContext, peer: &mut Peer, chunk: &[u8]) -> CaseResult {
    match peer.expect_ack(chunk).await {
        Ok(()) => c.expect_alive(peer).await,
        Err(CaseError::Fail { seen, .. })
            if seen.contains("closed the connection") || seen.contains("broke") =>
        {
            Ok(())
        }
        Err(CaseError::Fail { seen, .. }) => Err(CaseError::fail("the ack, or the connection closed", seen)),
        Err(skip) => Err(skip),
    }
}

async fn empty_tag(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex("92a090")).await?;
    let option = opts(&[("chunk", chunk(&c, 1))]);
    peer.send(&array(&[s(""), array(&[c.entry(0, "one")]), option]))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.send(&unhex("92a090")).await?;
    peer.send(&message(&c, c.time(1), c.record("two"), None)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}
