//! Rewriting of the Prometheus text formats (0.0.4 and OpenMetrics 1.0): adds labels to every
//! sample of a page.
//!
//! A page is read line by line into families and written out again: HELP, TYPE and UNIT lines,
//! values, time stamps and exemplars as they were. Sources: "Exposition formats" (prometheus.io)
//! and the OpenMetrics 1.0 specification. Does not check values and merges nothing.

/// A label to add. When a sample has one of this name already, that one becomes `exported_<name>`,
/// as Prometheus does it for the labels of a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// A legal label name.
    pub name: &'static str,
    /// Any text.
    pub value: String,
}

/// A page with the labels added.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// All lines but `# EOF`, each with its newline.
    pub text: String,
    /// How many samples it has.
    pub samples: usize,
}

/// A line that is neither a comment nor a sample.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} is not in the Prometheus text format: {what}: {text:?}")]
pub struct Malformed {
    line: usize,
    what: &'static str,
    text: String,
}

/// Adds `labels` to every sample of `page`. Families named in `reserved` get the prefix
/// `exported_`: we serve our own of that name.
///
/// # Errors
/// [`Malformed`] for the first line that cannot be parsed: half a page would pass for a whole one.
pub fn relabel(page: &str, labels: &[Label], reserved: &[&str]) -> Result<Page, Malformed> {
    let mut out = Page {
        text: String::with_capacity(page.len() * 2),
        samples: 0,
    };
    for (index, line) in page.lines().enumerate() {
        let malformed = |what| Malformed {
            line: index + 1,
            what,
            text: line.chars().take(MAX_SHOWN_CHARS).collect(),
        };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if comment.trim() == "EOF" {
                break;
            }
            write_comment(&mut out.text, line, comment, reserved);
            continue;
        }
        let sample = Sample::parse(line).map_err(malformed)?;
        sample.write(&mut out.text, labels, reserved);
        out.samples += 1;
    }
    Ok(out)
}

/// Writes a label value as the format wants it.
pub fn write_value(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn write_comment(out: &mut String, line: &str, comment: &str, reserved: &[&str]) {
    let mut words = comment.trim_start().splitn(3, [' ', '\t']);
    match (words.next(), words.next()) {
        (Some(kind @ ("HELP" | "TYPE" | "UNIT")), Some(family)) => {
            out.push_str("# ");
            out.push_str(kind);
            out.push(' ');
            write_name(out, family, reserved);
            if let Some(rest) = words.next() {
                out.push(' ');
                out.push_str(rest);
            }
        }
        _ => out.push_str(line),
    }
    out.push('\n');
}

fn write_name(out: &mut String, name: &str, reserved: &[&str]) {
    if reserved.contains(&name) {
        out.push_str("exported_");
    }
    out.push_str(name);
}

/// `name{labels} value [time stamp] [# exemplar]`, cut at its seams and not copied.
struct Sample<'a> {
    name: &'a str,
    /// The text between the braces, without a comma at its end.
    labels: &'a str,
    /// Where the name of each label stands in `labels`.
    names: Vec<&'a str>,
    /// From the value on.
    rest: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Result<Self, &'static str> {
        let end = line
            .find(|c: char| c == '{' || c.is_ascii_whitespace())
            .ok_or("a sample needs a value")?;
        let (name, after) = line.split_at(end);
        if !is_name(name, true) {
            return Err("illegal metric name");
        }
        let after = after.trim_start();
        let (labels, names, rest) = match after.strip_prefix('{') {
            Some(inside) => label_set(inside)?,
            None => ("", Vec::new(), after),
        };
        let rest = rest.trim_start();
        let value = rest
            .split_ascii_whitespace()
            .next()
            .ok_or("a sample needs a value")?;
        if value.parse::<f64>().is_err() {
            return Err("the value is not a number");
        }
        Ok(Self {
            name,
            labels,
            names,
            rest,
        })
    }

    fn write(&self, out: &mut String, added: &[Label], reserved: &[&str]) {
        write_name(out, self.name, reserved);
        out.push('{');
        for label in added {
            out.push_str(label.name);
            out.push('=');
            write_value(out, &label.value);
            out.push(',');
        }
        let mut copied = self.labels;
        for name in &self.names {
            let at = name.as_ptr() as usize - copied.as_ptr() as usize;
            let (before, from) = copied.split_at(at);
            out.push_str(before);
            if added.iter().any(|label| label.name == *name) {
                out.push_str("exported_");
            }
            out.push_str(name);
            copied = from.get(name.len()..).unwrap_or_default();
        }
        out.push_str(copied);
        if out.ends_with(',') {
            out.pop();
        }
        out.push_str("} ");
        out.push_str(self.rest);
        out.push('\n');
    }
}

/// Reads a label set whose `{` is gone: the text of it, the names in it, and what follows the `}`.
fn label_set(text: &str) -> Result<(&str, Vec<&str>, &str), &'static str> {
    let mut names = Vec::new();
    let mut at = text.trim_start();
    loop {
        if let Some(rest) = at.strip_prefix('}') {
            let length = text.len() - rest.len() - 1;
            let labels = text
                .get(..length)
                .unwrap_or_default()
                .trim()
                .trim_end_matches(',')
                .trim_end();
            return Ok((labels, names, rest));
        }
        let (name, after) = at
            .split_once('=')
            .ok_or("a label needs a value, or } is missing")?;
        let name = name.trim_end();
        if !is_name(name, false) {
            return Err("illegal label name");
        }
        names.push(name);
        let quoted = after
            .trim_start()
            .strip_prefix('"')
            .ok_or("a label value must be in quotes")?;
        let end = closing_quote(quoted).ok_or("a label value has no closing quote")?;
        at = quoted.get(end + 1..).unwrap_or_default().trim_start();
        match at.strip_prefix(',') {
            Some(rest) => at = rest.trim_start(),
            None if at.starts_with('}') => {}
            None => return Err("labels must be separated by commas"),
        }
    }
}

/// The place of the quote that ends the value: not one behind a backslash.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_name(name: &str, metric: bool) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || (metric && c == b':');
    name.bytes().all(legal) && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Characters of a malformed line that are shown.
const MAX_SHOWN_CHARS: usize = 120;

#[cfg(test)]
mod tests;
