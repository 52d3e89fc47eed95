//! Proofs that received records are durable: in the journal of this instance, or at a peer.

use windrow_journal::Receipt;

/// Proof that a peer has made shares durable. Only the connection to a peer makes one, from the
/// peer's ack, which the peer can only build from a receipt of its own journal.
#[derive(Debug)]
#[must_use = "an acknowledgement is made from a receipt"]
pub(crate) struct PeerReceipt(());

impl PeerReceipt {
    /// The peer has acknowledged.
    pub(super) fn of_ack() -> Self {
        Self(())
    }
}

/// Proof that everything of a run is durable: what an acknowledgement is made from.
#[derive(Debug)]
#[must_use = "an acknowledgement is made from a receipt"]
pub struct Durable(());

impl Durable {
    /// The whole run is in the journal.
    pub(crate) fn here(receipt: Receipt) -> Self {
        // Consumed: one receipt acknowledges one record.
        drop(receipt);
        Self(())
    }

    /// The run was divided: `owed` receipts of the journal and of peers make it durable. `None` if
    /// there are fewer.
    pub(super) fn of_all(owed: usize, here: Vec<Receipt>, peers: Vec<PeerReceipt>) -> Option<Self> {
        let given = here.len() + peers.len();
        drop((here, peers));
        (given == owed).then_some(Self(()))
    }
}
