//! Walking the entries of a compressed payload piece by piece: what it takes in memory depends on the longest entry, not
//! on the payload, which may be a thousand times longer than what was received.
//!
//! Owns the cuts between pieces: an entry that is cut off waits for the next one, the group goes on across them, and
//! an entry that is too long to wait for is passed over.

use std::ops::ControlFlow;

use super::decompress::{Compression, Damage, Decompressor};
use super::iter::{Entries, Group};
use crate::msgpack::Scanner;

/// How many bytes are walked at a time. Most payloads are shorter: they are one piece. (Less in the tests: many pieces.)
const PIECE: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// What [`Decompressor::walk`] comes to.
#[derive(Debug)]
pub enum Piece<'p, 'a> {
    /// Some entries, to be walked to their end. Their offsets count from the start of the piece.
    Entries(&'p mut Entries<'a>),
    /// An entry of more bytes than were asked for was passed over, or, at the end of the payload, what began like one.
    TooLong,
}

impl Decompressor {
    /// Decompresses a payload and gives its entries to `each`, in order, a piece of about 1 MiB after the other, until
    /// `each` breaks off. `max_depth` is [`crate::frame::Limits::depth`]; entries that are longer than `longest` bytes may be
    /// passed over, those of up to `longest` are not. Memory is bounded by three times `longest` and some MiB.
    ///
    /// How much comes out in all is not limited: see [`Decompressor::check_size`].
    ///
    /// Returns what is wrong with the payload; all entries before the damage were given to `each`. `None` also when `each`
    /// broke off.
    pub fn walk(
        &mut self,
        compression: Compression,
        bytes: &[u8],
        max_depth: u32,
        longest: usize,
        each: impl FnMut(Piece<'_, '_>) -> ControlFlow<()>,
    ) -> Option<Damage> {
        let mut walk = Walk {
            max_depth,
            longest,
            group: None,
            passing: None,
            each,
        };
        let (mut rest, damage) = self.in_pieces(compression, bytes, PIECE, &mut |bytes| {
            walk.take(bytes, true)?;
            let left = bytes.len();
            ControlFlow::Continue(PIECE.max(left.saturating_mul(2).min(longest)).max(left + 1))
        })?;
        let flow = walk.take(&mut rest, false);
        self.recycle(rest);
        damage.filter(|_| flow.is_continue())
    }
}

/// A walk over a stream of entries of which only a piece is there.
struct Walk<F> {
    max_depth: u32,
    longest: usize,
    /// The group in which the next entry stands: its metadata and attributes.
    group: Option<(Vec<u8>, Vec<u8>)>,
    /// Looks for the end of an entry that is too long.
    passing: Option<Scanner>,
    each: F,
}

impl<F: FnMut(Piece<'_, '_>) -> ControlFlow<()>> Walk<F> {
    /// Walks what is there and removes it. `more` is to come, or not.
    fn take(&mut self, bytes: &mut Vec<u8>, more: bool) -> ControlFlow<()> {
        loop {
            if self.passing.is_some() {
                self.pass(bytes, more)?;
            }
            if bytes.is_empty() || self.passing.is_some() {
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
            if !more || bytes.len() <= self.longest {
                return ControlFlow::Continue(());
            }
            self.passing = Some(Scanner::new(0, usize::MAX, u32::MAX));
        }
    }

    /// Passes over an entry that is too long, as far as it is there.
    fn pass(&mut self, bytes: &mut Vec<u8>, more: bool) -> ControlFlow<()> {
        let Some(scanner) = &mut self.passing else {
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
            // What follows is no MessagePack: where another entry begins cannot be known.
            Err(_) => {
                (self.each)(Piece::TooLong)?;
                return ControlFlow::Break(());
            }
        }
        self.passing = None;
        (self.each)(Piece::TooLong)
    }
}

#[cfg(all(test, feature = "gzip"))]
mod tests;
