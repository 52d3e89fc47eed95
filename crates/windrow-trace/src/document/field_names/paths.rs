//! Paths of a JSON value as a store sees them: `{"a":{"b":1}}` and `{"a.b":1}` both have a value at
//! `a.b`. A document is refused in which one path is an object and a value.
//!
//! Works on values that were written already, and only on those that may have such a path
//! (`json` decides that). Objects keep their names, values give way: they get a `_`.

use std::borrow::Cow;
use std::collections::HashMap;

use super::is_flattened;
use crate::document::json::write_string;

/// Values that are nested deeper are left as they are; records cannot be.
const MAX_DEPTH: u32 = 200;

/// What a path is in a document. Empty lists and `null` make it nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Kinds {
    object: bool,
    value: bool,
}

/// A parsed JSON value. Strings and numbers stay as they are written.
enum Node<'a> {
    Null,
    Value(&'a [u8]),
    Array(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl Node<'_> {
    /// Whether it has values but no objects.
    fn is_value(&self) -> bool {
        self.has(&|node| matches!(node, Node::Value(_))) && !self.has(&|node| matches!(node, Node::Object(_)))
    }

    fn has(&self, is: &impl Fn(&Self) -> bool) -> bool {
        match self {
            Node::Array(all) => all.iter().any(|one| one.has(is)),
            other => is(other),
        }
    }
}

/// Number of a path; 0 is the empty one.
type PathId = u32;

/// The paths of one or two sides, and what they are in each.
struct Paths {
    ids: HashMap<(PathId, String), PathId>,
    kinds: Vec<[Kinds; 2]>,
    side: usize,
}

impl Paths {
    fn new() -> Self {
        Self {
            ids: HashMap::new(),
            kinds: vec![Default::default()],
            side: 0,
        }
    }

    fn find(&self, parent: PathId, segment: &str) -> Option<PathId> {
        self.ids.get(&(parent, segment.to_owned())).copied()
    }

    fn child(&mut self, parent: PathId, segment: &str) -> PathId {
        let next = self.kinds.len() as PathId;
        let id = *self.ids.entry((parent, segment.to_owned())).or_insert(next);
        if id == next {
            self.kinds.push(Default::default());
        }
        id
    }

    fn kinds(&mut self, id: PathId) -> &mut Kinds {
        // Ids are indexes.
        &mut self.kinds[id as usize][self.side]
    }

    /// Adds a member, of whose name all but the last segment are objects. Returns its path.
    fn add_member(&mut self, parent: PathId, name: &str, node: &Node<'_>) {
        let mut id = parent;
        for segment in name.split('.') {
            self.kinds(id).object = true;
            id = self.child(id, segment);
        }
        if is_flattened(name.as_bytes()) && matches!(node, Node::Object(_)) {
            // Its members are no paths.
            self.kinds(id).object = true;
        } else {
            self.add(id, node);
        }
    }

    fn add(&mut self, id: PathId, node: &Node<'_>) {
        match node {
            Node::Null => {}
            Node::Value(_) => self.kinds(id).value = true,
            Node::Array(all) => all.iter().for_each(|one| self.add(id, one)),
            Node::Object(members) => {
                self.kinds(id).object = true;
                for (name, node) in members {
                    self.add_member(id, name, node);
                }
            }
        }
    }
}

/// Whether a field has a path that is an object in it and a value in one of the others, or the
/// other way round. Fields are names and JSON values.
pub(crate) fn is_in_conflict<'f>(
    field: (&str, &[u8]),
    others: impl Iterator<Item = (&'f str, Cow<'f, [u8]>)>,
) -> bool {
    let mut paths = Paths::new();
    let add = |paths: &mut Paths, name: &str, json: &[u8]| {
        let node = Parser::parse(json).unwrap_or(Node::Value(b"0"));
        paths.add_member(0, name, &node);
    };
    add(&mut paths, field.0, field.1);
    paths.side = 1;
    others.for_each(|(name, json)| add(&mut paths, name, &json));
    let conflicts = |[a, b]: &[Kinds; 2]| (a.object && b.value) || (a.value && b.object);
    paths.kinds.iter().any(conflicts)
}

/// Rewrites the value that ends `out`, from offset `from` on, so that no path in it is an object
/// and a value. A list of both stays one: no name could change that.
#[cold]
pub(crate) fn resolve(out: &mut Vec<u8>, from: usize) {
    let mut written = Vec::new();
    {
        let Some(node) = out.get(from..).and_then(Parser::parse) else {
            return;
        };
        let mut paths = Paths::new();
        paths.add(0, &node);
        if !paths.kinds.iter().any(|[kinds, _]| kinds.object && kinds.value) {
            return;
        }
        let mut renaming = Renaming {
            paths,
            chosen: HashMap::new(),
        };
        renaming.write(&mut written, 0, &node);
    }
    out.truncate(from);
    out.extend_from_slice(&written);
}

/// Writes a value with other names for values whose path is an object.
struct Renaming {
    paths: Paths,
    /// Names by the path of the values.
    chosen: HashMap<PathId, String>,
}

impl Renaming {
    fn write(&mut self, out: &mut Vec<u8>, id: PathId, node: &Node<'_>) {
        match node {
            Node::Null => out.extend_from_slice(b"null"),
            Node::Value(bytes) => out.extend_from_slice(bytes),
            Node::Array(all) => {
                out.push(b'[');
                for (i, one) in all.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    self.write(out, id, one);
                }
                out.push(b']');
            }
            Node::Object(members) => {
                out.push(b'{');
                for (i, (name, node)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    self.write_member(out, id, name, node);
                }
                out.push(b'}');
            }
        }
    }

    fn write_member(&mut self, out: &mut Vec<u8>, parent: PathId, name: &str, node: &Node<'_>) {
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        let mut owner = parent;
        if !path.is_empty() {
            for segment in path.split('.') {
                owner = self.paths.child(owner, segment);
            }
        }
        let id = self.paths.child(owner, last);
        if self.is_conflict(id) && node.is_value() {
            let chosen = self.choose(id, owner, last);
            begin_member(out, &format!("{}{chosen}", &name[..name.len() - last.len()]));
            write_as_it_is(out, node);
        } else {
            begin_member(out, name);
            if is_flattened(name.as_bytes()) && matches!(node, Node::Object(_)) {
                write_as_it_is(out, node);
            } else {
                self.write(out, id, node);
            }
        }
    }

    fn is_conflict(&self, id: PathId) -> bool {
        let kinds = self.paths.kinds.get(id as usize);
        kinds.is_some_and(|[kinds, _]| kinds.object && kinds.value)
    }

    /// The name in `owner` of the values at path `id`: that of the path and as many `_` as make it
    /// new.
    fn choose(&mut self, id: PathId, owner: PathId, segment: &str) -> String {
        if let Some(chosen) = self.chosen.get(&id) {
            return chosen.clone();
        }
        let mut name = format!("{segment}_");
        while self.paths.find(owner, &name).is_some() {
            name.push('_');
        }
        let new = self.paths.child(owner, &name);
        self.paths.kinds(new).value = true;
        self.chosen.insert(id, name.clone());
        name
    }
}

fn begin_member(out: &mut Vec<u8>, name: &str) {
    write_string(out, name.as_bytes());
    out.push(b':');
}

fn write_as_it_is(out: &mut Vec<u8>, node: &Node<'_>) {
    let mut renaming = Renaming {
        paths: Paths::new(),
        chosen: HashMap::new(),
    };
    renaming.write(out, 0, node);
}

/// Reads JSON that is known to be valid; anything else gives `None` or any node, but never a panic.
struct Parser<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn parse(json: &'a [u8]) -> Option<Node<'a>> {
        Self { json, at: 0 }.node(0)
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        while self.json.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        self.json.get(self.at).copied()
    }

    fn node(&mut self, depth: u32) -> Option<Node<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => {
                let mut members = Vec::new();
                self.all(b'}', |this| {
                    let name = this.string()?;
                    let name = if name.contains(&b'\\') {
                        Cow::Owned(serde_json::from_slice(name).ok()?)
                    } else {
                        let inside = name.get(1..name.len() - 1)?;
                        Cow::Borrowed(std::str::from_utf8(inside).ok()?)
                    };
                    (this.peek()? == b':').then(|| this.at += 1)?;
                    members.push((name, this.node(depth + 1)?));
                    Some(())
                })?;
                Some(Node::Object(members))
            }
            b'[' => {
                let mut all = Vec::new();
                self.all(b']', |this| {
                    all.push(this.node(depth + 1)?);
                    Some(())
                })?;
                Some(Node::Array(all))
            }
            b'"' => self.string().map(Node::Value),
            _ => {
                let rest = self.json.get(self.at..)?;
                let end = rest
                    .iter()
                    .position(|byte| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace());
                let token = rest.get(..end.unwrap_or(rest.len()))?;
                self.at += token.len();
                Some(match token {
                    b"" => return None,
                    b"null" => Node::Null,
                    _ => Node::Value(token),
                })
            }
        }
    }

    /// Reads what is between the current bracket and `end`, separated by commas.
    fn all(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        if self.peek()? == end {
            self.at += 1;
            return Some(());
        }
        loop {
            one(self)?;
            let next = self.peek()?;
            self.at += 1;
            if next == end {
                return Some(());
            }
            (next == b',').then_some(())?;
        }
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'a [u8]> {
        (self.peek()? == b'"').then_some(())?;
        let start = self.at;
        self.at += 1;
        loop {
            match self.json.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        self.json.get(start..self.at)
    }
}
