//! Rendezvous hashing: the owner of a trace among the reachable members.
//!
//! Each member has a score for each trace, and the highest one owns it. Every instance computes the
//! same scores from the ids alone. When a member joins, it takes its share from all others; when one
//! goes, only its traces move.

use twox_hash::{XxHash3_64, XxHash3_128};

/// A member as the hashing sees it: its id, hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat(u64);

impl Seat {
    /// The seat of the member with this id.
    pub(crate) fn of(id: u64) -> Self {
        let hash = XxHash3_128::oneshot(&id.to_be_bytes());
        Self((hash >> 64) as u64)
    }

    /// The score of a trace, of which higher is better.
    #[inline]
    fn score(self, trace: u64) -> u64 {
        // The finalizer of SplitMix64: scores of two members for one trace are independent.
        let mut mixed = trace ^ self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Index of the member that owns the trace; 0 of an empty list.
#[inline]
pub(crate) fn owner(trace_id: &[u8], seats: &[Seat]) -> usize {
    let trace = XxHash3_64::oneshot(trace_id);
    let (mut best, mut highest) = (0, 0);
    for (index, seat) in seats.iter().enumerate() {
        let score = seat.score(trace);
        // Equal scores are possible in theory; the order of the list must not decide.
        if score > highest || (score == highest && seats.get(best).is_some_and(|other| seat.0 > other.0)) {
            (best, highest) = (index, score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACES: usize = 60_000;

    fn traces() -> impl Iterator<Item = String> {
        (0..TRACES).map(|number| format!("{:032x}", number as u128 * 0x9e37_79b9_7f4a_7c15))
    }

    fn seats(count: u64) -> Vec<Seat> {
        (1..=count).map(Seat::of).collect()
    }

    #[test]
    fn each_member_owns_its_share() {
        for members in [3, 10, 50] {
            let seats = seats(members);
            let mut owned = vec![0usize; seats.len()];
            traces().for_each(|trace| owned[owner(trace.as_bytes(), &seats)] += 1);
            let fair = TRACES as f64 / members as f64;
            let (least, most) = (*owned.iter().min().unwrap(), *owned.iter().max().unwrap());
            println!(
                "{members} members: the least loaded has {:.3}, the most {:.3} of a fair share",
                least as f64 / fair,
                most as f64 / fair
            );
            // Five standard deviations of a fair draw.
            let bound = 5.0 * fair.sqrt();
            assert!(
                (least as f64) > fair - bound && (most as f64) < fair + bound,
                "{owned:?}"
            );
        }
    }

    #[test]
    fn only_the_share_of_a_new_member_moves() {
        for members in [3, 10, 50] {
            let (before, after) = (seats(members), seats(members + 1));
            let new = after.len() - 1;
            let mut moved = 0;
            for trace in traces() {
                let (from, to) = (owner(trace.as_bytes(), &before), owner(trace.as_bytes(), &after));
                if from != to {
                    assert_eq!(to, new, "no trace moves between members that stay");
                    moved += 1;
                }
            }
            let fair = TRACES as f64 / (members + 1) as f64;
            println!("{members} members and one more: {moved} of {TRACES} traces move, {fair:.0} are fair");
            assert!((f64::from(moved) - fair).abs() < 5.0 * fair.sqrt());
        }
    }

    proptest! {
        #[test]
        fn the_order_of_the_list_does_not_matter(
            ids in proptest::collection::hash_set(any::<u64>(), 1..20),
            trace in proptest::collection::vec(any::<u8>(), 1..40),
        ) {
            let forward: Vec<Seat> = ids.iter().copied().map(Seat::of).collect();
            let backward: Vec<Seat> = forward.iter().rev().copied().collect();
            prop_assert_eq!(
                forward[owner(&trace, &forward)],
                backward[owner(&trace, &backward)]
            );
        }
    }
}
