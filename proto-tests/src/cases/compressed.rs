//! Cases 19 to 30: CompressedPackedForward.

use std::io::Write;

use super::{batch, cases, chunk, opts};
use crate::case_result::{CaseError, CaseResult};
use crate::context::CaseContext;
use crate::msgpack::{Format, Raw, array, bin, blob, map, s, unhex};
use crate::vectors;

cases! {
    19 "gzip-bin" [] "S1; FB-itest" "gzip in a bin: events" => gzip_bin;
    20 "gzip-str" [] "FD-out" "gzip in a str: events" => gzip_str;
    21 "gzip-members" [] "S1; FD-test" "two and more concatenated gzip members: all events" => gzip_members;
    22 "gzip-empty-member" [] "differs from FB-in"
        "gzip members of which one is empty: all other events" => gzip_empty_member;
    23 "gzip-entry-spans-members" [] "S1: concatenated binary is one stream"
        "gzip split so that an entry spans two members: one event" => gzip_spanning;
    24 "gzip-header-fields" [] "RFC 1952"
        "gzip with FEXTRA, FNAME, FCOMMENT and FHCRC: events" => gzip_header_fields;
    25 "zstd-frame" [] "FD-out; FB-itest" "zstd single frame without content size: events" => zstd_frame;
    26 "zstd-frames" [] "FD-test" "zstd concatenated frames: all events" => zstd_frames;
    27 "zstd-8-mib" [] "differs from FB-in" "zstd frame that inflates to 8 MB: all events, ack" => zstd_large;
    28 "gzip-sniffed" [] "FB-in sniff_magic"
        "gzip magic, option map present, no `compressed` key: inflated" => gzip_sniffed;
    29 "gzip-claimed-but-plain" [] "S1 silent; FB-in"
        "`compressed: gzip` but a plain payload: plain or poison, acked, never a crash" => gzip_claimed;
    30 "compression-unknown" [] "S1: other values are ignored"
        "`compressed: snappy` with a plain payload: plain" => unknown_compression;
}

/// One gzip member.
pub(super) fn gzip(data: &[u8]) -> Result<Vec<u8>, CaseError> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(data)
        .and_then(|()| encoder.finish())
        .map_err(|e| CaseError::Skip(format!("gzip: {e}")))
}

/// One zstd frame without content size, as a stream writer produces it.
fn zstd(data: &[u8]) -> Result<Vec<u8>, CaseError> {
    let frame = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3)?;
        encoder.include_contentsize(false)?;
        encoder.write_all(data)?;
        encoder.finish()
    };
    frame().map_err(|e: std::io::Error| CaseError::Skip(format!("zstd: {e}")))
}

/// Sends a payload with this `compressed` value and a chunk; expects the ack and exactly these
/// texts.
async fn delivers(c: &CaseContext, payload: Raw, compressed: &str, texts: &[&str]) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(c, 1)), ("compressed", s(compressed))]);
    peer.send(&batch(c, payload, Some(option))).await?;
    peer.expect_ack(&chunk(c, 1)).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(texts).await
}

async fn gzip_bin(c: CaseContext) -> CaseResult {
    delivers(
        &c,
        bin(&gzip(&c.entries(&["one", "two"]))?),
        "gzip",
        &["one", "two"],
    )
    .await
}

async fn gzip_str(c: CaseContext) -> CaseResult {
    delivers(
        &c,
        blob(Format::Str32, &gzip(&c.entries(&["one", "two"]))?),
        "gzip",
        &["one", "two"],
    )
    .await
}

async fn gzip_members(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&unhex(vectors::GZIP_TWO_MEMBERS)).await?;
    c.expect_alive(&mut peer).await?;
    let members = [
        gzip(&c.entry(0, "one"))?,
        gzip(&c.entry(1, "two"))?,
        gzip(&c.entry(2, "three"))?,
    ];
    delivers(&c, bin(&members.concat()), "gzip", &["one", "two", "three"]).await
}

async fn gzip_empty_member(c: CaseContext) -> CaseResult {
    let members = [gzip(&c.entry(0, "one"))?, gzip(&[])?, gzip(&c.entry(1, "two"))?];
    delivers(&c, bin(&members.concat()), "gzip", &["one", "two"]).await
}

async fn gzip_spanning(c: CaseContext) -> CaseResult {
    let entry = c.entry(0, "one");
    let (left, right) = entry.split_at(entry.len() / 2);
    delivers(&c, bin(&[gzip(left)?, gzip(right)?].concat()), "gzip", &["one"]).await
}

async fn gzip_header_fields(c: CaseContext) -> CaseResult {
    let data = c.entry(0, "one");
    let plain = gzip(&data)?;
    let crc = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_le_bytes()
    };
    // Magic, deflate, flags FHCRC|FEXTRA|FNAME|FCOMMENT, time, extra flags, system; then the
    // optional parts.
    let mut member = vec![0x1f, 0x8b, 8, 0x1e, 1, 2, 3, 4, 0, 3];
    member.extend_from_slice(&[6, 0, b'A', b'p', 2, 0, 7, 7]);
    member.extend_from_slice(b"name.log\0a comment\0");
    let header_crc = crc(&member);
    member.extend_from_slice(&header_crc[..2]);
    member.extend_from_slice(&plain[10..]);
    delivers(&c, bin(&member), "gzip", &["one"]).await
}

async fn zstd_frame(c: CaseContext) -> CaseResult {
    delivers(
        &c,
        bin(&zstd(&c.entries(&["one", "two"]))?),
        "zstd",
        &["one", "two"],
    )
    .await
}

async fn zstd_frames(c: CaseContext) -> CaseResult {
    let frames = [
        zstd(&c.entry(0, "one"))?,
        zstd(&c.entry(1, "two"))?,
        zstd(&c.entry(2, "three"))?,
    ];
    delivers(
        &c,
        blob(Format::Str32, &frames.concat()),
        "zstd",
        &["one", "two", "three"],
    )
    .await
}

async fn zstd_large(c: CaseContext) -> CaseResult {
    let texts: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    let pad = (s("pad"), blob(Format::Str16, &[b'x'; 8192]));
    let entry =
        |(n, text): (u32, &String)| array(&[c.time(n), c.record_with(text, std::slice::from_ref(&pad))]);
    let payload = (0..).zip(&texts).map(entry).collect::<Vec<_>>().concat();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    delivers(&c, bin(&zstd(&payload)?), "zstd", &texts).await
}

async fn gzip_sniffed(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1))]);
    peer.send(&batch(&c, bin(&gzip(&c.entry(0, "one"))?), Some(option)))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    peer.send(&batch(&c, bin(&gzip(&c.entry(1, "two"))?), Some(map(&[]))))
        .await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(&["one", "two"]).await
}

async fn gzip_claimed(c: CaseContext) -> CaseResult {
    let mut peer = c.connect().await?;
    let option = opts(&[("chunk", chunk(&c, 1)), ("compressed", s("gzip"))]);
    peer.send(&batch(&c, bin(&c.entry(0, "one")), Some(option)))
        .await?;
    peer.expect_ack(&chunk(&c, 1)).await?;
    c.expect_alive(&mut peer).await
}

async fn unknown_compression(c: CaseContext) -> CaseResult {
    delivers(&c, bin(&c.entries(&["one", "two"])), "snappy", &["one", "two"]).await
}
