//! Interned tags: one shared text for all records of a tag, with the configured prefix.

use std::collections::HashMap;
use std::sync::Arc;

/// Tags that are interned before the table starts anew, and their bytes.
const MAX_TAGS: usize = 10_000;
const MAX_TAGS_BYTES: usize = 1 << 20;
/// Longer tags are cut in documents: every open trace has its tags in memory.
const MAX_TAG_BYTES: usize = 1024;

/// Maps tags as received to their text in documents.
pub(super) struct TagInterner {
    prefix: String,
    known: HashMap<Box<[u8]>, Arc<str>, foldhash::fast::RandomState>,
    known_bytes: usize,
    /// The text that was put back last, and the tag it was taken for.
    last: Option<Arc<str>>,
    last_tag: Vec<u8>,
    /// The text that is taken is not that of `last_tag` any more.
    interrupted: bool,
}

impl TagInterner {
    /// Puts `prefix` before every tag.
    pub(super) fn new(prefix: String) -> Self {
        Self {
            prefix,
            known: HashMap::default(),
            known_bytes: 0,
            last: None,
            last_tag: Vec::new(),
            interrupted: false,
        }
    }

    /// Takes the text of a tag; return it with [`Self::put_back`]. Messages of one tag mostly
    /// follow each other, and in Message mode a look-up and two reference counts per message would
    /// be a good part of the work.
    pub(super) fn take(&mut self, tag: &[u8]) -> Arc<str> {
        match self.last.take() {
            Some(text) if self.last_tag == tag => text,
            _ => self.look_up(tag),
        }
    }

    /// Returns the text that [`Self::take`] gave last.
    pub(super) fn put_back(&mut self, text: Arc<str>) {
        if !std::mem::take(&mut self.interrupted) {
            self.last = Some(text);
        }
    }

    /// Call it when other tags were taken between a [`Self::take`] and its [`Self::put_back`].
    pub(super) fn interrupt(&mut self) {
        self.last = None;
        self.interrupted = true;
    }

    fn look_up(&mut self, tag: &[u8]) -> Arc<str> {
        self.last_tag.clear();
        self.last_tag.extend_from_slice(tag);
        if let Some(text) = self.known.get(tag) {
            return Arc::clone(text);
        }
        let kept = tag.get(..MAX_TAG_BYTES).unwrap_or(tag);
        let text: Arc<str> = format!("{}{}", self.prefix, String::from_utf8_lossy(kept)).into();
        if kept.len() < tag.len() {
            return text;
        }
        let bytes = tag.len() + text.len();
        if self.known.len() >= MAX_TAGS || self.known_bytes + bytes > MAX_TAGS_BYTES {
            self.known.clear();
            self.known_bytes = 0;
        }
        self.known.insert(tag.into(), Arc::clone(&text));
        self.known_bytes += bytes;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tags_are_cut_and_memory_is_bounded() {
        let mut tags = TagInterner::new("pre.".into());
        for n in 0..10_000 {
            let tag = tags.take(format!("{n}{}", "x".repeat(900)).as_bytes());
            tags.put_back(tag);
            assert!(tags.known_bytes <= MAX_TAGS_BYTES);
            assert!(tags.known.len() <= MAX_TAGS_BYTES / 1800);
        }
        let known = tags.known.len();
        let tag = tags.take(&[b'x'; 60_000]);
        assert_eq!((tag.len(), tags.known.len()), (4 + MAX_TAG_BYTES, known));
        tags.put_back(Arc::clone(&tag));
        assert!(
            Arc::ptr_eq(&tags.take(&[b'x'; 60_000]), &tag),
            "the last one is kept"
        );
    }

    #[test]
    fn each_tag_is_interned_once() {
        let mut tags = TagInterner::new("pre.".into());
        let first = tags.take(b"a");
        assert_eq!(&*first, "pre.a");
        let copy = Arc::clone(&first);
        tags.put_back(first);
        assert!(Arc::ptr_eq(&tags.take(b"a"), &copy), "the text that was put back");
        assert_eq!(&*tags.take(b"b\xff"), "pre.b\u{fffd}", "none was put back before");
        assert!(Arc::ptr_eq(&tags.take(b"a"), &copy));
        for n in 0..=MAX_TAGS {
            let tag = tags.take(n.to_string().as_bytes());
            assert_eq!(*tag, *format!("pre.{n}"));
            tags.put_back(tag);
        }
    }
}
