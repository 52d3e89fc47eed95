//! Metadata of records that Fluent Bit received as OpenTelemetry logs: trace id, severity, service.
//!
//! The metadata of an event has `otlp: {trace_id, span_id, severity_number, severity_text, …}`, the
//! ids as bytes; the attributes of its group have the resource (`service.name`) and the scope.

use super::facts::{RecordFacts, service_of};
use super::severity::Severity;
use super::severity::numbers::NumberScheme;
use super::trace_id::{IdForm, IdValue, MadeId};
use super::view::{RecordView, find_below};

/// Metadata of one entry, as raw MessagePack maps; empty where there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct EntryMetadata<'a> {
    /// The entry's own.
    pub own: &'a [u8],
    /// The metadata of its group.
    pub group: &'a [u8],
    /// The attributes of its group.
    pub attributes: &'a [u8],
}

impl RecordView {
    /// Completes `facts` by what the record itself did not say. Returns whether the metadata gave
    /// the trace id; one that is no slice of them is put into `made`, and `id_is_made` is set.
    #[cold]
    pub fn read_metadata<'a>(
        &self,
        metadata: &EntryMetadata<'a>,
        facts: &mut RecordFacts<'a>,
        id_is_made: &mut bool,
        made: &mut MadeId,
    ) -> bool {
        let find = |path: &[u8]| find_below(metadata.own, path).or_else(|| find_below(metadata.group, path));
        if facts.level.is_none() {
            let number = find(b"otlp.severity_number");
            let number = number.and_then(|value| Severity::from_value(NumberScheme::Otlp, value));
            let text = || Severity::from_value(NumberScheme::Otlp, find(b"otlp.severity_text")?);
            facts.level = number.or_else(text);
        }
        if facts.service.is_none() {
            facts.service = [&b"resource.attributes.service.name"[..], b"resource.service.name"]
                .iter()
                .find_map(|path| service_of(find_below(metadata.attributes, path)?));
        }
        if facts.id.is_some() || *id_is_made {
            return false;
        }
        let id = find(b"otlp.trace_id").and_then(|value| self.read_id(IdForm::Bytes, value));
        match id {
            Some(IdValue::Whole(id) | IdValue::Part(id)) => facts.id = Some(id),
            Some(IdValue::Made(id)) => {
                *made = id;
                *id_is_made = true;
            }
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::FieldNames;
    use crate::tests::record;

    #[test]
    fn what_opentelemetry_says_is_used_where_the_record_says_nothing() {
        let view = RecordView::new(FieldNames::default());
        let read = |metadata: EntryMetadata<'_>, id: Option<&'static [u8]>, level| {
            let (mut made, mut is_made) = (MadeId::default(), false);
            let mut facts = RecordFacts::default();
            (facts.id, facts.level) = (id, level);
            let found = view.read_metadata(&metadata, &mut facts, &mut is_made, &mut made);
            let id = if is_made { Some(made.bytes()) } else { facts.id };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (found, id.map(text), facts.level, facts.service.map(text))
        };
        let bytes: Vec<u8> = (1..=16).collect();
        let own = [
            &b"\x81\xa4otlp\x82\xa8trace_id\xc4\x10"[..],
            &bytes,
            b"\xafseverity_number\x11",
        ]
        .concat();
        let attributes = record(&json!({"resource": {"attributes": {"service.name": "shop"}}, "scope": {}}));
        let metadata = EntryMetadata {
            own: &own,
            group: b"",
            attributes: &attributes,
        };
        let hex = "0102030405060708090a0b0c0d0e0f10".to_owned();
        assert_eq!(
            read(metadata, None, None),
            (true, Some(hex), Some(Severity::Error), Some("shop".to_owned()))
        );
        assert_eq!(
            read(metadata, Some(b"known"), Some(Severity::Debug)),
            (
                false,
                Some("known".to_owned()),
                Some(Severity::Debug),
                Some("shop".to_owned())
            )
        );
        let group = record(&json!({"otlp": {"trace_id": "5262745", "severity_text": "WARN"}}));
        let of_group = EntryMetadata {
            own: b"",
            group: &group,
            attributes: b"",
        };
        assert_eq!(
            read(of_group, None, None),
            (true, Some("5262745".to_owned()), Some(Severity::Warn), None)
        );
        let zero = [&b"\x81\xa4otlp\x81\xa8trace_id\xc4\x10"[..], &[0; 16]].concat();
        let none = EntryMetadata {
            own: &zero,
            ..EntryMetadata::default()
        };
        assert_eq!(read(none, None, None), (false, None, None, None));
    }
}
