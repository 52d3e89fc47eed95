//! The services of a document, sorted, and which of them wrote each line.
//!
//! A document has the 64 smallest names: a rule that does not depend on the order in which lines
//! arrive and documents are merged.

use std::borrow::Cow;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::content::{JoinedView, Line};
use super::render::NextPositions;
use super::state::{StateWriter, decode_lines};
use super::windrow_object::MAX_SERVICES;
use crate::open::line_context::LineContextView;

/// The services of joined records.
pub(super) struct JoinedServices<'a> {
    pub(super) sorted: SmallVec<[Cow<'a, str>; 2]>,
    /// The indices in `sorted` in the order of their first lines.
    numbers: SmallVec<[u32; 8]>,
    /// Whether the numbers in the line states are the indices.
    pub(super) is_in_order: bool,
}

/// The service of the last document that had only one. Most documents have one of a few, and to
/// compare takes less than to look for what is invalid.
#[derive(Debug, Default)]
pub(super) struct LastService(String);

impl LastService {
    /// The name as valid text.
    #[inline]
    fn text(&mut self, name: &[u8]) -> &str {
        if self.0.as_bytes() != name {
            self.replace(name);
        }
        &self.0
    }

    #[inline(never)]
    fn replace(&mut self, name: &[u8]) {
        self.0.clear();
        self.0.push_str(&String::from_utf8_lossy(name));
    }
}

impl<'a> JoinedServices<'a> {
    #[inline]
    pub(super) fn of(context: &LineContextView<'a>, last_service: &'a mut LastService) -> Self {
        let mut names = context.services_reversed();
        let last = names.next();
        if names.next().is_some() {
            return Self::several(context);
        }
        let mut sorted = SmallVec::new();
        if let Some(last) = last {
            sorted.push(Cow::Borrowed(last_service.text(last)));
        }
        Self {
            sorted,
            numbers: SmallVec::new(),
            is_in_order: true,
        }
    }

    #[inline(never)]
    fn several(context: &LineContextView<'a>) -> Self {
        let mut names: SmallVec<[Cow<'a, str>; 2]> =
            context.services_reversed().map(String::from_utf8_lossy).collect();
        names.reverse();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let number = |name| sorted.binary_search(name).unwrap_or_default() as u32;
        let numbers: SmallVec<[u32; 8]> = names.iter().map(number).collect();
        Self {
            is_in_order: numbers.iter().zip(0..).all(|(number, at)| *number == at),
            numbers,
            sorted,
        }
    }

    /// Writes the line states with the indices in place of the numbers.
    pub(super) fn write_lines(&self, writer: &mut StateWriter<'_>, view: &JoinedView<'_>, parts: usize) {
        writer.begin_lines(view.count, view.time_unit);
        let mut next_positions = NextPositions::new(parts);
        for mut line in decode_lines(view.line_states, view.time_unit) {
            line.service = line
                .service
                .and_then(|number| self.numbers.get(number as usize).copied());
            writer.line(&line, next_positions.next(line.part, line.position));
        }
    }
}

/// The services of lines.
pub(super) struct LineServices<'a> {
    pub(super) sorted: Vec<Cow<'a, str>>,
    /// For each line the index of its service.
    pub(super) of_lines: Vec<Option<u32>>,
}

impl<'a> LineServices<'a> {
    pub(super) fn of(buffer: &'a [u8], lines: &[Line]) -> Self {
        let services = lines.iter().map(|line| line.service.of(buffer));
        let mut numbers: BTreeMap<Cow<'a, str>, u32> = BTreeMap::new();
        let mut last: &[u8] = b"";
        for service in services.clone() {
            if !service.is_empty() && service != last {
                last = service;
                numbers.insert(String::from_utf8_lossy(service), 0);
                if numbers.len() > MAX_SERVICES {
                    numbers.pop_last();
                }
            }
        }
        for (number, at) in numbers.values_mut().zip(0..) {
            *number = at;
        }
        let (mut last, mut number): (&[u8], _) = (b"", None);
        let of_lines = services.map(|service| {
            if service != last {
                last = service;
                number = numbers.get(&*String::from_utf8_lossy(service)).copied();
            }
            number
        });
        Self {
            of_lines: of_lines.collect(),
            sorted: numbers.into_keys().collect(),
        }
    }
}
