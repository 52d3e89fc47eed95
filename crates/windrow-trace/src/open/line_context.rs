//! What joined records keep of their lines besides time and text: the services, and the level
//! fields of the worst line.
//!
//! Stored at the end of the state area of `JoinedRecords`, in front of the text:
//!
//! ```text
//! ... free | fields of the worst line, if that is not the newest | services, the last one first
//! ```

use crate::document::state::LineState;
use crate::part::PartId;

/// Maximum number of services. A trace with more is converted to lines: service and level of a line
/// are one byte.
const MAX_SERVICES: u8 = 15;
/// Maximum bytes of the fields of the worst line. A trace with longer ones is converted to lines.
pub(super) const MAX_WORST_BYTES: usize = 1 << 12;
/// Maximum bytes of the name of a service. Longer ones are cut.
const MAX_SERVICE_BYTES: usize = u8::MAX as usize;

/// Lengths and places of what is stored, and what is known of the last and the worst line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineContextMeta {
    /// Number of the worst line, if it is not the newest.
    pub(super) worst_line: u32,
    /// Bytes of its fields, a MessagePack map. 0 if it is the newest line.
    pub(super) worst_bytes: u16,
    /// Bytes of all services, each with its length.
    services_bytes: u16,
    /// Distance from the end of the state area to the service of the last line that had one.
    service_at: u16,
    service_len: u8,
    /// Number of services.
    services: u8,
    pub(super) worst_level: u8,
    /// Whether the shape has fields whose value is that of the worst line.
    pub(super) tracks_worst: bool,
    /// The last line is as bad as the worst and as new, but comes before it in the order of parts.
    pub(super) lost_tie: bool,
    /// Not all lines have the same level.
    pub(super) mixed_levels: bool,
}

/// The place of a service in the state area.
#[derive(Clone, Copy, Debug)]
pub(super) enum FoundService {
    /// At this number.
    Known(u8),
    /// To be inserted.
    New,
    /// There are too many.
    TooMany,
}

impl LineContextMeta {
    pub(super) const EMPTY: Self = Self {
        worst_line: 0,
        worst_bytes: 0,
        services_bytes: 0,
        service_at: 0,
        service_len: 0,
        services: 0,
        worst_level: 0,
        tracks_worst: true,
        lost_tie: false,
        mixed_levels: false,
    };

    /// Bytes at the end of the state area.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        usize::from(self.worst_bytes) + usize::from(self.services_bytes)
    }

    /// Whether this is the service of the last line that had one. `area`: the state area.
    #[inline]
    pub(super) fn is_last_service(&self, area: &[u8], service: &[u8]) -> bool {
        let at = area.len().wrapping_sub(usize::from(self.service_at));
        let end = at.wrapping_add(usize::from(self.service_len));
        is_same(area.get(at..end).unwrap_or_default(), service)
    }

    /// Looks a service up, and makes it the last one if it is known.
    pub(super) fn find_service(&mut self, area: &[u8], service: &[u8]) -> FoundService {
        let stored = self.services_of(area);
        let mut at = stored.len();
        for (number, known) in (1..=self.services).rev().zip(service_names(stored)) {
            if known == service {
                (self.service_at, self.service_len) = (at as u16 - 1, known.len() as u8);
                return FoundService::Known(number - 1);
            }
            at -= known.len() + 1;
        }
        if self.services < MAX_SERVICES {
            FoundService::New
        } else {
            FoundService::TooMany
        }
    }

    /// Inserts the first service, the last line's, in front of nothing. There is room for it.
    #[inline]
    pub(super) fn insert_first_service(&mut self, area: &mut [u8], service: &[u8]) {
        let at = area.len().wrapping_sub(service.len() + 1);
        if let Some((length, place)) = area.get_mut(at..).and_then(<[u8]>::split_first_mut) {
            *length = service.len() as u8;
            place.copy_from_slice(service);
        }
        self.services_bytes = service.len() as u16 + 1;
        (self.service_at, self.service_len) = (service.len() as u16, service.len() as u8);
        self.services = 1;
    }

    /// Inserts a service, the last line's. There is room for it in the area. Returns its number.
    pub(super) fn insert_service(&mut self, area: &mut [u8], service: &[u8]) -> u8 {
        let more = service.len() + 1;
        let from = area.len() - self.bytes();
        let worst = from..from + usize::from(self.worst_bytes);
        let at = worst.end - more;
        area.copy_within(worst, from - more);
        if let Some((length, place)) = area.get_mut(at..at + more).and_then(<[u8]>::split_first_mut) {
            *length = service.len() as u8;
            place.copy_from_slice(service);
        }
        self.services_bytes += more as u16;
        (self.service_at, self.service_len) = (self.services_bytes - 1, service.len() as u8);
        self.services += 1;
        self.services - 1
    }

    /// Stores the fields of the worst line. There is room for them in the area.
    pub(super) fn put_worst(&mut self, area: &mut [u8], line: u32, fields: &[u8]) {
        self.worst_bytes = fields.len() as u16;
        self.worst_line = line;
        let at = area.len() - self.bytes();
        if let Some(place) = area.get_mut(at..at + fields.len()) {
            place.copy_from_slice(fields);
        }
    }

    fn services_of<'a>(&self, area: &'a [u8]) -> &'a [u8] {
        let at = area.len() - usize::from(self.services_bytes);
        area.get(at..).unwrap_or_default()
    }

    /// The view of what is stored at the end of `area`.
    #[inline]
    pub(super) fn view<'a>(&self, area: &'a [u8]) -> LineContextView<'a> {
        let at = area.len() - self.bytes();
        let (worst, services) = area
            .get(at..)
            .and_then(|stored| stored.split_at_checked(usize::from(self.worst_bytes)))
            .unwrap_or_default();
        LineContextView {
            services,
            worst,
            worst_line: self.worst_line,
            mixed_levels: self.mixed_levels,
        }
    }
}

/// A borrowed view of services and worst line.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LineContextView<'a> {
    services: &'a [u8],
    /// Fields of the worst line, a MessagePack map; empty if the newest line is the worst.
    pub(crate) worst: &'a [u8],
    pub(crate) worst_line: u32,
    pub(crate) mixed_levels: bool,
}

impl<'a> LineContextView<'a> {
    /// The services, the last one first.
    pub(crate) fn services_reversed(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        service_names(self.services)
    }
}

fn service_names(mut stored: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = stored.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        stored = rest;
        Some(name)
    })
}

/// Whether two names are equal. Most are short: comparing them needs no call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(a_first), Some(b_first)) if a.len() <= 16 => {
            a_first == b_first && a.last_chunk::<8>() == b.last_chunk::<8>()
        }
        _ => a == b,
    }
}

/// The name of a service as it is kept: at most 255 bytes.
#[inline]
pub(crate) fn cut_service(service: &[u8]) -> &[u8] {
    if service.len() > MAX_SERVICE_BYTES {
        cut_long_service(service)
    } else {
        service
    }
}

#[cold]
fn cut_long_service(service: &[u8]) -> &[u8] {
    let is_continued = |at: &usize| service.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let mut end = MAX_SERVICE_BYTES;
    while end > MAX_SERVICE_BYTES - 4 && is_continued(&end) {
        end -= 1;
    }
    service.get(..end).unwrap_or_default()
}

/// The order of lines that are equally bad: the newest is the worst. It does not depend on when a
/// line was received, so that it is the same in every document.
pub(crate) type WorstOrder = (i64, Option<PartId>, u32);

/// The order of a line among equally bad ones.
pub(super) fn worst_order(line: &LineState, part_id: impl Fn(u32) -> Option<PartId>) -> WorstOrder {
    (line.time, part_id(line.part), line.position)
}
