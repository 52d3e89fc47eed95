//! [`Storage`] and [`StorageFile`] on the faulty disk.

use std::io::{self, IoSlice};

use rustix::io::Errno;

use super::{Change, DirectIoRefusal, Fault, FaultyDisk, NameChange, Node, Operation, put};
use crate::storage::{BLOCK_BYTES, Storage, StorageFile};

impl Storage for FaultyDisk {
    fn list(&self, sub: &str) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.state();
        state.operation(Operation::Read)?;
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
        state.operation(Operation::Create)?;
        let node = state.next_node;
        state.next_node += 1;
        state.nodes.insert(node, Node::default());
        state.names.insert(name.to_owned(), node);
        state.name_changes.push(NameChange::Set(name.to_owned(), node));
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            node,
            direct: false,
        }))
    }

    fn open(&self, name: &str, _write: bool) -> io::Result<Box<dyn StorageFile>> {
        let mut state = self.state();
        state.operation(Operation::Read)?;
        let node = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OpenFile {
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
        state.operation(Operation::Remove)?;
        state.names.remove(name);
        state.name_changes.push(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Rename)?;
        let node = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), node);
        state.name_changes.push(NameChange::Set(to.to_owned(), node));
        state.name_changes.push(NameChange::Remove(from.to_owned()));
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::Rename)?;
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
        state.operation(Operation::Create)?;
        state.folders.insert(name.to_owned());
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state();
        state.operation(Operation::SyncFolder)?;
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

struct OpenFile {
    disk: FaultyDisk,
    node: u64,
    direct: bool,
}

impl OpenFile {
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.operation(Operation::Sync)?;
        let node = state.node(self.node);
        match fault {
            None | Some(Fault::Short) => {
                node.durable.clone_from(&node.now);
                node.changes.clear();
                Ok(())
            }
            // The power fails before anything is written.
            Some(Fault::Crash) => Err(Errno::IO.into()),
            Some(fault) => {
                node.changes.clear();
                Err(fault.error())
            }
        }
    }
}

impl StorageFile for OpenFile {
    fn set_direct(&mut self, direct: bool) -> io::Result<()> {
        if direct && self.disk.state().no_direct == Some(DirectIoRefusal::Asked) {
            return Err(Errno::INVAL.into());
        }
        self.direct = direct;
        Ok(())
    }

    fn write_at(&mut self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if self.direct {
            for slice in slices {
                let place = (
                    offset as usize % BLOCK_BYTES,
                    slice.len() % BLOCK_BYTES,
                    slice.as_ptr().align_offset(BLOCK_BYTES),
                );
                assert_eq!(place, (0, 0, 0), "direct I/O needs whole, aligned blocks");
            }
            if state.no_direct == Some(DirectIoRefusal::Write) {
                return Err(Errno::INVAL.into());
            }
            state.direct_writes += 1;
        }
        let fault = state.operation(Operation::Write)?;
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
            return Err(Errno::NOSPC.into());
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
        state.operation(Operation::Read)?;
        // The first sector stays readable.
        if offset > 0 && state.dead_nodes.contains(&self.node) {
            return Err(Errno::IO.into());
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
        state.operation(Operation::SetLen)?;
        let node = state.node(self.node);
        node.now.resize(len as usize, 0);
        node.changes.push(Change::SetLen(len as usize));
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operation(Operation::Allocate)?;
        if state.no_allocate {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !state.room_for(self.node, len as usize) {
            return Err(Errno::NOSPC.into());
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
