//! Text for a terminal: colours by level, marked words, and nothing that logs could do to it.

use std::io::IsTerminal;

use crate::config::Environment;

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";
const MARK: &str = "\x1b[1;4m";

/// Whether and how to colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    colours: bool,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set and not empty.
    pub(super) fn for_stdout(env: &dyn Environment) -> Self {
        let refused = env.get("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: std::io::stdout().is_terminal() && !refused,
        }
    }

    /// Whether there may be colours.
    pub(super) fn has_colours(self) -> bool {
        self.colours
    }

    #[cfg(test)]
    pub(super) fn new(colours: bool) -> Self {
        Self { colours }
    }

    fn wrap(self, style: &str, text: &str) -> String {
        if self.colours && !text.is_empty() {
            format!("{style}{text}{RESET}")
        } else {
            text.to_owned()
        }
    }

    /// A level in capitals, padded to five characters.
    pub(super) fn level(self, level: Option<&str>) -> String {
        let style = match level {
            Some("fatal") => "\x1b[1;35m",
            Some("error") => "\x1b[31m",
            Some("warn") => "\x1b[33m",
            Some("info") => "\x1b[32m",
            _ => DIM,
        };
        let name = level.unwrap_or("-").to_ascii_uppercase();
        self.wrap(style, &format!("{name:<5}"))
    }

    /// What is beside the text.
    pub(super) fn dim(self, text: &str) -> String {
        self.wrap(DIM, &harmless(text))
    }

    /// A text with marked parts: start and length in UTF-16 units.
    pub(super) fn marked(self, text: &str, marks: &[(usize, usize)]) -> String {
        let mut out = String::new();
        let mut unit = 0;
        let mut part = String::new();
        let mut is_marked = false;
        for c in text.chars() {
            let now = marks
                .iter()
                .any(|(start, length)| (*start..start + length).contains(&unit));
            if now != is_marked {
                out += &if is_marked {
                    self.wrap(MARK, &harmless(&part))
                } else {
                    harmless(&part)
                };
                part.clear();
                is_marked = now;
            }
            part.push(c);
            unit += c.len_utf16();
        }
        out += &if is_marked {
            self.wrap(MARK, &harmless(&part))
        } else {
            harmless(&part)
        };
        out
    }
}

/// Text without control characters: a log line must not move the cursor or colour the terminal.
pub(super) fn harmless(text: &str) -> String {
    let replace = |c: char| match c {
        '\t' => '\t',
        // A right-to-left override shows other text than there is.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    text.chars().map(replace).collect()
}

/// Milliseconds for people.
pub(super) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 && ms > 0.0 => format!("{ms:.3} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 60_000.0 => format!("{:.2} s", ms / 1_000.0),
        ms => format!("{:.1} min", ms / 60_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_utf16_units_and_logs_cannot_control_the_terminal() {
        let paint = Paint::new(true);
        assert_eq!(paint.marked("😀 ab c", &[(3, 2)]), "😀 \x1b[1;4mab\x1b[0m c");
        assert_eq!(
            Paint::new(false).marked("a\x1b[31mb\u{9b}", &[(0, 1)]),
            "a\u{fffd}[31mb\u{fffd}"
        );
        assert_eq!(paint.level(Some("warn")), "\x1b[33mWARN \x1b[0m");
        assert_eq!(paint.dim("\u{202e}x"), "\x1b[2m\u{fffd}x\x1b[0m");
    }

    #[test]
    fn durations_have_a_unit() {
        for (ms, text) in [
            (0.0, "0 ms"),
            (0.25, "0.250 ms"),
            (52.0, "52 ms"),
            (2500.0, "2.50 s"),
            (90_000.0, "1.5 min"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }
}
