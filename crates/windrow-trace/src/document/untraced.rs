//! The document of a record without a trace id.

use super::content::{RenderedDocument, UntracedRecord};
use super::fields::MergedFields;
use super::json::{self, write_string};
use super::msgpack::{Token, after_scalar, read_token};
use super::render::{Renderer, write_merged};
use super::schema::Derived;
use super::shape::Shape;
use super::state::FieldLocation;
use super::windrow_object::write_level;
use crate::open::line_context::cut_service;
use crate::record::text::RecordText;
use crate::record::view::RecordView;

impl Renderer {
    /// Appends the document of a record without a trace id to `out`, without a newline.
    pub fn untraced(
        &mut self,
        out: &mut Vec<u8>,
        view: &RecordView,
        untraced: &UntracedRecord<'_>,
    ) -> RenderedDocument {
        let UntracedRecord {
            shape,
            time,
            tag,
            record,
            metadata,
            level,
            service,
        } = *untraced;
        let (at, names) = (out.len(), view.names());
        let schema = names.document.schema;
        let service = service.map(|name| String::from_utf8_lossy(cut_service(name)));
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.times.write(out, time);
        out.push(b'"');
        schema.write_derived(
            out,
            &Derived {
                level,
                services: service.as_slice(),
                duration: None,
            },
        );
        if let Some(shape) = shape.filter(|_| schema.text().is_none()) {
            write_all_fields(out, shape, record);
        } else {
            let known = (level.is_some(), service.is_some());
            let mut fields = MergedFields::new(names, FieldLocation::TopLevel, &[], &[], known);
            let text_of_schema = schema.text().map(|name| (name, view.text(record)));
            match text_of_schema {
                Some((name, (_, RecordText::Field(text), field))) => {
                    fields.add_untraced(record, field);
                    out.push(b',');
                    write_string(out, name.as_bytes());
                    out.push(b':');
                    write_string(out, text);
                }
                _ => fields.add_untraced(record, None),
            }
            let texts = names.text.iter().map(String::as_str);
            let texts = texts.filter(|name| fields.contains(name));
            write_merged(out, &fields, &fields.names(texts.chain(names.own(schema.text()))));
        }
        out.extend_from_slice(b",\"windrow\":{\"tags\":[");
        write_string(out, tag.as_bytes());
        out.push(b']');
        if let Some(level) = level {
            write_level(out, level);
        }
        if let Some(service) = &service {
            out.extend_from_slice(b",\"services\":[");
            write_string(out, service.as_bytes());
            out.push(b']');
        }
        if !metadata.is_empty() {
            out.extend_from_slice(b",\"metadata\":");
            json::write_json_value(out, metadata, 0);
        }
        out.extend_from_slice(b"}}");
        RenderedDocument {
            at,
            first: time,
            last: time,
            lines: 1,
        }
    }
}

/// Appends all fields of a record of this shape.
fn write_all_fields(out: &mut Vec<u8>, shape: &Shape, record: &[u8]) {
    let Some((Token::Map(_), mut at)) = read_token(record, 0) else {
        return;
    };
    for field in shape.fields() {
        let Some(value) = after_scalar(record, at) else {
            return;
        };
        out.extend_from_slice(field.json_prefix());
        at = json::write_value_in(out, field.is_flattened(), record, value);
    }
}
