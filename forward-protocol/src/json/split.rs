//! Where a JSON text ends, in a buffer that grows.

/// Finds the end of one text after the other. Only brackets and strings are looked at; whether the text is JSON at all
/// is for the parser to say.
#[derive(Clone, Debug, Default)]
pub(super) struct Splitter {
    /// How many bytes of the current text were looked at.
    at: usize,
    depth: usize,
    /// Inside a string.
    string: bool,
    /// The next byte belongs to an escape.
    escaped: bool,
    /// Inside a number or a word at the top level, which ends where something else begins.
    bare: bool,
}

impl Splitter {
    /// Where the text at the front of `rest` ends, white space around it included. `None`: more bytes are needed;
    /// call again with the same bytes and what follows them. White space alone is a text too.
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
                // What ends a bare word belongs to the next text.
                b'[' | b'{' | b'"' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' if bare => {
                    return Some(self.finish(1));
                }
                b'"' => self.string = true,
                b'[' | b'{' => self.depth += 1,
                b']' | b'}' => {
                    // One too many is the parser's error.
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(self.finish(0));
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' if self.depth == 0 => return Some(self.finish(0)),
                _ if self.depth == 0 => self.bare = true,
                _ => {}
            }
        }
        None
    }

    /// Ends the text `back` bytes before the last one that was looked at.
    fn finish(&mut self, back: usize) -> usize {
        let end = self.at - back;
        *self = Self::default();
        end
    }
}
