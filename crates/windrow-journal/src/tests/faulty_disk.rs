//! In-memory disk that fails and crashes on demand.
//!
//! Models what programs see and what survives a power failure. Synced content survives; of later
//! writes a crash keeps any subset of sectors. Names survive once the folder is synced; of later
//! changes a crash keeps a prefix. A failed sync drops the dirty data, as Linux does: a later sync
//! of that file succeeds and saves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::io::Errno;

mod files;

const SECTOR: usize = 64;

/// Fault of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The operation fails with `EIO`; half of a write is done.
    Broken,
    /// The operation fails with `ENOSPC`; half of a write is done.
    Full,
    /// A short write.
    Short,
    /// The power fails: half of a write is done, and every operation fails until
    /// [`FaultyDisk::power_cycle`].
    Crash,
}

/// Kinds of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operation {
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
pub(super) struct FaultyDisk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    nodes: BTreeMap<u64, Node>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    name_changes: Vec<NameChange>,
    folders: BTreeSet<String>,
    next_node: u64,
    /// Operations so far, except reads.
    operations: u64,
    /// By the number of the operation.
    faults: BTreeMap<u64, Fault>,
    /// Every operation of this kind fails.
    always: BTreeMap<Operation, Fault>,
    dead: bool,
    dead_nodes: BTreeSet<u64>,
    capacity: Option<u64>,
    no_allocate: bool,
    /// Direct writes are refused.
    no_direct: Option<DirectIoRefusal>,
    log: Vec<Operation>,
    direct_writes: u64,
}

/// How a file system refuses direct I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectIoRefusal {
    /// When it is switched on.
    Asked,
    /// At each write.
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

/// Pseudo-random number generator with a seed (xorshift64*).
pub(super) struct Rng(u64);

impl Rng {
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
    /// Applies a power failure.
    fn crash(&mut self, rng: &mut Rng) {
        let mode = rng.below(4);
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::SetLen(len) if mode == 1 || (mode > 1 && rng.below(2) == 0) => {
                    self.durable.resize(len, 0);
                }
                Change::SetLen(_) => {}
                Change::Write(at, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                        if mode == 1 || (mode > 1 && rng.below(2) == 0) {
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

impl DiskState {
    /// Counts an operation; returns its fault.
    fn operation(&mut self, operation: Operation) -> io::Result<Option<Fault>> {
        if self.dead {
            return Err(Errno::IO.into());
        }
        let fault = match operation {
            Operation::Read => None,
            _ => {
                self.operations += 1;
                self.log.push(operation);
                self.faults.remove(&self.operations)
            }
        };
        let fault = fault.or_else(|| self.always.get(&operation).copied());
        match fault {
            Some(Fault::Crash) => self.dead = true,
            Some(Fault::Short) if operation != Operation::Write => return Ok(None),
            _ => {}
        }
        // Writes and syncs handle their faults themselves.
        match fault {
            Some(fault) if operation != Operation::Write && operation != Operation::Sync => {
                Err(fault.error())
            }
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
            Self::Full => Errno::NOSPC.into(),
            Self::Broken | Self::Short | Self::Crash => Errno::IO.into(),
        }
    }
}

impl FaultyDisk {
    fn state(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap()
    }

    /// Lets an operation fail: 1 is the next one.
    pub(super) fn fail(&self, from_now: u64, fault: Fault) {
        let mut state = self.state();
        let at = state.operations + from_now;
        state.faults.insert(at, fault);
    }

    /// Lets all operations of a kind fail, or none.
    pub(super) fn fail_always(&self, operation: Operation, fault: Option<Fault>) {
        let mut state = self.state();
        match fault {
            Some(fault) => state.always.insert(operation, fault),
            None => state.always.remove(&operation),
        };
    }

    /// Makes all sectors of a file but the first unreadable.
    pub(super) fn break_reads_of(&self, name: &str) {
        let mut state = self.state();
        let node = state.names[name];
        state.dead_nodes.insert(node);
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn log(&self) -> Vec<Operation> {
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

    /// Refuses direct I/O from the next operation on.
    pub(super) fn refuse_direct(&self, how: DirectIoRefusal) {
        self.state().no_direct = Some(how);
    }

    /// Number of direct writes.
    pub(super) fn direct_writes(&self) -> u64 {
        self.state().direct_writes
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Power failure and restart: what was not durable may be lost.
    pub(super) fn power_cycle(&self, seed: u64) {
        let mut rng = Rng::new(seed);
        let mut state = self.state();
        state.dead = false;
        state.faults.clear();
        state.always.clear();
        let changes = std::mem::take(&mut state.name_changes);
        let kept = rng.below(changes.len() as u64 + 1) as usize;
        for change in changes.into_iter().take(kept) {
            match change {
                NameChange::Set(name, node) => state.durable_names.insert(name, node),
                NameChange::Remove(name) => state.durable_names.remove(&name),
            };
        }
        state.names = state.durable_names.clone();
        for node in state.nodes.values_mut() {
            node.crash(&mut rng);
        }
    }

    /// The process is killed: everything in the page cache stays.
    pub(super) fn process_dies(&self) {
        let mut state = self.state();
        state.dead = false;
        state.faults.clear();
        state.always.clear();
    }

    /// A copy that shares nothing.
    pub(super) fn copy(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(DiskState {
            nodes: state.nodes.clone(),
            names: state.names.clone(),
            durable_names: state.names.clone(),
            folders: state.folders.clone(),
            next_node: state.next_node,
            ..DiskState::default()
        })))
    }

    /// A copy that went through [`FaultyDisk::power_cycle`].
    pub(super) fn copy_with_power_failure(&self, seed: u64) -> Self {
        let state = self.state();
        let changes = state.name_changes.iter().map(|change| match change {
            NameChange::Set(name, node) => NameChange::Set(name.clone(), *node),
            NameChange::Remove(name) => NameChange::Remove(name.clone()),
        });
        let copy = Self(Arc::new(Mutex::new(DiskState {
            nodes: state.nodes.clone(),
            durable_names: state.durable_names.clone(),
            name_changes: changes.collect(),
            folders: state.folders.clone(),
            next_node: state.next_node,
            ..DiskState::default()
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

    /// Names of all files, those in folders included.
    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }
}
