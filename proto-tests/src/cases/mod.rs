//! The 110 server cases, and the message builders that they share.
//!
//! A file of cases is a table (number, name, needs, source, expectation) with one function per row.

mod ack;
mod carrier;
mod compressed;
mod handshake;
mod hostile;
mod json;
mod lifecycle;
mod load;
mod options;
mod packed;
mod signals;
mod times;

use crate::case::Case;
use crate::case_result::{CaseResult, check};
use crate::context::CaseContext;
use crate::msgpack::{Raw, array, map, s};

/// Rows of `number name [needs] source expectation => function;`
macro_rules! cases {
    ($($number:literal $name:literal [$($need:expr),*] $source:literal $text:literal => $run:path;)*) => {
        pub(crate) fn cases() -> Vec<$crate::case::Case> {
            use $crate::need::Need::*;
            vec![$({
                const NEEDS: &[$crate::need::Need] = &[$($need),*];
                $crate::case::Case {
                    number: $number,
                    name: $name,
                    source: $source,
                    text: $text,
                    exclusive: NEEDS.contains(&Exclusive) || NEEDS.contains(&Last),
                    needs: NEEDS,
                    run: |ctx| Box::pin($run(ctx)),
                }
            }),*]
        }
    };
}
use cases;

/// All server cases in order of number.
pub fn all() -> Vec<Case> {
    let mut cases = [
        carrier::cases(),
        packed::cases(),
        compressed::cases(),
        options::cases(),
        signals::cases(),
        ack::cases(),
        times::cases(),
        lifecycle::cases(),
        json::cases(),
        handshake::cases(),
        hostile::cases(),
        load::cases(),
    ]
    .concat();
    cases.sort_by_key(|c| c.number);
    cases
}

/// `[tag, time, record, option?]`.
fn message(c: &CaseContext, time: Raw, record: Raw, option: Option<Raw>) -> Raw {
    let mut items = vec![c.tag(), time, record];
    items.extend(option);
    array(&items)
}

/// `[tag, body, option?]`; the body is an array of entries or a packed payload.
fn batch(c: &CaseContext, body: Raw, option: Option<Raw>) -> Raw {
    let mut items = vec![c.tag(), body];
    items.extend(option);
    array(&items)
}

/// An option map.
fn opts(pairs: &[(&str, Raw)]) -> Raw {
    map(&pairs
        .iter()
        .map(|(key, value)| (s(key), value.clone()))
        .collect::<Vec<_>>())
}

/// A chunk id that is unique to the case.
fn chunk(c: &CaseContext, n: u32) -> Raw {
    s(&format!("{}-{n}", c.token))
}

/// Sends a message without a chunk id and expects these texts to be delivered, no reply, and a live
/// connection.
async fn send_and_expect(c: &CaseContext, bytes: Raw, texts: &[&str]) -> CaseResult {
    let mut peer = c.connect().await?;
    peer.send(&bytes).await?;
    c.expect_alive(&mut peer).await?;
    c.expect_texts(texts).await
}

/// Expects the only record of the context to have this event time.
async fn expect_time(c: &CaseContext, sec: i64, nsec: u32) -> CaseResult {
    let Some(doc) = c.only_record().await? else {
        return Ok(());
    };
    match doc.time {
        Some(time) => check(
            time.is(sec, nsec),
            format!("time {sec}.{nsec:09}"),
            format!("{time:?}"),
        ),
        None => {
            c.note("time not checked: the sink does not show it");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn every_number_from_1_to_110_is_there_once_with_a_name_of_its_own() {
        let cases = all();
        assert!(cases.iter().map(|c| c.number).eq(1..=110));
        let mut names: Vec<_> = cases.iter().map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 110);
    }
}
