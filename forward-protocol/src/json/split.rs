//! [`Splitter`]: finds the end of JSON texts in a growing buffer.

/// Finds the end of consecutive texts by brackets and strings only; the parser validates the text.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitter {
    /// Scanned bytes of the current text.
    at: usize,
    depth: usize,
    /// Inside a string.
    string: bool,
    /// The next byte belongs to an escape.
    escaped: bool,
    /// Inside a number or a literal at the top level, which the next token ends.
    bare: bool,
}

impl Splitter {
    /// The end of the text at the front of `rest`, including white space around it. `None`: call
    /// again with the same bytes followed by more. White space alone is a text too.
    pub(super) fn end(&mut self, rest: &[u8]) -> Option<usize> {
        while let Some(byte) = rest.get(self.at) {
            self.at += 1;
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.string = false;
                        if self.depth == 0 {
                            return Some(self.finish(0));
                        }
                    }
                    _ => {}
                }
                continue;
            }
            let bare = self.bare;
            match byte {
                // The byte that ends a bare token belongs to the next text.
                b'[' | b'{' | b'"' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | 0 if bare => {
                    return Some(self.finish(1));
                }
                b'"' => self.string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => {
                    // The parser reports an unbalanced bracket.
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.finish(0));
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | 0 if self.depth == 0 => {
                    return Some(self.finish(0));
                }
                _ if self.depth == 0 => self.bare = true,
                _ => {}
            }
        }
        None
    }

    /// Ends the text `back` bytes before the last scanned one.
    fn finish(&mut self, back: usize) -> usize {
        let end = self.at - back;
        *self = Self::default();
        end
    }
}
