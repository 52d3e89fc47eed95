//! Tags as they stand in documents: one shared text for all records of a tag.
//!
//! Owns the texts of the tags that were seen last, and the prefix that is put before each.

use std::collections::HashMap;
use std::sync::Arc;

/// Tags that are remembered.
const MOST: usize = 10_000;

pub(super) struct Tags {
    prefix: String,
    known: HashMap<Box<[u8]>, Arc<str>, foldhash::fast::RandomState>,
    /// The tag that was given back last, under what it was asked for.
    last: Option<Arc<str>>,
    last_asked: Vec<u8>,
}

impl Tags {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            prefix,
            known: HashMap::default(),
            last: None,
            last_asked: Vec::new(),
        }
    }

    /// The text of a tag. Give it back with [`Self::put`]: messages of one tag mostly follow each other, and in Message
    /// mode a look-up and two counts of references for each would be a good part of the work.
    pub(super) fn take(&mut self, asked: &[u8]) -> Arc<str> {
        match self.last.take() {
            Some(tag) if self.last_asked == asked => tag,
            _ => self.look_up(asked),
        }
    }

    /// Takes back what [`Self::take`] gave last.
    pub(super) fn put(&mut self, tag: Arc<str>) {
        self.last = Some(tag);
    }

    fn look_up(&mut self, asked: &[u8]) -> Arc<str> {
        self.last_asked.clear();
        self.last_asked.extend_from_slice(asked);
        if let Some(tag) = self.known.get(asked) {
            return Arc::clone(tag);
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let tag: Arc<str> = format!("{}{}", self.prefix, String::from_utf8_lossy(asked)).into();
        self.known.insert(asked.into(), Arc::clone(&tag));
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_has_its_text_once() {
        let mut tags = Tags::new("pre.".into());
        let first = tags.take(b"a");
        assert_eq!(&*first, "pre.a");
        let copy = Arc::clone(&first);
        tags.put(first);
        assert!(
            Arc::ptr_eq(&tags.take(b"a"), &copy),
            "the one that was given back"
        );
        assert_eq!(&*tags.take(b"b\xff"), "pre.b\u{fffd}", "nothing was given back");
        assert!(Arc::ptr_eq(&tags.take(b"a"), &copy));
        for n in 0..=MOST {
            let tag = tags.take(n.to_string().as_bytes());
            assert_eq!(*tag, *format!("pre.{n}"));
            tags.put(tag);
        }
    }
}
