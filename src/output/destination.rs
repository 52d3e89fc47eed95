//! Destinations: where the documents of a trace go, which is part of what a trace is.
//!
//! Owns the registry of the destinations that are in use, with a bounded number: a destination is an
//! index name without placeholders, and the outputs that take its documents. Two destinations never
//! share an index on any day: a chunk's records of one trace that were split over two documents in
//! one index could not be told apart by their union.
//!
//! Which records go where is decided in `gather`.

mod name;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::name::{IndexName, Placeholder};
pub(crate) use self::name::{MAX_DATA_STREAM_BYTES, matches_wildcard};

use super::elasticsearch::{CopyRule, IndexPattern};
use crate::config::{Config, RouteAction};

/// The number of a destination in its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DestinationId(pub u16);

impl DestinationId {
    /// That of `elasticsearch.index`, where it has no placeholders.
    pub const DEFAULT: Self = Self(0);
    /// Of a record that a route drops.
    pub const DROPPED: Self = Self(u16::MAX);
}

/// Destinations besides those of fixed names that can ever be registered.
const MAX_REGISTERED: usize = u16::MAX as usize - 1;

/// One destination.
#[derive(Debug)]
pub struct Destination {
    /// The names of its indices.
    pub(crate) indices: Arc<IndexPattern>,
    /// Bits of the outputs that take its documents.
    pub(crate) outputs: u8,
    /// Its name is that of a data stream.
    pub(crate) is_data_stream: bool,
}

/// All outputs.
pub(crate) const ALL_OUTPUTS: u8 = u8::MAX;

/// The registry of destinations.
#[derive(Debug)]
pub struct Destinations {
    known: RwLock<Vec<Arc<Destination>>>,
    default: Arc<Destination>,
    names: Mutex<Names>,
    /// The configured names, the default first.
    configured: Vec<IndexName>,
    copied: Vec<IndexName>,
    copies: Vec<CopyRule>,
    max: usize,
    warned: AtomicBool,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<String, DestinationId>,
    /// Those that values of records made.
    made: usize,
}

/// A registered destination, or that of the fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) id: DestinationId,
    /// The limit is reached, or the name could be that of another destination on some day.
    pub(crate) is_fallback: bool,
}

impl Destinations {
    /// The destinations of the configuration.
    ///
    /// # Errors
    /// A message for the operator.
    pub fn of(config: &Config) -> Result<Self, String> {
        let default = (&config.elasticsearch.index, config.elasticsearch.data_stream);
        let new = Self::single(default.0, default.1)?.bounded(config.elasticsearch.max_destinations);
        let routes = config.routes.iter().filter_map(|route| match &route.action {
            RouteAction::Drop => None,
            RouteAction::Write {
                index: Some(index),
                data_stream,
                outputs,
            } => Some(((index, *data_stream), outputs)),
            RouteAction::Write { outputs, .. } => Some((default, outputs)),
        });
        let mut made = new;
        for ((index, is_data_stream), outputs) in routes {
            let name =
                IndexName::of(index, is_data_stream).map_err(|what| format!("index {index:?}: {what}"))?;
            let outputs = config.output_bits(outputs);
            made.register_fixed(&name, outputs)?;
            made.configured.push(name);
        }
        for copy in &config.copies {
            let name = IndexName::of(&copy.index, copy.data_stream)
                .map_err(|what| format!("index {:?}: {what}", copy.index))?;
            // In one index with the documents of a route, a copy could not be told from them.
            if made.names().by_name.contains_key(&name.fallback()) && !made.copied.contains(&name) {
                return Err(format!(
                    "copies with the index {:?} would be among other documents; give them another index",
                    copy.index
                ));
            }
            let destination = made.register_fixed(&name, ALL_OUTPUTS)?;
            made.copies.push(CopyRule {
                when: copy.when.clone(),
                destination,
            });
            made.copied.push(name);
        }
        Ok(made)
    }

    /// One destination.
    ///
    /// # Errors
    /// A message for the operator.
    pub(crate) fn single(index: &str, is_data_stream: bool) -> Result<Self, String> {
        let name = IndexName::of(index, is_data_stream).map_err(|what| format!("index {index:?}: {what}"))?;
        let fallback = name.fallback();
        let default = Arc::new(Destination {
            indices: Arc::new(IndexPattern::parse(&fallback)?),
            outputs: ALL_OUTPUTS,
            is_data_stream,
        });
        let names = Names {
            by_name: [(fallback, DestinationId::DEFAULT)].into(),
            made: 0,
        };
        Ok(Self {
            known: RwLock::new(vec![Arc::clone(&default)]),
            default,
            names: Mutex::new(names),
            configured: vec![name],
            copied: Vec::new(),
            copies: Vec::new(),
            max: MAX_REGISTERED,
            warned: AtomicBool::new(false),
        })
    }

    fn bounded(mut self, max: u64) -> Self {
        self.max = usize::try_from(max).unwrap_or(MAX_REGISTERED).min(MAX_REGISTERED);
        self
    }

    /// Registers the name that a configured one has with its fallbacks.
    fn register_fixed(&self, name: &IndexName, outputs: u8) -> Result<DestinationId, String> {
        let mut names = self.names();
        let is_data_stream = name.is_data_stream();
        let name = name.fallback();
        if let Some(id) = names.by_name.get(&name) {
            if self.get(*id).is_data_stream != is_data_stream {
                return Err(format!("{name:?} is named as an index and as a data stream"));
            }
            if self.get(*id).outputs != outputs {
                return Err(format!(
                    "routes with the index {name:?} have different outputs; give one of them another index"
                ));
            }
            return Ok(*id);
        }
        if let Some(other) = Self::collides(&names, &name) {
            return Err(format!(
                "the indices {name:?} and {other:?} can be the same on some day; give one of them another name"
            ));
        }
        self.add(&mut names, name, outputs, is_data_stream)
    }

    /// The destination of a configured name with these values. Not for names without placeholders
    /// on a hot path.
    pub(crate) fn register<'v>(
        &self,
        name: &IndexName,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        outputs: u8,
    ) -> Registered {
        let resolved = name.resolve(values);
        let mut names = self.names();
        let fallback = |names: &Names| Registered {
            id: names.by_name.get(&name.fallback()).copied().unwrap_or_default(),
            is_fallback: true,
        };
        if let Some(id) = names.by_name.get(&resolved) {
            // The same name for other outputs: its documents would be those of the first.
            let known = self.get(*id);
            if known.outputs == outputs && known.is_data_stream == name.is_data_stream() {
                return Registered {
                    id: *id,
                    is_fallback: false,
                };
            }
            return fallback(&names);
        }
        if names.made >= self.max {
            if !self.warned.swap(true, Relaxed) {
                tracing::warn!(
                    limit = self.max, index = %resolved,
                    "elasticsearch.max_destinations is reached: documents of further index names go to the fallback"
                );
            }
            return fallback(&names);
        }
        if let Some(other) = Self::collides(&names, &resolved) {
            tracing::warn!(
                index = %resolved, %other,
                "an index name from the values of a record can be that of another destination on some day; its documents go to the fallback"
            );
            return fallback(&names);
        }
        match self.add(&mut names, resolved, outputs, name.is_data_stream()) {
            Ok(id) => {
                names.made += 1;
                Registered {
                    id,
                    is_fallback: false,
                }
            }
            Err(_) => fallback(&names),
        }
    }

    /// The destination with this name, which is registered if need be: that of a document which
    /// waited on disk.
    pub(crate) fn named(&self, name: &str) -> Option<DestinationId> {
        let mut names = self.names();
        if let Some(id) = names.by_name.get(name) {
            return Some(*id);
        }
        let mut streams = self
            .configured
            .iter()
            .chain(&self.copied)
            .filter(|name| name.is_data_stream());
        let is_data_stream = streams.any(|stream| stream.can_make(name));
        self.add(&mut names, name.to_owned(), ALL_OUTPUTS, is_data_stream)
            .ok()
    }

    /// A name that is another one and can be equal to `name` on some day.
    fn collides(names: &Names, name: &str) -> Option<String> {
        let mut known = names.by_name.keys();
        known
            .find(|known| *known != name && name::can_be_equal(known, name))
            .cloned()
    }

    fn add(
        &self,
        names: &mut Names,
        name: String,
        outputs: u8,
        is_data_stream: bool,
    ) -> Result<DestinationId, String> {
        let indices = Arc::new(IndexPattern::parse(&name)?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REGISTERED {
            return Err("too many destinations".into());
        }
        let id = DestinationId(known.len() as u16);
        known.push(Arc::new(Destination {
            indices,
            outputs,
            is_data_stream,
        }));
        names.by_name.insert(name, id);
        Ok(id)
    }

    /// A destination; the default for a number that is none.
    pub(crate) fn get(&self, id: DestinationId) -> Arc<Destination> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(usize::from(id.0));
        Arc::clone(found.unwrap_or(&self.default))
    }

    /// The names of the indices of a destination.
    pub(crate) fn indices(&self, id: DestinationId) -> Arc<IndexPattern> {
        Arc::clone(&self.get(id).indices)
    }

    /// The name of a destination other than the default.
    pub(crate) fn name(&self, id: DestinationId) -> Option<String> {
        (id != DestinationId::DEFAULT).then(|| self.get(id).indices.text().to_owned())
    }

    /// The copies that are made.
    pub(crate) fn copies(&self) -> &[CopyRule] {
        &self.copies
    }

    /// [`Self::wildcards`], with those of copies: of indices, or of data streams.
    pub(crate) fn all_wildcards(&self, data_streams: bool) -> Vec<String> {
        let all = self.configured.iter().chain(&self.copied);
        Self::unique(all.filter(|name| name.is_data_stream() == data_streams))
    }

    /// The first configured name of an index, or of a data stream, with every fallback.
    pub(crate) fn example(&self, data_streams: bool) -> Option<String> {
        let mut all = self.configured.iter().chain(&self.copied);
        let first = all.find(|name| name.is_data_stream() == data_streams)?;
        Some(first.fallback())
    }

    /// The configured names with `*` in place of placeholders, for templates and searches; each once.
    pub(crate) fn wildcards(&self) -> Vec<String> {
        Self::unique(self.configured.iter())
    }

    fn unique<'n>(names: impl Iterator<Item = &'n IndexName>) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in names {
            let wildcard = name.wildcard();
            if !all.contains(&wildcard) {
                all.push(wildcard);
            }
        }
        all
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'v>(text: &'v [&'v str]) -> impl Iterator<Item = Option<&'v [u8]>> {
        text.iter().map(|text| Some(text.as_bytes()))
    }

    #[test]
    fn a_name_is_one_destination_and_their_number_is_bounded() {
        let name = IndexName::parse("logs-{ns}-%Y").unwrap();
        let all = Destinations::single("logs-{ns}-%Y", false).unwrap().bounded(2);
        let of = |value: &str| all.register(&name, values(&[value]), ALL_OUTPUTS);
        let own = |id| Registered {
            id: DestinationId(id),
            is_fallback: false,
        };
        assert_eq!(of("none"), own(0), "what is missing goes to the fallback");
        assert_eq!((of("a"), of("b"), of("A")), (own(1), own(2), own(1)));
        let fallback = Registered {
            id: DestinationId::DEFAULT,
            is_fallback: true,
        };
        assert_eq!((of("c"), of("b")), (fallback, own(2)));
        assert_eq!(&*all.indices(DestinationId(2)).of(0).index, "logs-b-1970");
        assert_eq!(all.name(DestinationId(1)).as_deref(), Some("logs-a-%Y"));
        assert_eq!(all.name(DestinationId::DEFAULT), None);
        assert_eq!(all.wildcards(), ["logs-*-%Y"]);
        // What waited on disk goes where it was meant to go.
        let later = all.named("logs-z-%Y").unwrap();
        assert_eq!(all.name(later).as_deref(), Some("logs-z-%Y"));
    }

    #[test]
    fn a_value_cannot_make_the_name_of_another_destination() {
        let all = Destinations::single("logs-%Y", false).unwrap();
        let name = IndexName::parse("logs-{ns}").unwrap();
        all.register_fixed(&name, ALL_OUTPUTS).unwrap();
        let made = all.register(&name, values(&["2026"]), ALL_OUTPUTS);
        assert_eq!(all.name(made.id).as_deref(), Some("logs-none"));
        assert!(made.is_fallback);
        let same = IndexName::parse("logs-2026").unwrap();
        assert!(
            all.register_fixed(&same, ALL_OUTPUTS)
                .unwrap_err()
                .contains("on some day")
        );
        assert!(
            all.register_fixed(&name, 1)
                .unwrap_err()
                .contains("different outputs")
        );
    }
}
