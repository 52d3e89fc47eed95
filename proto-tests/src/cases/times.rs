//! Cases 59 to 64: event times.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{batch, cases, chunk, expect_time, message, opts};
use crate::case_result::{CaseResult, check};
use crate::context::{CaseContext, T0};
use crate::msgpack::{Raw, array, event_time, ext, f32, f64, int, nil, uint};

cases! {
    59 "time-zero-and-nil" [] "FD-test; in_unix" "time 0 and nil: the time of receipt" => zero_and_nil;
    60 "time-odd-numbers" [] "ND ms; PY float; GO"
        "negative, 2^40, milliseconds, u64 max, NaN, Inf: no crash, neighbours kept, acked" => odd_numbers;
    61 "time-nsec-range" [] "FB rejects; V panics"
        "nsec 999,999,999 kept; 1e9, 2e9, u32 max: no crash, neighbours kept, acked" => nsec_range;
    62 "time-2040" [] "PY, FB: unsigned" "EventTime beyond 2^31 seconds: the right date" => year_2040;
    63 "time-odd-ext" [] "FB error"
        "ext type 0 of length 4 or 12, ext type 5 as time: at most that entry is lost, the rest kept" => odd_ext;
    64 "time-msgpack-timestamp" [] "msgpack specification"
        "msgpack timestamp (ext -1; 4, 8, 12 bytes) as value and as time: accepted" => timestamp;
}

async fn zero_and_nil(c: CaseContext) -> CaseResult {
    let forms = [
        c.with_suffix("zero"),
        c.with_suffix("nil"),
        c.with_suffix("event-time-zero"),
        c.with_suffix("nil-in-forward"),
    ];
    let mut peer = c.connect().await?;
    peer.send(&message(&c, uint(0), forms[0].record("x"), None))
        .await?;
    peer.send(&message(&c, nil(), forms[1].record("x"), None)).await?;
    peer.send(&message(&c, event_time(0, 0), forms[2].record("x"), None))
        .await?;
    peer.send(&batch(&c, array(&[array(&[nil(), forms[3].record("x")])]), None))
        .await?;
    c.expect_alive(&mut peer).await?;
    for form in forms {
        let Some(doc) = form.only_record().await? else {
            return Ok(());
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
            .cast_signed();
        let recent = doc.time.is_none_or(|t| (t.sec - now).abs() < 3600);
        check(
            recent,
            format!("{}: about now ({now})", form.token),
            format!("{:?}", doc.time),
        )?;
    }
    Ok(())
}

/// Sends entries with these times between two valid ones; expects the ack, the valid ones and a
/// live connection.
async fn neighbours_kept(c: &CaseContext, times: &[Raw]) -> CaseResult {
    let mut peer = c.connect().await?;
    for (n, time) in (0..).zip(times) {
        let odd = array(&[time.clone(), c.with_suffix("odd").record("odd")]);
        let entries = array(&[
            c.entry(2 * n, &format!("before {n}")),
            odd,
            c.entry(2 * n + 1, &format!("after {n}")),
        ]);
        peer.send(&batch(c, entries, Some(opts(&[("chunk", chunk(c, n))]))))
            .await?;
        peer.expect_ack(&chunk(c, n)).await?;
        // The same as a message of its own: poison or accepted, but acked.
        let id = chunk(c, 1000 + n);
        peer.send(&message(
            c,
            time.clone(),
            c.with_suffix("odd").record("odd"),
            Some(opts(&[("chunk", id.clone())])),
        ))
        .await?;
        peer.expect_ack(&id).await?;
    }
    c.expect_alive(&mut peer).await?;
    let texts: Vec<String> = (0..times.len())
        .flat_map(|n| [format!("before {n}"), format!("after {n}")])
        .collect();
    c.expect_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        .await
}

async fn odd_numbers(c: CaseContext) -> CaseResult {
    let times = [
        int(-1),
        int(i64::MIN),
        uint(1 << 40),
        uint(1_700_000_000_123),
        uint(u64::MAX),
        f64(f64::NAN),
        f64(f64::INFINITY),
        f64(f64::NEG_INFINITY),
        f64(1e300),
        f64(-1.5),
        f32(1.5),
    ];
    neighbours_kept(&c, &times).await
}

async fn nsec_range(c: CaseContext) -> CaseResult {
    let largest = c.with_suffix("largest");
    let mut peer = c.connect().await?;
    peer.send(&message(
        &c,
        event_time(T0, 999_999_999),
        largest.record("x"),
        None,
    ))
    .await?;
    c.expect_alive(&mut peer).await?;
    expect_time(&largest, T0.into(), 999_999_999).await?;
    neighbours_kept(
        &c,
        &[
            event_time(T0, 1_000_000_000),
            event_time(T0, 2_000_000_000),
            event_time(T0, u32::MAX),
        ],
    )
    .await
}

async fn year_2040(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&message(
        &c,
        event_time(2_214_086_400, 500_000_000),
        c.record("x"),
        None,
    ))
    .await?;
    c.expect_alive(&mut peer).await?;
    expect_time(&c, 2_214_086_400, 500_000_000).await
}

async fn odd_ext(c: CaseContext) -> CaseResult {
    neighbours_kept(
        &c,
        &[
            ext(0, &[1; 4]),
            ext(0, &[1; 12]),
            ext(0, &[]),
            ext(5, &[1; 8]),
            ext(-7, &[1; 8]),
        ],
    )
    .await
}

async fn timestamp(c: CaseContext) -> CaseResult {
    let seconds = u64::from(T0).to_be_bytes();
    let eight = (u64::from(500_000_000_u32) << 34 | u64::from(T0)).to_be_bytes();
    let twelve = [500_000_000_u32.to_be_bytes().as_slice(), &seconds].concat();
    let forms = [
        (c.with_suffix("four"), ext(-1, &seconds[4..]), 0),
        (c.with_suffix("eight"), ext(-1, &eight), 500_000_000),
        (c.with_suffix("twelve"), ext(-1, &twelve), 500_000_000),
    ];
    let mut peer = c.connect().await?;
    for (sub, time, _) in &forms {
        let value = [(crate::msgpack::s("when"), time.clone())];
        peer.send(&message(&c, time.clone(), sub.record_with("x", &value), None))
            .await?;
    }
    c.expect_alive(&mut peer).await?;
    for (sub, _, nsec) in &forms {
        expect_time(sub, T0.into(), *nsec).await?;
    }
    Ok(())
}
