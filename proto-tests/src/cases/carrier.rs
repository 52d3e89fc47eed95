//! Cases 1 to 14: Message and Forward mode.

use std::time::Duration;

use super::{batch, cases, chunk, expect_time, message, opts, send_and_expect};
use crate::case_result::{CaseResult, check};
use crate::context::{CaseContext, T0};
use crate::msgpack::{
    Raw, array, array32, event_time, event_time_ext8, f64, int, int32, map, map32, nil, s, uint, unhex,
};
use crate::vectors;

cases! {
    1 "message-int-time" [] "S1 Message; FD-test"
        "[tag, int32, {..}] without option: 1 event, no reply, connection open" => int_time;
    2 "message-event-time" [] "S1 EventTime; FB-itest"
        "EventTime as fixext8: precision of nanoseconds kept" => event_time_fixext8;
    3 "message-event-time-ext8" [] "S1 EventTime"
        "EventTime as ext8 (c7 08 00): the same result as fixext8" => event_time_as_ext8;
    4 "message-empty-option" [] "GO" "Message with option {}: as without" => empty_option;
    5 "message-nil-option" [] "FB-in; Docker 18" "Message with option nil: as without" => nil_option;
    6 "message-chunk" [] "FB-itest; FD-test" "Message with {\"chunk\": x}: 1 event and the ack" => message_chunk;
    7 "message-metadata-option" [] "S1.5; FB-in"
        "Message with {\"metadata\": {..}}: metadata belongs to the event, not to the record" => metadata_option;
    8 "forward-int-times" [] "S1 Forward; V" "Forward with 3 entries, no option: 3 events in order" => forward;
    9 "forward-mixed-times" [] "S1; FB-dec"
        "Forward mixing int, EventTime, ext8 and float times: all accepted" => mixed_times;
    10 "forward-v2-entries" [] "S1.5; FB-out default"
        "Forward with [[time, metadata], record] entries: events with metadata" => v2_entries;
    11 "forward-v1-and-v2" [] "FB-dec" "Forward mixing v1 and v2 entries in one message: all accepted" => v1_and_v2;
    12 "forward-v2-int-time" [] "S1.5 example" "v2 entry with int time: accepted" => v2_int_time;
    13 "forward-no-entries" [] "FB-in; FD-in" "Forward, 0 entries, with chunk: 0 events and the ack" => no_entries;
    14 "forward-long-headers" [] "FB-enc map32"
        "array32 and map32 headers for small counts: accepted" => long_headers;
}

/// How long an unexpected reply is awaited.
const SILENCE: Duration = Duration::from_millis(300);

async fn int_time(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::MESSAGE_INT)).await?;
    peer.send(&message(&c, int32(T0.cast_signed()), c.record("one"), None))
        .await?;
    peer.expect_silence(SILENCE).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}

async fn nanoseconds(c: &CaseContext, time: fn(u32, u32) -> Raw, vector: &str) -> CaseResult {
    let (precise, order) = (c.with_suffix("precise"), c.with_suffix("order"));
    let mut peer = c.connect().await?;
    peer.send(&unhex(vector)).await?;
    peer.send(&message(c, time(T0, 123_456_789), precise.record("one"), None))
        .await?;
    // A sink that orders by time reveals the nanosecond even if it prints fewer digits.
    peer.send(&message(c, time(T0, 123_456_790), order.record("later"), None))
        .await?;
    peer.send(&message(c, time(T0, 123_456_789), order.record("sooner"), None))
        .await?;
    c.expect_alive(&mut peer).await?;
    expect_time(&precise, T0.into(), 123_456_789).await?;
    let by_time = matches!(c.target.sink, crate::Sink::WindrowLogs(_));
    order
        .expect_texts(if by_time {
            &["sooner", "later"]
        } else {
            &["later", "sooner"]
        })
        .await
}

async fn event_time_fixext8(c: CaseContext) -> CaseResult {
    nanoseconds(&c, event_time, vectors::MESSAGE_FIXEXT8).await
}

async fn event_time_as_ext8(c: CaseContext) -> CaseResult {
    nanoseconds(&c, event_time_ext8, vectors::MESSAGE_EXT8).await
}

async fn empty_option(c: CaseContext) -> CaseResult {
    let bytes = [
        unhex(vectors::GO_EMPTY_OPTIONS),
        message(&c, c.time(0), c.record("one"), Some(map(&[]))),
    ]
    .concat();
    send_and_expect(&c, bytes, &["one"]).await
}

async fn nil_option(c: CaseContext) -> CaseResult {
    let bytes = [
        unhex(vectors::DOCKER_NIL_OPTIONS),
        message(&c, c.time(0), c.record("one"), Some(nil())),
    ]
    .concat();
    send_and_expect(&c, bytes, &["one"]).await
}

async fn message_chunk(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&message(
        &c,
        c.time(0),
        c.record("one"),
        Some(opts(&[("chunk", chunk(&c, 1))])),
    ))
    .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}

/// Expects one event with the text "one", no field `mark` in the record, and the metadata, if the
/// sink shows it.
async fn expect_metadata(c: &CaseContext) -> CaseResult {
    let Some(doc) = c.only_record().await? else {
        return Ok(());
    };
    check(doc.texts == ["one"], "the event", format!("{:?}", doc.whole))?;
    check(
        !doc.fields.contains_key("mark"),
        "metadata outside the record",
        format!("{:?}", doc.whole),
    )?;
    if !c.target.sink.shows_metadata() {
        c.note("metadata not checked: the sink does not show it");
        return Ok(());
    }
    let shown = doc.whole.to_string().contains(&mark(c));
    check(
        shown,
        format!("metadata {:?} kept with the event", mark(c)),
        format!("{:?}", doc.whole),
    )
}

fn mark(c: &CaseContext) -> String {
    format!("meta-of-{}", c.token.chars().rev().take(8).collect::<String>())
}

fn metadata(c: &CaseContext) -> Raw {
    map(&[(s("mark"), s(&mark(c)))])
}

async fn metadata_option(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::BIT_DYNAMIC_TAG)).await?;
    peer.expect_ack(&s("x/luxLeJFY1u14Q6/riPNQ==")).await?;
    peer.send(&message(
        &c,
        c.time(0),
        c.record("one"),
        Some(opts(&[("metadata", metadata(&c))])),
    ))
    .await?;
    c.expect_alive(&mut peer).await?;
    expect_metadata(&c).await
}

async fn forward(c: CaseContext) -> CaseResult {
    let entry = |n: u32, text| array(&[uint((T0 + n).into()), c.record(text)]);
    let entries = array(&[entry(0, "one"), entry(1, "two"), entry(2, "three")]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, entries, None)).await?;
    peer.expect_silence(SILENCE).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two", "three"]).await
}

async fn mixed_times(c: CaseContext) -> CaseResult {
    let entries = array(&[
        array(&[uint(T0.into()), c.record("int")]),
        array(&[event_time(T0 + 1, 5), c.record("fixext8")]),
        array(&[event_time_ext8(T0 + 2, 5), c.record("ext8")]),
        array(&[f64(f64::from(T0) + 3.5), c.record("float")]),
        array(&[int(i64::from(T0) + 4), c.record("last")]),
    ]);
    send_and_expect(
        &c,
        batch(&c, entries, None),
        &["int", "fixext8", "ext8", "float", "last"],
    )
    .await
}

fn v2(c: &CaseContext, time: Raw, text: &str) -> Raw {
    array(&[array(&[time, metadata(c)]), c.record(text)])
}

async fn v2_entries(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(
        &[
            unhex(vectors::BIT_DEFAULT),
            unhex(vectors::BIT_SEND_OPTIONS),
            unhex(vectors::BIT_MAP32),
        ]
        .concat(),
    )
    .await?;
    peer.send(&unhex(vectors::BIT_ACK)).await?;
    let ack = peer.raw(1).await;
    check(
        ack == unhex(vectors::BIT_ACK_REPLY),
        format!("ack {}", vectors::BIT_ACK_REPLY),
        crate::msgpack::hex(&ack),
    )?;
    peer.send(&unhex(vectors::BIT_MAP32_ACK)).await?;
    peer.expect_ack(&s("x/luxLeJFY1u14Q6/riPNQ==")).await?;
    peer.send(&batch(&c, array(&[v2(&c, c.time(0), "one")]), None))
        .await?;
    c.expect_alive(&mut peer).await?;
    expect_metadata(&c).await
}

async fn v1_and_v2(c: CaseContext) -> CaseResult {
    let entries = array(&[c.entry(0, "v1"), v2(&c, c.time(1), "v2"), c.entry(2, "v1 again")]);
    send_and_expect(&c, batch(&c, entries, None), &["v1", "v2", "v1 again"]).await
}

async fn v2_int_time(c: CaseContext) -> CaseResult {
    let entries = array(&[array(&[array(&[uint(T0.into()), map(&[])]), c.record("one")])]);
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, entries, None)).await?;
    c.expect_alive(&mut peer).await?;
    expect_time(&c, T0.into(), 0).await
}

async fn no_entries(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&batch(&c, array(&[]), Some(opts(&[("chunk", chunk(&c, 1))]))))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await
}

async fn long_headers(c: CaseContext) -> CaseResult {
    let record = map32(&[(s("traceId"), s(&c.token)), (s("log"), s("one"))]);
    let entry = array32(&[array32(&[c.time(0), map32(&[])]), record]);
    let option = map32(&[(s("chunk"), chunk(&c, 1)), (s("size"), uint(1))]);
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::BIT_INT_TIME)).await?;
    peer.send(&array32(&[c.tag(), array32(&[entry]), option])).await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one"]).await
}
