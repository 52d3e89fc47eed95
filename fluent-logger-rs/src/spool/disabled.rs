//! Uninhabited spool for builds without the feature `spool`.

use crate::chunk::Chunk;
use crate::error::SpoolError;

pub(crate) enum Spool {}

impl Spool {
    pub(crate) fn wants_more(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_idle(&self) -> bool {
        match *self {}
    }

    pub(crate) fn oldest(&self) -> Option<u64> {
        match *self {}
    }

    pub(crate) fn write(&mut self, _: Chunk) {
        match *self {}
    }

    pub(crate) fn remove(&self, _: u64) {
        match *self {}
    }

    pub(crate) fn done(&mut self) -> (Vec<Chunk>, Vec<SpoolError>) {
        match *self {}
    }

    pub(crate) fn is_settled(&self) -> bool {
        match *self {}
    }

    pub(crate) fn shut_down(self) -> Vec<Chunk> {
        match self {}
    }
}
