//! Ids of rows: that of the document, and behind it the destination, if it is not the default, so
//! that documents of different destinations are different rows.

use std::borrow::Cow;

use crate::output::{DestinationId, Destinations, SealedDocument};

/// Makes ids of rows.
pub(super) struct RowKeys<'d>(pub(super) Option<&'d Destinations>);

/// Between the id of a document and its destination. No identifier that is printed has it.
const DESTINATION_SEPARATOR: char = '\u{1f}';

impl RowKeys<'_> {
    /// The id of the row of a document, or of one that continues it, which has this `id`.
    pub(super) fn of<'i>(&self, document: &SealedDocument, id: &'i str) -> Cow<'i, str> {
        let destination = document.destination();
        if destination == DestinationId::DEFAULT {
            return Cow::Borrowed(id);
        }
        let name = self.0.and_then(|destinations| destinations.name(destination));
        Cow::Owned(format!("{id}{DESTINATION_SEPARATOR}{}", name.unwrap_or_default()))
    }
}

/// The id of the document of a row.
pub(super) fn document_id_of_row(row: &str) -> &str {
    row.split_once(DESTINATION_SEPARATOR).map_or(row, |(id, _)| id)
}
