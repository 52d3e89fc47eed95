//! Buffer of a batch: the text of the documents, their ids and metadata.
//!
//! Returns its memory to the renderer once nobody else references it: new memory would cost a page
//! fault per 4 KiB. Does not know what it contains.

use std::sync::Arc;

use bytes::Bytes;

use super::meta::DocumentMeta;

/// The memory of a batch; immutable while the batch exists.
#[derive(Debug, Default)]
pub struct BatchBuffer {
    pub(super) bytes: Bytes,
    pub(super) ids: String,
    pub(super) rows: Vec<DocumentMeta>,
}

impl BatchBuffer {
    /// `text`: the documents, concatenated, each with its frame if it has one. `ids`: their ids,
    /// concatenated. `rows`: metadata with positions in both.
    pub fn new(text: Bytes, ids: String, rows: Vec<DocumentMeta>) -> Arc<Self> {
        Arc::new(Self {
            bytes: text,
            ids,
            rows,
        })
    }

    /// Takes back the memory, cleared, if nobody else references any of it; the buffer is empty
    /// then.
    pub fn reclaim(this: &mut Arc<Self>) -> Option<(Vec<u8>, String, Vec<DocumentMeta>)> {
        let buffer = Arc::get_mut(this).filter(|buffer| buffer.bytes.is_unique())?;
        let mut text = std::mem::take(&mut buffer.bytes).try_into_mut().ok()?;
        let (mut ids, mut rows) = (std::mem::take(&mut buffer.ids), std::mem::take(&mut buffer.rows));
        text.clear();
        ids.clear();
        rows.clear();
        Some((text.into(), ids, rows))
    }
}

#[cfg(test)]
mod tests {
    use super::super::meta::DocumentSpan;
    use super::*;

    #[test]
    fn memory_comes_back_when_nobody_has_any_of_it() {
        let rows = vec![DocumentMeta::new(0..1, true, 5, 3, DocumentSpan::new(0, 2, 6))];
        let text = Vec::from(b"a\n{1}\n");
        let at = text.as_ptr();
        let mut buffer = BatchBuffer::new(text.into(), "a".into(), rows);
        let of_a_batch = Arc::clone(&buffer);
        assert!(BatchBuffer::reclaim(&mut buffer).is_none());
        let sent = of_a_batch.bytes.slice(2..);
        drop(of_a_batch);
        assert!(
            BatchBuffer::reclaim(&mut buffer).is_none(),
            "some of it is being sent"
        );
        assert_eq!((&*buffer.bytes, &*buffer.ids), (&b"a\n{1}\n"[..], "a"));
        drop(sent);
        let (text, ids, rows) = BatchBuffer::reclaim(&mut buffer).unwrap();
        assert_eq!((text.as_ptr(), text.len(), ids.len(), rows.len()), (at, 0, 0, 0));
        assert!(text.capacity() >= 6 && ids.capacity() >= 1 && rows.capacity() >= 1);
    }
}
