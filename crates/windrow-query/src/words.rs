//! Words of a text, as Elasticsearch's standard analyzer splits and folds them: the word boundaries
//! of Unicode Standard Annex 29, lower case, at most 255 UTF-16 units.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation as _;

/// Longer words are cut into pieces of this length, as the standard tokenizer does.
const MAX_WORD_UNITS: usize = 255;

/// Calls `each` with the range in `text` and the lower-case form of every word.
pub fn each_word(text: &str, mut each: impl FnMut(Range<usize>, &str)) {
    let mut lower = String::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    // White space ends words in every script, so what stands between is split on its own: by a fast
    // path if it is ASCII.
    while let Some(start) = find(bytes, at, |byte| !byte.is_ascii_whitespace()) {
        let end = find(bytes, start, |byte| byte.is_ascii_whitespace()).unwrap_or(bytes.len());
        let piece = text.get(start..end).unwrap_or_default();
        let mut found = |range: Range<usize>| {
            emit(
                text,
                start + range.start..start + range.end,
                &mut lower,
                &mut each,
            );
        };
        if piece.is_ascii() {
            ascii_words(piece.as_bytes(), &mut found);
        } else {
            unicode_words(piece, &mut found);
        }
        at = end;
    }
}

/// The words of a text.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    each_word(text, |_, word| words.push(word.to_owned()));
    words
}

fn find(bytes: &[u8], from: usize, is: impl Fn(u8) -> bool) -> Option<usize> {
    let rest = bytes.get(from..)?;
    Some(from + rest.iter().position(|byte| is(*byte))?)
}

fn emit(text: &str, range: Range<usize>, lower: &mut String, each: &mut impl FnMut(Range<usize>, &str)) {
    let mut units = 0;
    let mut start = range.start;
    lower.clear();
    for (at, c) in text.get(range.clone()).unwrap_or_default().char_indices() {
        if units + c.len_utf16() > MAX_WORD_UNITS {
            each(start..range.start + at, lower);
            (units, start) = (0, range.start + at);
            lower.clear();
        }
        units += c.len_utf16();
        // The simple mapping of one character to one.
        lower.push(c.to_lowercase().next().unwrap_or(c));
    }
    each(start..range.end, lower);
}

fn ascii_words(piece: &[u8], found: &mut impl FnMut(Range<usize>)) {
    let class = |at: usize| piece.get(at).copied().unwrap_or(b' ');
    let mut at = 0;
    while at < piece.len() {
        if !is_word_byte(class(at)) {
            at += 1;
            continue;
        }
        let start = at;
        let mut has_content = false;
        loop {
            has_content |= class(at) != b'_';
            at += 1;
            let (before, here, after) = (class(at - 1), class(at), class(at + 1));
            let joins = match here {
                b'.' | b'\'' => {
                    both(before, after, |byte| byte.is_ascii_alphabetic())
                        || both(before, after, |byte| byte.is_ascii_digit())
                }
                b':' => both(before, after, |byte| byte.is_ascii_alphabetic()),
                b',' | b';' => both(before, after, |byte| byte.is_ascii_digit()),
                _ => false,
            };
            if joins {
                at += 1;
            } else if !is_word_byte(here) {
                break;
            }
        }
        if has_content {
            found(start..at);
        }
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn both(a: u8, b: u8, is: impl Fn(u8) -> bool) -> bool {
    is(a) && is(b)
}

fn unicode_words(piece: &str, found: &mut impl FnMut(Range<usize>)) {
    // Scripts without spaces between words are one word each run.
    let mut run: Option<Range<usize>> = None;
    for (start, segment) in piece.split_word_bound_indices() {
        let range = start..start + segment.len();
        if segment.chars().next().is_some_and(is_southeast_asian) {
            match &mut run {
                Some(run) => run.end = range.end,
                None => run = Some(range),
            }
            continue;
        }
        if let Some(run) = run.take() {
            found(run);
        }
        if segment.chars().any(|c| c.is_alphabetic() || is_digit(c)) || segment.chars().any(is_pictograph) {
            found(range);
        }
    }
    if let Some(run) = run {
        found(run);
    }
}

/// Whether a character is a decimal digit: those join other digits, fractions and superscripts do
/// not.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
        || c.is_numeric()
            && ['1', c, '1']
                .iter()
                .collect::<String>()
                .split_word_bounds()
                .count()
                == 1
}

fn is_southeast_asian(c: char) -> bool {
    matches!(c, '\u{e01}'..='\u{e4e}' | '\u{e81}'..='\u{ecd}' | '\u{edc}'..='\u{edf}' | '\u{1000}'..='\u{103f}'
        | '\u{1050}'..='\u{108f}' | '\u{1780}'..='\u{17d3}')
}

/// The symbols that the standard tokenizer counts as words; the usual ones of them.
fn is_pictograph(c: char) -> bool {
    matches!(c, '©' | '®' | '™' | '\u{2600}'..='\u{2604}' | '\u{2614}'..='\u{2615}' | '\u{26a0}'..='\u{26a1}'
        | '\u{2705}' | '\u{274c}' | '\u{1f300}'..='\u{1f64f}' | '\u{1f680}'..='\u{1f6ff}' | '\u{1f900}'..='\u{1f9ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `_analyze` of Elasticsearch 8.18 answers with the standard analyzer.
    #[test]
    fn words_are_those_of_the_standard_analyzer() {
        let cases: &[(&str, &[&str])] = &[
            (
                "foo:bar a:1 1:a 12:30:01",
                &["foo:bar", "a", "1", "1", "a", "12", "30", "01"],
            ),
            (
                "java.lang.Foo v1.2.3 a.1 1.a",
                &["java.lang.foo", "v1.2.3", "a", "1", "1", "a"],
            ),
            (
                "don't it''s a'1 1'2 1,000 a,b 1;2",
                &["don't", "it", "s", "a", "1", "1'2", "1,000", "a", "b", "1;2"],
            ),
            ("_foo_ ___ a_1 __1 _._ a_.b", &["_foo_", "a_1", "__1", "a_", "b"]),
            (
                "e-mail@host.com http://a.b/c?d=e",
                &["e", "mail", "host.com", "http", "a.b", "c", "d", "e"],
            ),
            (
                "Straße ÉCOLE İstanbul ΣΑΣ ǅ",
                &["straße", "école", "istanbul", "σασ", "ǆ"],
            ),
            (
                "東京 ひら カタカナ 한국어 ภาษาไทย ລາວ",
                &["東", "京", "ひ", "ら", "カタカナ", "한국어", "ภาษาไทย", "ລາວ"],
            ),
            ("a😀b ™ ©", &["a", "😀", "b", "™", "©"]),
            ("a\u{301}b naïve a·b a’b", &["a\u{301}b", "naïve", "a·b", "a’b"]),
            ("½ ² ⅷ ٣٤ １２ ａｂ", &["ⅷ", "٣٤", "１２", "ａｂ"]),
            ("C++ C# .NET $x %20", &["c", "c", "net", "x", "20"]),
            ("x\u{a0}y x\u{3000}y", &["x", "y", "x", "y"]),
            (
                "カ_カ ア1 ឥឡូវ မြန်မာ 가",
                &["カ_カ", "ア", "1", "ឥឡូវ", "မြန်မာ", "가"],
            ),
            ("\u{10400}", &["\u{10428}"]),
        ];
        for (text, wanted) in cases {
            assert_eq!(words(text), *wanted, "{text}");
        }
    }

    #[test]
    fn long_words_are_cut() {
        let lengths: Vec<_> = words(&"a".repeat(600)).iter().map(String::len).collect();
        assert_eq!(lengths, [255, 255, 90]);
    }

    #[test]
    fn ranges_are_those_of_the_words() {
        let text = "  Ünder the-Bridge. ";
        let mut found = Vec::new();
        each_word(text, |range, word| {
            found.push((text[range].to_owned(), word.to_owned()));
        });
        let wanted = [("Ünder", "ünder"), ("the", "the"), ("Bridge", "bridge")];
        assert_eq!(found, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
