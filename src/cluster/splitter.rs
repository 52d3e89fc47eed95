//! Splitter: the messages of a run become one share for each owner of their traces.
//!
//! Decides which records belong together: all of one trace in one section of a chunk have one owner,
//! so that a part means the same records wherever it is gathered. Does no I/O and does not know who
//! the owners are.
//!
//! A message stays as it is when all of its records stay, and when it cannot be split exactly: it
//! has a part of a line, an entry that is no record, or another message in it, or it is too large
//! once it is decompressed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forward_protocol::entries::{Decompressor, Entries, Group};
use forward_protocol::frame::{Limits, Message, Mode, Payload, messages};
use forward_protocol::msgpack::write_map_len;
use twox_hash::XxHash3_128;
use windrow_trace::PartId;

use super::rendezvous::{Seat, owner};
use super::share::{Identity, ShareBuilder};
use crate::gather::{IdFinder, IdSettings, Indivisible};
use crate::metrics::Kept;

/// Largest payload that is split, in bytes, once it is decompressed.
const MAX_SPLIT_BYTES: usize = 8 << 20;
/// Tags that are remembered for the parts of lines under them.
const MAX_HELD_TAGS: usize = 10_000;

/// What a splitter has to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct SplitSettings {
    pub(crate) ids: IdSettings,
    pub(crate) frame: Limits,
    /// Bytes of a section of a chunk.
    pub(crate) max_part_bytes: usize,
    /// How long a line waits for its next part.
    pub(crate) line_timeout: Duration,
}

/// A run, split.
#[derive(Debug, Default)]
pub(crate) struct SplitRun {
    /// Messages that stay as they came.
    pub(crate) whole: Vec<u8>,
    /// Shares that stay.
    pub(crate) kept: Vec<u8>,
    /// Shares for others, by the index of the owner.
    pub(crate) others: HashMap<usize, OwnerShare>,
    /// Messages that stay although others may own their records, by the reason.
    pub(crate) indivisible: Vec<Kept>,
}

/// What belongs to one owner.
#[derive(Debug, Default)]
pub(crate) struct OwnerShare {
    /// Messages.
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u64,
}

/// Index of this instance among the seats.
const OWN: usize = 0;

/// Splits runs. One for each thread that does so at a time.
#[derive(Debug)]
pub(crate) struct Splitter {
    settings: SplitSettings,
    finder: IdFinder,
    decompressor: Decompressor,
    builders: Vec<Option<Building>>,
}

/// A share that is being built.
#[derive(Debug)]
struct Building {
    share: ShareBuilder,
    /// Address of the attributes of the open group of events.
    group: Option<usize>,
}

/// Tags under which a part of a line came: what follows under them stays, since it may end the
/// line.
#[derive(Debug, Default)]
pub(crate) struct HeldTags {
    tags: HashMap<Box<[u8]>, Instant, foldhash::fast::RandomState>,
    /// Until then all tags are: which of them have parts in the journal is not known yet.
    all_until: Option<Instant>,
}

impl HeldTags {
    pub(super) fn hold(&mut self, tag: &[u8], until: Instant) {
        if self.tags.len() >= MAX_HELD_TAGS {
            let now = Instant::now();
            self.tags.retain(|_, until| *until > now);
        }
        if self.tags.len() < MAX_HELD_TAGS || self.tags.contains_key(tag) {
            self.tags.insert(tag.into(), until);
        }
    }

    pub(super) fn hold_all(&mut self, until: Option<Instant>) {
        self.all_until = until;
    }

    fn is_held(&self, tag: &[u8], now: Instant) -> bool {
        let is_later = |until: &Instant| *until > now;
        self.all_until.as_ref().is_some_and(is_later) || self.tags.get(tag).is_some_and(is_later)
    }
}

/// Names chunks without an id, each with another hash.
#[derive(Debug)]
pub(crate) struct FreshIds {
    random: [u8; 16],
    next: std::sync::atomic::AtomicU64,
}

impl FreshIds {
    /// # Errors
    ///
    /// The system gives no random bytes.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        Ok(Self {
            random,
            next: std::sync::atomic::AtomicU64::new(0),
        })
    }

    fn next(&self) -> u128 {
        let number = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.random);
        bytes[16..].copy_from_slice(&number.to_be_bytes());
        XxHash3_128::oneshot(&bytes)
    }
}

/// What all splits of one instance share.
#[derive(Debug)]
pub(crate) struct SplitContext<'a> {
    /// Seats of the members, of which the first is this instance.
    pub(crate) seats: &'a [Seat],
    pub(crate) fresh: &'a FreshIds,
    pub(crate) held: &'a std::sync::Mutex<HeldTags>,
    /// Now, Unix µs.
    pub(crate) received: i64,
}

impl Splitter {
    pub(crate) fn new(settings: &SplitSettings) -> Self {
        Self {
            settings: settings.clone(),
            finder: IdFinder::new(&settings.ids),
            decompressor: Decompressor::new(),
            builders: Vec::new(),
        }
    }

    /// Splits the messages of a run, as they would be stored.
    pub(crate) fn split(&mut self, run: &[u8], context: &SplitContext<'_>) -> SplitRun {
        let mut out = SplitRun::default();
        for (ordinal, message) in (0..).zip(messages(run, self.settings.frame)) {
            let message = match message {
                Ok(message) => message,
                Err(refused) => {
                    out.whole.extend_from_slice(refused.bytes);
                    continue;
                }
            };
            match self.message(&message, ordinal, context) {
                Ok(Some(split)) => out.append(split),
                Ok(None) => out.whole.extend_from_slice(message.bytes),
                Err(kept) => {
                    out.indivisible.push(kept);
                    out.whole.extend_from_slice(message.bytes);
                }
            }
        }
        out
    }

    /// Splits a message; `None`: all of its records stay.
    fn message(
        &mut self,
        message: &Message<'_>,
        ordinal: i64,
        context: &SplitContext<'_>,
    ) -> Result<Option<SplitRun>, Kept> {
        if message.nested.is_some() {
            return Err(Kept::Indivisible);
        }
        if lock(context.held).is_held(message.tag, Instant::now()) {
            return Err(Kept::PartOfLine);
        }
        let depth = self.settings.ids.max_depth();
        let chunk = message.options.chunk;
        // The hash of the body as it came, compressed or not: as gathering the whole chunk would.
        let identity = |fresh: &FreshIds| Identity {
            chunk: match chunk {
                Some(chunk) => PartId::of_chunk(message.tag, chunk, message.body).0,
                None => fresh.next(),
            },
            section: 0,
            received: context.received.saturating_add(ordinal),
        };
        let split = match message.payload(depth) {
            Payload::Opaque(_) => return Ok(None),
            Payload::Entries(entries) => {
                let single = (message.mode == Mode::Message).then_some(message.options.metadata);
                self.entries(message.tag, message.body, entries, single, identity, context)
            }
            Payload::Compressed { compression, bytes } => {
                let plain = self.decompressor.decompress(compression, bytes, MAX_SPLIT_BYTES);
                let plain = plain.map_err(|_| Kept::TooLarge)?;
                if plain.damage.is_some() {
                    return Err(Kept::Indivisible);
                }
                let entries = Entries::new(&plain.bytes, depth);
                self.entries(message.tag, &plain.bytes, entries, None, identity, context)
            }
        };
        self.builders.clear();
        split.map_err(|indivisible| match indivisible {
            Indivisible::PartOfLine => {
                let until = Instant::now() + self.settings.line_timeout;
                lock(context.held).hold(message.tag, until);
                Kept::PartOfLine
            }
            Indivisible::BadEntry => Kept::Indivisible,
        })
    }

    /// Splits entries. `single`: of a message with one event, its metadata.
    fn entries<'a>(
        &mut self,
        tag: &[u8],
        bytes: &'a [u8],
        entries: Entries<'a>,
        single: Option<Option<&[u8]>>,
        identity: impl FnOnce(&FreshIds) -> Identity,
        context: &SplitContext<'_>,
    ) -> Result<Option<SplitRun>, Indivisible> {
        let seats = context.seats;
        let Self {
            settings,
            finder,
            builders,
            ..
        } = self;
        builders.clear();
        builders.resize_with(seats.len(), || None);
        let mut out = SplitRun::default();
        let mut identity = Some(identity);
        let mut known: Option<Identity> = None;
        let (mut section_bytes, mut section, mut position) = (0usize, 0u32, 0u32);
        let mut last: (Vec<u8>, usize) = (Vec::new(), OWN);
        let mut is_split = false;
        finder.walk(bytes, entries, |found| {
            // As gathering cuts the chunk.
            if section_bytes + found.cost > settings.max_part_bytes && section_bytes > 0 {
                let known = known
                    .get_or_insert_with(|| identity.take().map_or(EMPTY, |identity| identity(context.fresh)));
                out.finish(builders, tag, &Identity { section, ..*known });
                (section, section_bytes) = (section + 1, 0);
            }
            section_bytes += found.cost;
            let seat = match found.id {
                None => OWN,
                Some(id) if id == last.0 => last.1,
                Some(id) => {
                    last.0.clear();
                    last.0.extend_from_slice(id);
                    last.1 = owner(id, seats);
                    last.1
                }
            };
            is_split |= seat != OWN;
            let entry = bytes.get(found.entry).unwrap_or_default();
            if let Some(slot) = builders.get_mut(seat) {
                let building = slot.get_or_insert_with(|| Building {
                    share: ShareBuilder::new(),
                    group: None,
                });
                building.enter(found.group);
                match single {
                    None => building.share.entries.extend_from_slice(entry),
                    Some(metadata) => {
                        write_single(&mut building.share.entries, entry, found.record_bytes, metadata);
                    }
                }
                building.share.count(position);
            }
            position = position.wrapping_add(1);
        })?;
        if !is_split {
            return Ok(None);
        }
        let known = known.or_else(|| identity.take().map(|identity| identity(context.fresh)));
        let known = known.unwrap_or(EMPTY);
        out.finish(builders, tag, &Identity { section, ..known });
        Ok(Some(out))
    }
}

/// Never used: an identity is made before it is needed.
const EMPTY: Identity = Identity {
    chunk: 0,
    section: 0,
    received: 0,
};

impl Building {
    /// Writes the markers between the group of the last record and that of the next.
    fn enter(&mut self, group: Option<Group<'_>>) {
        let address = group.map(|group| group.attributes.as_ptr().addr());
        if address == self.group {
            return;
        }
        self.leave();
        if let Some(group) = group {
            let entries = &mut self.share.entries;
            entries.extend_from_slice(b"\x92\x92\xd7\x00\xff\xff\xff\xff\x00\x00\x00\x00");
            match group.metadata {
                [] => write_map_len(entries, 0),
                metadata => entries.extend_from_slice(metadata),
            }
            entries.extend_from_slice(group.attributes);
            self.group = address;
        }
    }

    /// Closes the open group, if there is one.
    fn leave(&mut self) {
        if self.group.take().is_some() {
            let end = b"\x92\x92\xd7\x00\xff\xff\xff\xfe\x00\x00\x00\x00\x80\x80";
            self.share.entries.extend_from_slice(end);
        }
    }
}

/// Writes the event of a message with one event as an entry. `body` is its time and its record.
fn write_single(out: &mut Vec<u8>, body: &[u8], record_bytes: usize, metadata: Option<&[u8]>) {
    let (time, record) = body.split_at(body.len().saturating_sub(record_bytes));
    out.push(0x92);
    if let Some(metadata) = metadata {
        out.push(0x92);
        out.extend_from_slice(time);
        out.extend_from_slice(metadata);
    } else {
        out.extend_from_slice(time);
    }
    out.extend_from_slice(record);
}

impl SplitRun {
    /// Whether no record leaves this instance.
    pub(crate) fn is_whole(&self) -> bool {
        self.others.is_empty()
    }

    fn append(&mut self, other: Self) {
        self.kept.extend_from_slice(&other.kept);
        for (owner, share) in other.others {
            let known = self.others.entry(owner).or_default();
            known.bytes.extend_from_slice(&share.bytes);
            known.records += share.records;
        }
    }

    /// Writes the shares of a section, and leaves the builders empty.
    fn finish(&mut self, builders: &mut [Option<Building>], tag: &[u8], identity: &Identity) {
        for (owner, building) in builders.iter_mut().enumerate() {
            let Some(mut building) = building.take() else {
                continue;
            };
            building.leave();
            if owner == OWN {
                building.share.write(&mut self.kept, tag, identity);
                continue;
            }
            let share = self.others.entry(owner).or_default();
            building.share.write(&mut share.bytes, tag, identity);
            share.records += u64::from(building.share.records());
        }
    }
}

impl From<OwnerShare> for Bytes {
    fn from(share: OwnerShare) -> Self {
        share.bytes.into()
    }
}

fn lock(held: &std::sync::Mutex<HeldTags>) -> std::sync::MutexGuard<'_, HeldTags> {
    held.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
