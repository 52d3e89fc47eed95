//! Embedded search: an index beside the embedded store, in a file of its own.
//!
//! A thread of low priority fills it behind the store's writer, so that no confirmation waits for
//! it. It holds nothing that the store does not have: when it is damaged, or made for other
//! settings, it is made again.
//!
//! * `schema`: the file and its tables
//! * `indexer`: follows the store: new, merged and deleted documents
//! * `entry`: what is kept of a document
//! * `reader`, `counts`: pages, histograms and facets

mod counts;
mod entry;
mod indexer;
mod reader;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use windrow_query::Names;

pub use self::indexer::{Indexer, RunningIndexer};
use self::reader::Reader;
use super::{Buckets, Facets, FoundDocument, Histogram, Lag, Page, PageRequest, SearchError, SearchFuture};
use super::{Selection, TraceSearch};
use crate::output::sqlite::{MergesRead, SqliteReader, StoreError};
use crate::runtime::CpuPool;

/// Searches that run at the same time; others wait for their turn.
const MAX_CONCURRENT_SEARCHES: usize = 2;
/// Niceness of their threads: where the cores are busy, searches take longer and acks do not.
const NICENESS: i32 = 5;

/// Settings of the index.
#[derive(Debug, Clone)]
pub struct IndexConfig {
    /// The file of the store.
    pub store: PathBuf,
    /// The fields that hold text and trace id.
    pub names: Names,
    /// Memory for the documents and terms of one step (bytes).
    pub buffer_bytes: usize,
}

impl IndexConfig {
    /// Buffer where memory does not matter (bytes). More does not make indexing faster.
    pub const MAX_BUFFER_BYTES: usize = 16 << 20;

    /// The file of the index.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        index_path(&self.store)
    }
}

/// The file of the index of a store.
#[must_use]
pub fn index_path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".search");
    name.into()
}

/// Removes the index of a store.
///
/// # Errors
///
/// A file cannot be removed.
pub fn remove(store: &Path) -> Result<(), IndexError> {
    schema::remove(&index_path(store))
}

/// The index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// SQLite reports an error.
    #[error("{path}: {source}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The error.
        source: rusqlite::Error,
    },
    /// The file cannot be examined or removed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IndexError {
    /// Whether the file is damaged, or no database.
    fn is_damage(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        matches!(self, Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. }
            if matches!(error.code, DatabaseCorrupt | NotADatabase))
    }
}

/// How far the index is; shared by the indexer, the store's writer and those who show it.
#[derive(Debug, Default)]
pub struct IndexProgress {
    lag: AtomicU64,
    indexed: AtomicU64,
    bytes: AtomicU64,
    merges: Arc<MergesRead>,
    rebuilds: AtomicU64,
}

impl IndexProgress {
    /// Documents that are stored and not indexed.
    pub fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// Documents that were indexed since the start.
    pub fn indexed(&self) -> u64 {
        self.indexed.load(Ordering::Relaxed)
    }

    /// Size of the index, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How far the store's list of merges is indexed.
    pub fn merges(&self) -> &Arc<MergesRead> {
        &self.merges
    }

    /// How often the index was made again since the start.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Ordering::Relaxed)
    }
}

/// Answers searches from the index and the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EmbeddedSearch {
    reader: Arc<Reader>,
    progress: Arc<IndexProgress>,
    turns: Arc<Semaphore>,
    threads: Arc<CpuPool>,
}

impl EmbeddedSearch {
    /// Reads the index that an [`Indexer`] fills.
    #[must_use]
    pub fn new(config: &IndexConfig, store: Arc<SqliteReader>, progress: Arc<IndexProgress>) -> Self {
        Self {
            reader: Arc::new(Reader::new(config, store)),
            progress,
            turns: Arc::new(Semaphore::new(MAX_CONCURRENT_SEARCHES)),
            threads: Arc::new(CpuPool::of_low_priority(
                "find",
                MAX_CONCURRENT_SEARCHES,
                NICENESS,
            )),
        }
    }

    /// How far the index is.
    #[must_use]
    pub fn progress(&self) -> &Arc<IndexProgress> {
        &self.progress
    }

    /// Runs a read on a thread of low priority.
    async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, SearchError> {
        // Held by the read itself, which goes on when the request is given up. The semaphore is
        // never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let reader = Arc::clone(&self.reader);
        let task = self.threads.run(move || {
            let _turn = turn;
            read(&reader)
        });
        task.await.map_err(SearchError::unavailable)
    }
}

impl TraceSearch for EmbeddedSearch {
    fn page(&self, request: PageRequest) -> SearchFuture<'_, Page> {
        Box::pin(async move {
            let mut page = self.run(move |reader| reader.page(&request)).await?;
            page.lag = Lag {
                documents: self.progress.lag(),
            };
            Ok(page)
        })
    }

    fn documents(&self, id: String, max_bytes: usize) -> SearchFuture<'_, Vec<FoundDocument>> {
        Box::pin(self.run(move |reader| reader.documents(&id, max_bytes)))
    }

    fn histogram(&self, selection: Selection, buckets: Buckets) -> SearchFuture<'_, Histogram> {
        Box::pin(self.run(move |reader| reader.histogram(&selection, buckets)))
    }

    fn facets(&self, selection: Selection) -> SearchFuture<'_, Facets> {
        Box::pin(self.run(move |reader| reader.facets(&selection)))
    }
}
