//! Origins of field names, for the union: what the fields of two documents were called in the
//! records, and what they are called in the document of both.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::document::field_names::is_simple_at_top;
use crate::document::field_names::top_level::{Field, document_names, value_names};
use crate::document::state::{DocumentState, FieldLocation};

/// The name of a field in the records, and what it becomes where no other field is in its way.
pub(crate) type NameOrigin<'a> = (&'a str, &'a str);

/// The origins of names that are not those of the records, by location and name.
pub(crate) fn name_origins(state: &DocumentState) -> HashMap<(FieldLocation, &str), NameOrigin<'_>> {
    let renamed = state.renamed.iter().map(|field| {
        let origin = (field.original.as_str(), field.natural.as_str());
        ((field.location, field.name.as_str()), origin)
    });
    renamed.collect()
}

/// The names of these fields in one document, in their order. `own` are those of the trace id and
/// the text, and `derived` those of the schema.
pub(crate) fn field_names<'n>(
    all: &[(FieldLocation, NameOrigin<'_>, &RawValue)],
    own: impl Iterator<Item = &'n str>,
    derived: &[&'n str],
) -> Vec<String> {
    let is_simple =
        |(original, natural): NameOrigin<'_>| original == natural && is_simple_at_top(original.as_bytes());
    if derived.is_empty() && all.iter().all(|(_, origin, _)| is_simple(*origin)) {
        return all.iter().map(|(_, origin, _)| origin.0.to_owned()).collect();
    }
    let mut names = vec![String::new(); all.len()];
    for (location, own) in [
        (
            FieldLocation::TopLevel,
            value_names(own.chain(derived.iter().copied())),
        ),
        (FieldLocation::Metadata, value_names(std::iter::empty())),
    ] {
        let here = all.iter().zip(0..).filter(|((of, ..), _)| *of == location);
        let (fields, numbers): (Vec<_>, Vec<usize>) = here
            .map(|((_, (original, natural), _), number)| {
                let (original, natural) = (Cow::Borrowed(*original), Cow::Borrowed(*natural));
                (Field { original, natural }, number)
            })
            .unzip();
        let json = |i: usize| match numbers.get(i).and_then(|number| all.get(*number)) {
            Some((_, _, raw)) => raw.get().as_bytes().into(),
            None => Cow::default(),
        };
        for (name, number) in document_names(&fields, &own, json).into_iter().zip(&numbers) {
            names[*number] = name;
        }
    }
    names
}
