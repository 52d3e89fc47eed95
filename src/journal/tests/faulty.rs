//! A disk in memory that fails and crashes on purpose.
//!
//! It keeps apart what programs see and what would survive a power failure. Content survives once it was synced;
//! of what was written since, a crash keeps any sectors and loses any others. Names survive once the folder was
//! synced; of what was done since, a crash keeps some first part. A failed sync forgets what was not written, as
//! Linux does: a later sync of that file succeeds and saves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::blocks::BLOCK;
use super::super::storage::{Storage, StorageFile};

const SECTOR: usize = 64;
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

/// What goes wrong at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The operation fails with an error of the device; of a write, half is done.
    Broken,
    /// No space left; of a write, half is done.
    Full,
    /// A write takes only some of the bytes and says so.
    Short,
    /// The power goes: of a write, half is done, and nothing works any more until [`Disk::power_on`].
    Crash,
}

/// Operations that change something, for faults that strike only one sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Sort {
    Write,
    Sync,
    SyncFolder,
    Create,
    Allocate,
    SetLen,
    Remove,
    Rename,
    Read,
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    folders: BTreeSet<String>,
    next_node: u64,
    /// Changing operations so far.
    operations: u64,
    /// By the number of the operation.
    faults: BTreeMap<u64, Fault>,
    /// Every operation of this sort fails.
    always: BTreeMap<Sort, Fault>,
    dead: bool,
    dead_nodes: BTreeSet<u64>,
    capacity: Option<u64>,
    no_allocate: bool,
    /// Writes past the page cache are refused.
    no_direct: Option<Refused>,
    log: Vec<Sort>,
    direct_writes: u64,
}

/// How a file system says that it writes nothing past the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// At once.
    Asked,
    /// By each write.
    Write,
}

#[derive(Default, Clone)]
struct Node {
    now: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

enum NameChange {
    Set(String, u64),
    Remove(String),
}

/// A small source of chance with a seed (xorshift64*).
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n.max(1)
    }
}

impl Node {
    /// What a crash leaves.
    fn crash(&mut self, chance: &mut Chance) {
        let mode = chance.below(4);
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::SetLen(len) if mode == 1 || (mode > 1 && chance.below(2) == 0) => {
                    self.durable.resize(len, 0);
                }
                Change::SetLen(_) => {}
                Change::Write(at, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if mode == 1 || (mode > 1 && chance.below(2) == 0) {
                            put(&mut self.durable, at + index * SECTOR, sector);
                        }
                    }
                }
            }
        }
        self.now.clone_from(&self.durable);
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl State {
    /// Counts an operation; says what goes wrong with it.
    fn operation(&mut self, sort: Sort) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(os(EIO));
        }
        let fault = match sort {
            Sort::Read => None,
            _ => {
                self.operations += 1;
                self.log.push(sort);
                self.faults.remove(&self.operations)
            }
        };
        let fault = fault.or_else(|| self.always.get(&sort).copied());
        match fault {
            Some(Fault::Crash) => self.dead = true,
            Some(Fault::Short) if sort != Sort::Write => return Ok(None),
            _ => {}
        }
        // A write does half of its work first.
        match fault {
            Some(fault) if sort != Sort::Write && sort != Sort::Sync => Err(fault.error()),
            other => Ok(other),
        }
    }

    fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.entry(node).or_default()
    }

    fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        named
            .iter()
            .filter_map(|node| self.nodes.get(node))
            .map(|node| node.now.len() as u64)
            .sum()
    }

    fn room_for(&self, node: u64, len: usize) -> bool {
        let had = self.nodes.get(&node).map_or(0, |node| node.now.len());
        let more = len.saturating_sub(had) as u64;
        self.capacity
            .is_none_or(|capacity| self.used() + more <= capacity)
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => os(ENOSPC),
            Self::Broken | Self::Short | Self::Crash => os(EIO),
        }
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The operation with this number (from now on: 1 is the next one) goes wrong.
    pub(super) fn fail(&self, from_now: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + from_now;
        state.faults.insert(at, fault);
    }

    /// All operations of a sort go wrong, or none any more.
    pub(super) fn fail_always(&self, sort: Sort, fault: Option<Fault>) {
        let mut state = self.state();
        match fault {
            Some(fault) => state.always.insert(sort, fault),
            None => state.always.remove(&sort),
        };
    }

    /// The sectors of a file are dead.
    pub(super) fn break_reads_of(&self, name: &str) {
        let mut state = self.state();
        let node = state.names[name];
        state.dead_nodes.insert(node);
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn log(&self) -> Vec<Sort> {
        self.state().log.clone()
    }

    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    pub(super) fn used(&self) -> u64 {
        self.state().used()
    }

    /// A file system without `fallocate`.
    pub(super) fn without_allocate(self) -> Self {
        self.state().no_allocate = true;
        self
    }

    /// From now on.
    pub(super) fn refuse_direct(&self, how: Refused) {
        self.state().no_direct = Some(how);
    }

    /// Writes that went past the page cache.
    pub(super) fn direct_writes(&self) -> u64 {
        self.state().direct_writes
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The power goes and comes back: what was not durable may be gone.
    pub(super) fn power_cycle(&self, seed: u64) {
        let mut chance = Chance::new(seed);
        let mut state = self.state();
        state.dead = false;
        state.faults.clear();
        state.always.clear();
        let changes = std::mem::take(&mut state.name_changes);
        let kept = chance.below(changes.len() as u64 + 1) as usize;
        for change in changes.into_iter().take(kept) {
            match change {
                NameChange::Set(name, node) => state.durable_names.insert(name, node),
                NameChange::Remove(name) => state.durable_names.remove(&name),
            };
        }
        state.names = state.durable_names.clone();
        for node in state.nodes.values_mut() {
            node.crash(&mut chance);
        }
    }

    /// The process dies, the machine does not: everything stays.
    pub(super) fn process_dies(&self) {
        let mut state = self.state();
        state.dead = false;
        state.faults.clear();
        state.always.clear();
    }

    /// A copy that shares nothing.
    pub(super) fn copy(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            nodes: state.nodes.clone(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            folders: state.folders.clone(),
            next_node: state.next_node,
            ..State::default()
        })))
    }

    /// A copy that went through [`Disk::power_cycle`].
    pub(super) fn copy_with_power_failure(&self, seed: u64) -> Self {
        let state = self.state();
        let changes = state.name_changes.iter().map(|change| match change {
            NameChange::Set(name, node) => NameChange::Set(name.clone(), *node),
            NameChange::Remove(name) => NameChange::Remove(name.clone()),
        });
        let copy = Self(Arc::new(Mutex::new(State {
            nodes: state.nodes.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: changes.collect(),
            folders: state.folders.clone(),
            next_node: state.next_node,
            ..State::default()
        })));
        drop(state);
        copy.power_cycle(seed);
        copy
    }

    pub(super) fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.nodes[state.names.get(name)?].now.clone())
    }

    pub(super) fn set_content(&self, name: &str, content: &[u8]) {
        let mut state = self.state();
        let next = state.next_node;
        let node = *state.names.get(name).unwrap_or(&next);
        state.next_node = next.max(node + 1);
        state.names.insert(name.to_owned(), node);
        state.durable_names.insert(name.to_owned(), node);
        let content = content.to_vec();
        state.nodes.insert(
            node,
            Node {
                durable: content.clone(),
                now: content,
                changes: Vec::new(),
            },
        );
    }

    /// Names of all files, with those in folders.
    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}

impl Storage for Disk {
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.operation(Sort::Read)?;
        let prefix = if sub.is_empty() {
            String::new()
        } else {
            format!("{sub}/")
        };
        let names = state.names.iter().filter_map(|(name, node)| {
            let name = name.strip_prefix(&prefix).filter(|name| !name.contains('/'))?;
            Some((name.to_owned(), state.nodes[node].now.len() as u64))
        });
        Ok(names.collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut state = self.state();
        state.operation(Sort::Create)?;
        let node = state.next_node;
        state.next_node += 1;
        state.nodes.insert(node, Node::default());
        state.names.insert(name.to_owned(), node);
        state.name_changes.push(NameChange::Set(name.to_owned(), node));
        Ok(Box::new(Open {
            disk: self.clone(),
            node,
            direct: false,
        }))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Box<dyn StorageFile>> {
        let mut state = self.state();
        state.operation(Sort::Read)?;
        let node = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Open {
            disk: self.clone(),
            node,
            direct: false,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if !state.dead && !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.operation(Sort::Remove)?;
        state.names.remove(name);
        state.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Sort::Rename)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        state.name_changes.push(NameChange::Set(to.to_owned(), node));
        state.name_changes.push(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Sort::Rename)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        state.name_changes.push(NameChange::Set(to.to_owned(), node));
        Ok(())
    }

    fn create_folder(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Sort::Create)?;
        state.folders.insert(name.to_owned());
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Sort::SyncFolder)?;
        state.name_changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.state();
        Ok(state
            .capacity
            .map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

struct Open {
    disk: Disk,
    node: u64,
    direct: bool,
}

impl Open {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.operation(Sort::Sync)?;
        let node = state.node(self.node);
        match fault {
            None | Some(Fault::Short) => {
                node.durable.clone_from(&node.now);
                node.changes.clear();
                Ok(())
            }
            // Everything is still in flight when the power goes.
            Some(Fault::Crash) => Err(os(EIO)),
            Some(fault) => {
                node.changes.clear();
                Err(fault.error())
            }
        }
    }
}

impl StorageFile for Open {
    fn set_direct(&mut self, direct: bool) -> io::Result<()> {
        if direct && self.disk.state().no_direct == Some(Refused::Asked) {
            return Err(os(EINVAL));
        }
        self.direct = direct;
        Ok(())
    }

    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if self.direct {
            for slice in slices {
                let place = (
                    offset as usize % BLOCK,
                    slice.len() % BLOCK,
                    slice.as_ptr().align_offset(BLOCK),
                );
                assert_eq!(place, (0, 0, 0), "no whole blocks");
            }
            if state.no_direct == Some(Refused::Write) {
                return Err(os(EINVAL));
            }
            state.direct_writes += 1;
        }
        let fault = state.operation(Sort::Write)?;
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let at = offset as usize;
        if fault.is_some() {
            bytes.truncate(bytes.len() / 2);
        }
        let mut full = false;
        while !state.room_for(self.node, at + bytes.len()) {
            bytes.truncate(bytes.len() / 2);
            if bytes.is_empty() {
                full = true;
                break;
            }
        }
        if full && fault.is_none() {
            return Err(os(ENOSPC));
        }
        let node = state.node(self.node);
        put(&mut node.now, at, &bytes);
        let written = bytes.len();
        node.changes.push(Change::Write(at, bytes));
        match fault {
            None => Ok(written),
            Some(Fault::Short) if written > 0 => Ok(written),
            Some(Fault::Short) => Err(io::ErrorKind::Interrupted.into()),
            Some(fault) => Err(fault.error()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.operation(Sort::Read)?;
        // The first sector is alive.
        if offset > 0 && state.dead_nodes.contains(&self.node) {
            return Err(os(EIO));
        }
        let node = state.node(self.node);
        let rest = node.now.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().node(self.node).now.len() as u64)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation(Sort::SetLen)?;
        let node = state.node(self.node);
        node.now.resize(len as usize, 0);
        node.changes.push(Change::SetLen(len as usize));
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation(Sort::Allocate)?;
        if state.no_allocate {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !state.room_for(self.node, len as usize) {
            return Err(os(ENOSPC));
        }
        let node = state.node(self.node);
        if node.now.len() < len as usize {
            node.now.resize(len as usize, 0);
            node.changes.push(Change::SetLen(len as usize));
        }
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.sync()
    }
}
