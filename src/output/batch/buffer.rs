//! What the documents of a batch are written on: their text, their ids, and a row for each.
//!
//! Owns the way back of that memory to whoever renders, once all others are done with it: an allocator takes some time until it
//! finds memory again that another thread gives back, and new memory costs a page fault for every four kilobytes. Does not
//! know what is written on it.

use std::sync::Arc;

use bytes::Bytes;

use super::meta::DocumentMeta;

/// See above. Nothing of it changes while a batch has it.
#[derive(Debug, Default)]
pub struct BatchBuffer {
    pub(super) bytes: Bytes,
    pub(super) ids: String,
    pub(super) rows: Vec<DocumentMeta>,
}

impl BatchBuffer {
    /// `text`: the documents, one behind the other, each with what an output wants before it. `ids`: their ids. `rows`: where
    /// they stand in both.
    pub fn new(text: Bytes, ids: String, rows: Vec<DocumentMeta>) -> Arc<Self> {
        Arc::new(Self {
            bytes: text,
            ids,
            rows,
        })
    }

    /// Its memory, empty, if nobody else has any of it; then nothing is left on it.
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
