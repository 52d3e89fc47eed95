//! The 110 server cases, by number, and the message builders that they share.
//!
//! A file of cases is a table (number, name, needs, source, expectation) and one function for each row.

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

use crate::case::{Case, Verdict, check};
use crate::context::Ctx;
use crate::msgpack::{Raw, array, map, s};

/// Rows of `number name [needs] source expectation => function;`
macro_rules! cases {
    ($($number:literal $name:literal [$($need:expr),*] $source:literal $text:literal => $run:path;)*) => {
        pub(crate) fn cases() -> Vec<$crate::case::Case> {
            use $crate::case::Need::*;
            vec![$({
                const NEEDS: &[$crate::case::Need] = &[$($need),*];
                $crate::case::Case {
                    number: $number,
                    name: $name,
                    source: $source,
                    text: $text,
                    alone: NEEDS.contains(&Alone) || NEEDS.contains(&Last),
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

/// `[tag, time, record]`, with an option where there is one.
fn message(c: &Ctx, time: Raw, record: Raw, option: Option<Raw>) -> Raw {
    let mut items = vec![c.tag(), time, record];
    items.extend(option);
    array(&items)
}

/// `[tag, body]` where the body is an array of entries or a packed payload, with an option where there is one.
fn batch(c: &Ctx, body: Raw, option: Option<Raw>) -> Raw {
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

/// A chunk id that no other case uses.
fn chunk(c: &Ctx, n: u32) -> Raw {
    s(&format!("{}-{n}", c.token))
}

/// Sends one message without a chunk id and expects these texts to arrive, no byte in return, and a live connection.
async fn sends(c: &Ctx, bytes: Raw, texts: &[&str]) -> Verdict {
    let mut peer = c.connect().await?;
    peer.send(&bytes).await?;
    c.alive(&mut peer).await?;
    c.expect_texts(texts).await
}

/// Expects that the one record of the context arrived with this event time.
async fn expect_time(c: &Ctx, sec: i64, nsec: u32) -> Verdict {
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
            c.note("time not judged: the sink does not show it");
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
