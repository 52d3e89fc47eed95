//! What to mark in a text: the words that a query searches for.

use crate::query::{Node, Phrase, Query, Test};
use crate::words::each_word;

/// A marked part of a text, in UTF-16 units, as browsers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Highlight {
    /// Where it starts.
    pub start: usize,
    /// Its length.
    pub length: usize,
}

/// Parts of one text that are marked at most.
const MAX_HIGHLIGHTS: usize = 100;

impl Query {
    /// The parts of a text that the query searches for, in order and not overlapping.
    #[must_use]
    pub fn highlights(&self, text: &str) -> Vec<Highlight> {
        let mut phrases = Vec::new();
        if let Some(root) = &self.root {
            collect(root, true, &mut phrases);
        }
        if phrases.is_empty() {
            return Vec::new();
        }
        let (mut words, mut ranges) = (Vec::new(), Vec::new());
        each_word(text, |range, word| {
            words.push(word.to_owned());
            ranges.push(range);
        });
        let mut marked = vec![false; words.len()];
        let mut joined = vec![false; words.len()];
        for phrase in phrases {
            for (at, row) in words.windows(phrase.words.len()).enumerate() {
                if phrase.is_row(row) {
                    let last = at + row.len() - 1;
                    marked
                        .iter_mut()
                        .take(last + 1)
                        .skip(at)
                        .for_each(|mark| *mark = true);
                    joined
                        .iter_mut()
                        .take(last)
                        .skip(at)
                        .for_each(|join| *join = true);
                }
            }
        }
        let units = |from: usize, to: usize| text.get(from..to).map_or(0, |part| part.encode_utf16().count());
        let mut highlights: Vec<Highlight> = Vec::new();
        let (mut at_byte, mut at_unit, mut joins) = (0, 0, false);
        for ((range, marked), joined) in ranges.into_iter().zip(marked).zip(joined) {
            if !marked {
                continue;
            }
            let start = at_unit + units(at_byte, range.start);
            let end = start + units(range.start, range.end);
            (at_byte, at_unit) = (range.end, end);
            let full = highlights.len() == MAX_HIGHLIGHTS;
            match highlights.last_mut() {
                Some(last) if joins => last.length = end - last.start,
                _ if full => break,
                _ => highlights.push(Highlight {
                    start,
                    length: end - start,
                }),
            }
            joins = joined;
        }
        highlights
    }
}

/// The phrases in the text that a document must or may have.
fn collect<'a>(node: &'a Node, wanted: bool, phrases: &mut Vec<&'a Phrase>) {
    match node {
        Node::And(nodes) | Node::Or(nodes) => {
            nodes.iter().for_each(|node| collect(node, wanted, phrases));
        }
        Node::Not(node) => collect(node, !wanted, phrases),
        Node::Test(Test::Text(phrase)) if wanted => phrases.push(phrase),
        Node::Test(_) => {}
    }
}
