//! Cluster: several instances that hand records to the owners of their traces.
//!
//! Ownership only saves work: whichever instance gathers a record, the store's compare-and-set and
//! the union of documents decide. So there is no election, no shared state and no consensus, and two
//! instances may disagree about the members at any moment.
//!
//! * `members`: this instance and the peers that take records;
//! * `rendezvous`: the owner of a trace among them;
//! * `splitter`, `share`: a chunk becomes one share for each owner, with the identity of the whole;
//! * `peer`, `connection`, `control`, `access`: what is handed over, and the ack for it;
//! * `receipt`: the proof that everything of a run is durable.
//!
//! One hop: what a peer hands over is stored as shares and never split again.

mod access;
mod connection;
mod control;
mod members;
mod peer;
mod receipt;
mod rendezvous;
mod share;
mod splitter;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windrow_journal::{AppendError, Journal};

pub(crate) use self::control::{Control, write_hello_reply};
pub use self::peer::PeerView;
pub use self::receipt::Durable;
pub use self::share::CHUNK_SHARES;
pub(crate) use self::share::Share;
pub(crate) use self::splitter::SplitSettings;

/// What tests of gathering split with.
#[cfg(test)]
pub(crate) mod testing {
    pub(crate) use super::rendezvous::Seat;
    pub(crate) use super::splitter::{FreshIds, HeldTags, SplitContext, SplitRun, Splitter};
}

use self::access::Access;
use self::members::{Members, Membership};
use self::peer::HandOver;
use self::splitter::{FreshIds, HeldTags, SplitContext, SplitRun, Splitter};
use crate::clock;
use crate::config::{Config, PeerAddress};
use crate::input::forward::{FORWARD_MESSAGES, TlsError};
use crate::memory::to_usize;
use crate::metrics::{Kept, Metrics};
use crate::runtime::block_in_place;

/// From this size on, splitting a run takes a millisecond.
const BLOCKING_SPLIT_BYTES: usize = 256 << 10;
/// From this size on, the checksum of a run does.
const BLOCKING_APPEND_BYTES: usize = 16 << 20;
/// Share of `memory_limit` that runs may have while they are being divided.
const MEMORY_SHARE: u64 = 16;

/// Why there is no cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no random bytes.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// This instance among its peers.
#[derive(Debug)]
pub struct Cluster {
    instance: u64,
    membership: Arc<Membership>,
    settings: SplitSettings,
    access: Arc<Access>,
    splitters: Mutex<Vec<Splitter>>,
    fresh: FreshIds,
    held: Arc<Mutex<HeldTags>>,
    /// How long a peer may take.
    timeout: Duration,
    /// Bytes of runs that are being divided, and their limit.
    dividing: AtomicUsize,
    max_dividing: usize,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

/// Told of the lines that began before a restart and are not complete.
#[derive(Debug)]
pub(crate) struct ResumedLines {
    held: Arc<Mutex<HeldTags>>,
    timeout: Duration,
}

impl ResumedLines {
    /// These tags have such a line: what follows under them stays here. Others are split again.
    pub(crate) fn known<'t>(self, tags: impl Iterator<Item = &'t [u8]>) {
        let until = std::time::Instant::now() + self.timeout;
        let mut held = lock(&self.held);
        tags.for_each(|tag| held.hold(tag, until));
        held.hold_all(None);
    }
}

/// Counts the bytes of a run while it is divided.
struct Dividing<'a>(&'a AtomicUsize, usize);

impl Drop for Dividing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Asks every configured peer once whether it takes records; one line for each address, and whether
/// it is as it should be.
///
/// # Errors
///
/// A certificate cannot be read.
pub(crate) async fn inspect(config: &Config) -> Result<Vec<(bool, String)>, ClusterError> {
    let access = Access::from_config(config, 0)?;
    let mut lines = Vec::new();
    for peer in &config.cluster.peers {
        let found: Vec<(std::net::SocketAddr, Option<&str>)> = match peer {
            PeerAddress::Socket(address) => vec![(*address, None)],
            PeerAddress::Dns { name, port } => match members::resolve(name, *port).await {
                Ok(found) => found
                    .into_iter()
                    .map(|address| (address, Some(&**name)))
                    .collect(),
                Err(why) => {
                    lines.push((false, format!("{peer} cannot be resolved: {why}")));
                    continue;
                }
            },
        };
        for (address, name) in found {
            lines.push(match connection::ask(address, name, &access).await {
                Ok(Some(instance)) => (true, format!("peer {address} is instance {instance:016x}")),
                Ok(None) => (
                    false,
                    format!("peer {address} answers, but takes no records: set cluster.peers there"),
                ),
                Err(why) => (false, format!("peer {address} does not answer: {why}")),
            });
        }
    }
    Ok(lines)
}

impl Cluster {
    /// Reads certificates; `None` without `cluster.peers`. Connects to nothing before
    /// [`Self::start`].
    pub(crate) fn new(
        config: &Config,
        instance: u64,
        settings: SplitSettings,
        metrics: Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, ClusterError> {
        if config.cluster.peers.is_empty() {
            return Ok(None);
        }
        let stop = CancellationToken::new();
        let access = Access::from_config(config, instance)?;
        let peers = config.cluster.peers.clone();
        let access = Arc::new(access);
        let membership = Membership::new(
            instance,
            peers,
            Arc::clone(&access),
            Arc::clone(&metrics),
            stop.clone(),
        );
        Ok(Some(Arc::new(Self {
            instance,
            membership,
            settings,
            access,
            splitters: Mutex::default(),
            fresh: FreshIds::new()?,
            held: Arc::default(),
            timeout: config.cluster.timeout,
            dividing: AtomicUsize::new(0),
            max_dividing: to_usize(config.memory_limit / MEMORY_SHARE),
            metrics,
            stop,
        })))
    }

    /// For when the journal has records of a previous run: until it is known which tags have a part
    /// of a line among them, no chunk is split.
    pub(crate) fn resume(&self) -> ResumedLines {
        lock(&self.held).hold_all(Some(std::time::Instant::now() + self.settings.line_timeout));
        ResumedLines {
            held: Arc::clone(&self.held),
            timeout: self.settings.line_timeout,
        }
    }

    /// Reads the certificates again, for new connections. After an error the old ones stay in use.
    ///
    /// # Errors
    ///
    /// The file that cannot be used.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        self.access.reload()
    }

    /// Starts following the peers.
    pub(crate) fn start(&self) {
        self.membership.start();
    }

    /// Closes the connections to the peers. What is on its way to them is kept here.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The number by which peers know this instance.
    pub(crate) fn instance(&self) -> u64 {
        self.instance
    }

    /// The peers as an operator sees them.
    pub(crate) fn peers(&self) -> Vec<PeerView> {
        self.membership.peers()
    }

    /// What an operator should know of the peers.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.membership.notes()
    }

    /// Makes a run of messages durable, each record at the owner of its trace or here.
    ///
    /// `on_stored` is called once what stays is in the journal: then only peers are waited for.
    pub(crate) async fn commit(
        &self,
        journal: &Journal,
        source: u64,
        run: Bytes,
        on_stored: impl FnOnce(),
    ) -> Result<Durable, AppendError> {
        let members = self.membership.current();
        let dividing = match members.peers.is_empty() {
            true => None,
            false => self.divide(&run),
        };
        let split = match &dividing {
            Some(_) => self.split(&run, &members),
            None => SplitRun::default(),
        };
        for kept in &split.indivisible {
            self.metrics.cluster.kept[*kept].inc();
        }
        if split.is_whole() {
            let receipt = match run.len() {
                0..BLOCKING_APPEND_BYTES => journal.append_from(source, FORWARD_MESSAGES, run),
                _ => block_in_place(|| journal.append_from(source, FORWARD_MESSAGES, run)),
            };
            let receipt = receipt.await?;
            on_stored();
            return Ok(Durable::here(receipt));
        }
        drop(run);
        self.settle(journal, source, split, &members, on_stored).await
    }

    /// Hands over the shares of others, stores the rest, and then what could not be handed over.
    async fn settle(
        &self,
        journal: &Journal,
        source: u64,
        split: SplitRun,
        members: &Members,
        on_stored: impl FnOnce(),
    ) -> Result<Durable, AppendError> {
        let deadline = Instant::now() + self.timeout;
        let mut given: Vec<(HandOver, Bytes, u64)> = Vec::new();
        let mut stays = split.kept;
        for (seat, share) in split.others {
            let peer = seat.checked_sub(1).and_then(|index| members.peers.get(index));
            let records = share.records;
            let bytes = Bytes::from(share);
            match peer.map(|peer| peer.hand_over(bytes.clone())) {
                Some(Ok(hand_over)) => given.push((hand_over, bytes, records)),
                other => {
                    if let Some(Err(kept)) = other {
                        self.metrics.cluster.kept[kept].inc();
                    }
                    stays.extend_from_slice(&bytes);
                }
            }
        }
        let mut owed = given.len();
        let appends: Vec<_> = [(FORWARD_MESSAGES, split.whole), (CHUNK_SHARES, stays)]
            .into_iter()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(kind, bytes)| journal.append_from(source, kind, bytes.into()))
            .collect();
        owed += appends.len();
        let mut here = Vec::with_capacity(appends.len() + 1);
        for append in appends {
            here.push(append.await?);
        }
        on_stored();
        let (mut peers, mut late) = (Vec::new(), Vec::new());
        for (hand_over, bytes, records) in given {
            match hand_over.receipt(deadline, records).await {
                Ok(receipt) => {
                    self.metrics.cluster.records_handed_over.inc_by(records);
                    peers.push(receipt);
                }
                Err(kept) => {
                    self.metrics.cluster.kept[kept].inc();
                    late.extend_from_slice(&bytes);
                    owed -= 1;
                }
            }
        }
        if !late.is_empty() {
            owed += 1;
            let append = journal.append_from(source, CHUNK_SHARES, late.into());
            here.push(append.await?);
        }
        Durable::of_all(owed, here, peers).ok_or(AppendError::Closed)
    }

    /// Counts a run that may be divided; `None` if too many are.
    fn divide(&self, run: &Bytes) -> Option<Dividing<'_>> {
        let dividing = Dividing(&self.dividing, run.len());
        let before = self.dividing.fetch_add(run.len(), Ordering::Relaxed);
        if before + run.len() > self.max_dividing {
            self.metrics.cluster.kept[Kept::Busy].inc();
            return None;
        }
        Some(dividing)
    }

    fn split(&self, run: &[u8], members: &Members) -> SplitRun {
        let splitter = lock(&self.splitters).pop();
        let mut splitter = splitter.unwrap_or_else(|| Splitter::new(&self.settings));
        let received = clock::unix_us();
        let mut work = || {
            let context = SplitContext {
                seats: &members.seats,
                fresh: &self.fresh,
                held: &self.held,
                received,
            };
            splitter.split(run, &context)
        };
        let split = match run.len() {
            0..BLOCKING_SPLIT_BYTES => work(),
            _ => block_in_place(work),
        };
        lock(&self.splitters).push(splitter);
        split
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
