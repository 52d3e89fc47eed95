//! Router: decides the destination of each record, from the routes of the configuration.
//!
//! Owns the compiled conditions and placeholders. The names of the fields that they need are captured
//! in the walk that classifies a record, so that a record of a known shape is not walked again. The
//! last decision is remembered with the captured values, which are equal for all lines of one
//! container, so that most records cost one comparison.

#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use forward_protocol::entries::{Group, Key, MapPairs};

use super::classifier::{Captured, Classification};
use crate::config::{Condition, Config, ENVIRONMENT_NAMES, NAMESPACE_NAMES, Predicate, RouteAction};
use crate::output::{ALL_OUTPUTS, DestinationId, Destinations, IndexName};
use windrow_trace::{
    EntryMetadata, MadeId, RecordView, Severity, Token, as_text, find_below, read_token, write_json_value,
};

/// Fields that can be captured.
const MAX_CAPTURED: usize = 250;
/// Levels, and none.
const LEVELS: usize = 7;

/// Where a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Routed {
    pub(super) destination: DestinationId,
    /// Not where its values say, for lack of destinations.
    pub(super) is_fallback: bool,
}

/// The compiled routes.
pub(crate) struct Router {
    routes: Vec<CompiledRoute>,
    destinations: Arc<Destinations>,
    /// Names of the fields that are captured; the number of a field is its position, from 1 on.
    captured: Vec<String>,
    /// A decision depends on tag, level and captured fields only.
    is_memorable: bool,
    memo: Memo,
}

struct CompiledRoute {
    when: Vec<Vec<CompiledCondition>>,
    target: Target,
}

enum Target {
    Drop,
    /// A name without placeholders.
    Fixed(DestinationId),
    Made {
        name: IndexName,
        subjects: Vec<Subject>,
        outputs: u8,
    },
}

struct CompiledCondition {
    subject: Subject,
    test: Predicate,
}

/// What a condition or placeholder reads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Tag,
    Level,
    Service,
    Text,
    /// The first of these paths that has a value.
    Field(Vec<String>),
}

/// The last decision, by level, and what it depended on.
#[derive(Default)]
struct Memo {
    tag: Option<Arc<str>>,
    /// Numbers and ends of the captured values in `bytes`.
    ends: Vec<(u8, usize)>,
    bytes: Vec<u8>,
    by_level: [Option<Routed>; LEVELS],
}

/// One record.
pub(super) struct Routable<'r, 'a> {
    pub(super) tag: &'r Arc<str>,
    pub(super) record: &'a [u8],
    pub(super) classification: &'r Classification<'a>,
    pub(super) metadata: Option<&'a [u8]>,
    pub(super) group: Option<Group<'a>>,
}

impl Subject {
    fn of(name: &str) -> Self {
        let paths = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        match name {
            "tag" => Self::Tag,
            "level" => Self::Level,
            "service" => Self::Service,
            "namespace" => Self::Field(paths(&NAMESPACE_NAMES)),
            "environment" => Self::Field(paths(&ENVIRONMENT_NAMES)),
            path => Self::Field(paths(&[path])),
        }
    }
}

impl Router {
    /// Compiles the routes; `None` without any, if `elasticsearch.index` has no placeholders.
    pub(crate) fn new(config: &Config, destinations: &Arc<Destinations>) -> Option<Self> {
        let default = (&config.elasticsearch.index, config.elasticsearch.data_stream);
        // The configuration has checked all names.
        let default_name = IndexName::of(default.0, default.1).ok()?;
        if config.routes.is_empty() && !default_name.has_placeholders() {
            return None;
        }
        let made = |name: IndexName, outputs| {
            if name.has_placeholders() {
                let subjects = name
                    .placeholders()
                    .map(|placeholder| Subject::of(&placeholder.field));
                Target::Made {
                    subjects: subjects.collect(),
                    name,
                    outputs,
                }
            } else {
                let id = destinations.register(&name, std::iter::empty(), outputs).id;
                Target::Fixed(id)
            }
        };
        let compile = |condition: &Condition| CompiledCondition {
            subject: condition.field.as_deref().map_or(Subject::Text, Subject::of),
            test: condition.test.clone(),
        };
        let mut routes = Vec::new();
        for route in &config.routes {
            let all = |all: &Vec<Condition>| all.iter().map(compile).collect();
            let target = match &route.action {
                RouteAction::Drop => Target::Drop,
                RouteAction::Write {
                    index: own,
                    data_stream,
                    outputs,
                } => {
                    let own = own.as_ref().map(|own| (own, *data_stream));
                    let (index, is_data_stream) = own.unwrap_or(default);
                    let name = IndexName::of(index, is_data_stream).ok()?;
                    made(name, config.output_bits(outputs))
                }
            };
            routes.push(CompiledRoute {
                when: route.when.0.iter().map(all).collect(),
                target,
            });
        }
        routes.push(CompiledRoute {
            when: Vec::new(),
            target: made(default_name, ALL_OUTPUTS),
        });
        Some(Self::compiled(routes, destinations))
    }

    fn compiled(routes: Vec<CompiledRoute>, destinations: &Arc<Destinations>) -> Self {
        let mut captured: Vec<String> = Vec::new();
        let mut is_memorable = true;
        for route in &routes {
            let conditions = route.when.iter().flatten().map(|condition| &condition.subject);
            let placeholders = match &route.target {
                Target::Made { subjects, .. } => &subjects[..],
                Target::Drop | Target::Fixed(_) => &[],
            };
            for subject in conditions.chain(placeholders) {
                let Subject::Field(paths) = subject else {
                    is_memorable &= !matches!(subject, Subject::Service | Subject::Text);
                    continue;
                };
                for root in paths.iter().flat_map(|path| roots(path)) {
                    if !captured.iter().any(|known| known == root) {
                        captured.push(root.to_owned());
                    }
                }
            }
        }
        is_memorable &= captured.len() <= MAX_CAPTURED;
        captured.truncate(MAX_CAPTURED);
        Self {
            routes,
            destinations: Arc::clone(destinations),
            captured,
            is_memorable,
            memo: Memo::default(),
        }
    }

    /// The registry of its destinations.
    pub(super) fn destinations(&self) -> Arc<Destinations> {
        Arc::clone(&self.destinations)
    }

    /// Names of the fields whose values are captured.
    pub(super) fn captured_names(&self) -> Vec<String> {
        self.captured.clone()
    }

    /// The destination of a record of a known shape without metadata, whose values were captured.
    #[inline]
    pub(super) fn route<'a>(
        &mut self,
        routable: &Routable<'_, 'a>,
        captured: &Captured<'a>,
        view: &RecordView,
    ) -> Routed {
        let level = level_number(routable.classification);
        if self.is_memorable
            && self.memo.fits(routable.tag, captured)
            && let Some(Some(routed)) = self.memo.by_level.get(level)
        {
            return *routed;
        }
        self.decide(routable, Some(captured), view)
    }

    /// The destination of any record.
    #[cold]
    #[inline(never)]
    pub(super) fn route_slowly(&mut self, routable: &Routable<'_, '_>, view: &RecordView) -> Routed {
        self.decide(routable, None, view)
    }

    #[inline(never)]
    fn decide<'a>(
        &mut self,
        routable: &Routable<'_, 'a>,
        captured: Option<&Captured<'a>>,
        view: &RecordView,
    ) -> Routed {
        let reader = Reader {
            routable,
            names: &self.captured,
            captured,
            view,
        };
        let matching = self.routes.iter().find(|route| {
            let holds = |all: &Vec<CompiledCondition>| all.iter().all(|condition| reader.passes(condition));
            route.when.is_empty() || route.when.iter().any(holds)
        });
        let to = |destination| Routed {
            destination,
            is_fallback: false,
        };
        // The last route is for all records.
        let routed = match matching.map(|route| &route.target) {
            None => to(DestinationId::DEFAULT),
            Some(Target::Drop) => to(DestinationId::DROPPED),
            Some(Target::Fixed(id)) => to(*id),
            Some(Target::Made {
                name,
                subjects,
                outputs,
            }) => {
                let values: Vec<_> = subjects.iter().map(|subject| reader.text(subject)).collect();
                let values = values.iter().map(Option::as_deref);
                let registered = self.destinations.register(name, values, *outputs);
                Routed {
                    destination: registered.id,
                    is_fallback: registered.is_fallback,
                }
            }
        };
        if let Some(captured) = captured
            && self.is_memorable
        {
            let level = level_number(routable.classification);
            self.memo.remember(routable.tag, captured, level, routed);
        }
        routed
    }
}

fn level_number(classification: &Classification<'_>) -> usize {
    classification.facts.level.map_or(0, |level| level as usize)
}

impl Memo {
    #[inline]
    fn fits(&self, tag: &Arc<str>, captured: &Captured<'_>) -> bool {
        let is_tag = self.tag.as_ref().is_some_and(|known| Arc::ptr_eq(known, tag));
        if !is_tag || self.ends.len() != captured.len() {
            return false;
        }
        let mut start = 0;
        self.ends
            .iter()
            .zip(captured)
            .all(|(&(number, end), &(other, value))| {
                let known = self.bytes.get(start..end);
                start = end;
                number == other && known == Some(value)
            })
    }

    fn remember(&mut self, tag: &Arc<str>, captured: &Captured<'_>, level: usize, routed: Routed) {
        if !self.fits(tag, captured) {
            self.tag = Some(Arc::clone(tag));
            self.ends.clear();
            self.bytes.clear();
            for (number, value) in captured {
                self.bytes.extend_from_slice(value);
                self.ends.push((*number, self.bytes.len()));
            }
            self.by_level = [None; LEVELS];
        }
        if let Some(known) = self.by_level.get_mut(level) {
            *known = Some(routed);
        }
    }
}

/// Reads subjects of one record.
struct Reader<'r, 'a> {
    routable: &'r Routable<'r, 'a>,
    names: &'r [String],
    /// The captured values; without them the record is walked.
    captured: Option<&'r Captured<'a>>,
    view: &'r RecordView,
}

impl<'a> Reader<'_, 'a> {
    fn passes(&self, condition: &CompiledCondition) -> bool {
        let CompiledCondition { subject, test } = condition;
        match (subject, test) {
            (subject, Predicate::Exists(wanted)) => self.text(subject).is_some() == *wanted,
            (Subject::Level, Predicate::AtLeast(least)) => self.level().is_some_and(|level| level >= *least),
            (Subject::Field(paths), Predicate::AtLeast(least)) => {
                let mut found = paths.iter().filter_map(|path| Some((path, self.value(path)?)));
                let level = found
                    .next()
                    .and_then(|(path, value)| Severity::of_field(path, value));
                level.is_some_and(|level| level >= *least)
            }
            (Subject::Level, test) => {
                let texts = |text: &str| match test {
                    // A level has several names.
                    Predicate::Equals(text) => Severity::from_text(text.as_bytes()) == self.level(),
                    Predicate::OneOf(texts) => texts
                        .iter()
                        .any(|text| Severity::from_text(text.as_bytes()) == self.level()),
                    test => test.passes(text.as_bytes()),
                };
                self.level().is_some_and(|level| texts(level.as_str()))
            }
            (subject, test) => self.text(subject).is_some_and(|text| test.passes(&text)),
        }
    }

    fn level(&self) -> Option<Severity> {
        self.routable.classification.facts.level
    }

    /// The text of a subject; of a number as it is written in JSON.
    fn text(&self, subject: &Subject) -> Option<Vec<u8>> {
        let facts = &self.routable.classification.facts;
        match subject {
            Subject::Tag => Some(self.routable.tag.as_bytes().to_vec()),
            Subject::Level => self.level().map(|level| level.as_str().into()),
            Subject::Service => facts.service.map(<[u8]>::to_vec),
            Subject::Text => match facts.text {
                Some(text) => Some(self.view.clean(text).into_owned()),
                None => {
                    let found = self.view.read(self.routable.record, &mut MadeId::default());
                    found.field_text(self.view).map(std::borrow::Cow::into_owned)
                }
            },
            Subject::Field(paths) => paths.iter().find_map(|path| text_of(self.value(path)?)),
        }
    }

    /// The value at a path: in the record, else in the metadata of the entry and of its group.
    fn value(&self, path: &str) -> Option<&'a [u8]> {
        let in_record = roots(path).find_map(|root| {
            let value = self.field(root)?;
            match path.get(root.len() + 1..) {
                None => Some(value),
                Some(below) => find_below(value, below.as_bytes()),
            }
        });
        in_record.or_else(|| {
            let Routable { metadata, group, .. } = self.routable;
            let metadata = EntryMetadata {
                own: metadata.unwrap_or_default(),
                group: group.map_or(&[], |group| group.metadata),
                attributes: group.map_or(&[], |group| group.attributes),
            };
            if metadata.own.is_empty() && metadata.group.is_empty() && metadata.attributes.is_empty() {
                return None;
            }
            let of_resource = |head: &str| {
                let path = format!("{head}.{path}");
                find_below(metadata.attributes, path.as_bytes())
            };
            find_below(metadata.own, path.as_bytes())
                .or_else(|| of_resource("resource.attributes"))
                .or_else(|| of_resource("resource"))
                .or_else(|| find_below(metadata.attributes, path.as_bytes()))
                .or_else(|| find_below(metadata.group, path.as_bytes()))
        })
    }

    /// The field with this name. Of equal names the last one counts.
    fn field(&self, name: &str) -> Option<&'a [u8]> {
        let Some(captured) = self.captured else {
            let named = MapPairs::new(self.routable.record).filter(|pair| match pair.key {
                Key::Text(text) => text == name.as_bytes(),
                Key::Other(_) => false,
            });
            return named.last().map(|pair| pair.value);
        };
        let number = self.names.iter().position(|known| known == name)? + 1;
        let mut named = captured
            .iter()
            .rev()
            .filter(|(known, _)| usize::from(*known) == number);
        named.next().map(|(_, value)| *value)
    }
}

/// The names of fields below which a path may be: the whole path first.
fn roots(path: &str) -> impl Iterator<Item = &str> {
    let dots = path.match_indices('.').map(|(at, _)| at).rev();
    std::iter::once(path.len())
        .chain(dots)
        .filter_map(|end| path.get(..end))
}

/// The text of a value that is no map, no list and not nil.
fn text_of(value: &[u8]) -> Option<Vec<u8>> {
    let (token, _) = read_token(value, 0)?;
    if let Some(text) = as_text(token) {
        return (!text.is_empty()).then(|| text.to_vec());
    }
    match token {
        Token::Nil | Token::Map(_) | Token::Array(_) => None,
        _ => {
            let mut text = Vec::new();
            write_json_value(&mut text, value, 0);
            Some(text)
        }
    }
}
