//! Streaming walk over the entries of a compressed payload.
//!
//! Memory depends on the longest entry and not on the decompressed size, which may be a thousand
//! times the received size.
//!
//! Owns the boundaries between pieces: a truncated entry waits for the next piece, the open group
//! is carried over, and an entry that is too long is skipped.

use std::ops::ControlFlow;

use super::decompress::{Compression, Damage, Decompressor};
use super::iter::{Entries, Group};
use crate::msgpack::Scanner;

/// Bytes that are walked at a time; most payloads are one piece. Smaller in tests, to have many
/// pieces.
const PIECE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// What [`Decompressor::walk`] hands to its callback.
#[derive(Debug)]
pub enum Piece<'p, 'a> {
    /// Some entries. Iterate to the end; offsets count from the start of the piece.
    Entries(&'p mut Entries<'a>),
    /// An entry longer than `max_entry_bytes` was skipped, or, at the end of the payload, the start
    /// of one.
    TooLong,
}

impl Decompressor {
    /// Decompresses a payload and passes its entries to `each` in order, in pieces of about 1 MiB,
    /// until `each` breaks. `max_depth` is [`crate::frame::Limits::depth`]; entries longer than
    /// `max_entry_bytes` may be skipped, shorter ones never are. Memory is bounded by three times
    /// `max_entry_bytes` plus some MiB.
    ///
    /// The total output is not limited: see [`Decompressor::check_size`].
    ///
    /// Returns the damage of the payload, if any; `each` has seen all entries before it. `None`
    /// also when `each` broke.
    pub fn walk(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        max_depth: u32,
        max_entry_bytes: usize,
        each: impl FnMut(Piece<'_, '_>) -> ControlFlow<()>,
    ) -> Option<Damage> {
        let mut walk = Walk {
            max_depth,
            max_entry_bytes,
            group: None,
            skipping: None,
            each,
        };
        let (mut rest, damage) = self.stream(compression, bytes, PIECE_BYTES, &mut |bytes| {
            walk.consume(bytes, true)?;
            let left = bytes.len();
            ControlFlow::Continue(
                PIECE_BYTES
                    .max(left.saturating_mul(2).min(max_entry_bytes))
                    .max(left + 1),
            )
        })?;
        let flow = walk.consume(&mut rest, false);
        self.recycle(rest);
        damage.filter(|_| flow.is_continue())
    }
}

/// The state of a walk between two pieces.
struct Walk<F> {
    max_depth: u32,
    max_entry_bytes: usize,
    /// Metadata and attributes of the group that is open.
    group: Option<(Vec<u8>, Vec<u8>)>,
    /// Finds the end of the entry that is being skipped.
    skipping: Option<Scanner>,
    each: F,
}

impl<F: FnMut(Piece<'_, '_>) -> ControlFlow<()>> Walk<F> {
    /// Walks the entries in `bytes` and removes them; `more` says whether further bytes follow.
    fn consume(&mut self, bytes: &mut Vec<u8>, more: bool) -> ControlFlow<()> {
        loop {
            if self.skipping.is_some() {
                self.skip(bytes, more)?;
            }
            if bytes.is_empty() || self.skipping.is_some() {
                return ControlFlow::Continue(());
            }
            let group = self
                .group
                .as_ref()
                .map(|(metadata, attributes)| Group { metadata, attributes });
            let mut entries = Entries::piece(bytes, self.max_depth, group, more);
            (self.each)(Piece::Entries(&mut entries))?;
            let (walked, group) = (entries.at(), entries.group());
            self.group = group.map(|group| (group.metadata.to_vec(), group.attributes.to_vec()));
            bytes.drain(..walked.min(bytes.len()));
            if !more || bytes.len() <= self.max_entry_bytes {
                return ControlFlow::Continue(());
            }
            self.skipping = Some(Scanner::new(0, usize::MAX, u32::MAX));
        }
    }

    /// Skips the bytes of an entry that is too long.
    fn skip(&mut self, bytes: &mut Vec<u8>, more: bool) -> ControlFlow<()> {
        let Some(scanner) = &mut self.skipping else {
            return ControlFlow::Continue(());
        };
        match scanner.scan(bytes) {
            Ok(Some(end)) => {
                bytes.drain(..end.min(bytes.len()));
            }
            Ok(None) if more => {
                let seen = scanner.forget(bytes.len());
                bytes.drain(..seen);
                return ControlFlow::Continue(());
            }
            Ok(None) => bytes.clear(),
            // Not MessagePack: where the next entry begins is unknown.
            Err(_) => {
                (self.each)(Piece::TooLong)?;
                return ControlFlow::Break(());
            }
        }
        self.skipping = None;
        (self.each)(Piece::TooLong)
    }
}

#[cfg(all(test, feature = "gzip"))]
mod tests;
