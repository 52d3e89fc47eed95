//! Names of the fields of a document. A name depends on the set of the fields alone, not on their
//! order or on who renders them, so that `union` gets the names that one renderer of all records
//! would have written.

use std::borrow::Cow;
use std::collections::HashSet;

use super::{OWN, by_path, is_below, paths, take, top_level_name};

/// A field: its name in the records, and what this name becomes where nothing else is in its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Field<'a> {
    pub(crate) original: Cow<'a, str>,
    pub(crate) natural: Cow<'a, str>,
}

impl<'a> Field<'a> {
    /// A displaced field has the name of the trace id or a text, but is none.
    pub(crate) fn new(original: Cow<'a, str>, is_displaced: bool) -> Self {
        let natural = match top_level_name(&original) {
            name if is_displaced => Cow::Owned(format!("{name}_")),
            Cow::Owned(name) => Cow::Owned(name),
            Cow::Borrowed(_) => original.clone(),
        };
        Self { original, natural }
    }
}

/// Names of fields that Windrow's index template maps as values.
pub(crate) const MAPPED: [&str; 3] = ["message", "traceId", "trace_id"];

/// Names that are values in any case: of the trace id and texts, and [`MAPPED`] ones.
pub(crate) fn value_names<'n>(more: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut names: Vec<&str> = MAPPED.into_iter().chain(more).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of distinct fields, in their order. `own` has names that are values in any case,
/// whether or not they are among the fields. `json` is the value of a field.
///
/// Fields whose name needs no change keep it; the others follow in the order of their names, and
/// get further `_` until their name is free. Then a field whose name continues an own one gives
/// way, and of two fields of which one's name continues the other's and which have one
/// path as object and value, the shorter name.
pub(crate) fn document_names<'j>(
    fields: &[Field<'_>],
    own: &[&str],
    json: impl Fn(usize) -> Cow<'j, [u8]>,
) -> Vec<String> {
    let mut order: Vec<usize> = (0..fields.len()).collect();
    order.sort_unstable_by_key(|&i| &fields[i]);
    let mut taken: HashSet<String> = OWN.iter().chain(own).map(|name| (*name).to_owned()).collect();
    let mut names = vec![String::new(); fields.len()];
    let (kept, changed): (Vec<usize>, Vec<usize>) = order
        .into_iter()
        .partition(|&i| fields[i].natural == fields[i].original);
    for &i in kept.iter().filter(|&&i| own.contains(&&*fields[i].original)) {
        taken.remove(&*fields[i].original);
    }
    for i in kept.into_iter().chain(changed.iter().copied()) {
        names[i] = take(&mut taken, fields[i].natural.clone().into_owned());
    }
    if !names
        .iter()
        .map(String::as_str)
        .chain(own.iter().copied())
        .any(|name| name.contains('.'))
    {
        return names;
    }
    let mut values: Vec<Option<Cow<'j, [u8]>>> = vec![None; fields.len()];
    loop {
        let renamed = in_the_way(&names, own, &mut values, &json);
        if renamed.is_empty() {
            return names;
        }
        for (i, name) in renamed {
            names[i] = take(&mut taken, name);
        }
    }
}

/// The fields that must give way, and how.
fn in_the_way<'j>(
    names: &[String],
    own: &[&str],
    values: &mut [Option<Cow<'j, [u8]>>],
    json: &impl Fn(usize) -> Cow<'j, [u8]>,
) -> Vec<(usize, String)> {
    // Sorted, the names below a name follow it. Own names have no number.
    let fields = names.iter().zip(0..).map(|(name, i)| (name.as_str(), Some(i)));
    let fields = fields.filter(|(name, _)| !own.contains(name));
    let mut all: Vec<(&str, Option<usize>)> = fields.chain(own.iter().map(|name| (*name, None))).collect();
    all.sort_unstable_by(|a, b| by_path(a.0, b.0).then(a.1.cmp(&b.1)));
    let mut renamed = Vec::new();
    for (at, (name, number)) in all.iter().enumerate() {
        let rest = all.get(at + 1..).unwrap_or_default();
        let below = &rest[..rest.iter().take_while(|(other, _)| is_below(other, name)).count()];
        if below.is_empty() {
            continue;
        }
        let Some(i) = *number else {
            let fields = below.iter().filter_map(|(other, i)| Some((other, (*i)?)));
            renamed.extend(fields.map(|(other, i)| (i, format!("{name}_{}", &other[name.len()..]))));
            continue;
        };
        for i in below.iter().filter_map(|(_, i)| *i).chain([i]) {
            if let Some(value @ None) = values.get_mut(i) {
                *value = Some(json(i));
            }
        }
        let value = |i: Option<usize>| match i {
            Some(i) => Cow::Borrowed(values.get(i).and_then(Option::as_deref).unwrap_or_default()),
            None => Cow::Borrowed(&b"\"\""[..]),
        };
        let others = below.iter().map(|(other, i)| (*other, value(*i)));
        if paths::is_in_conflict((name, &value(Some(i))), others) {
            renamed.push((i, format!("{name}_")));
        }
    }
    // In the order of their names, whatever the order of the fields; of two reasons the first.
    let mut seen = HashSet::new();
    renamed.retain(|(i, _)| seen.insert(*i));
    renamed
}
