//! How many bytes of complete traces may wait for stragglers at a time, apart from the limit of all memory.
//!
//! Owns the choice between two prices. Traces that wait beyond what the processor's cache holds cost memory, and are read
//! from there when they are sealed, which is a third of all the work that they make. A straggler that comes when its trace
//! is sealed already costs a read and a second write in the outputs, as much as some dozens of waiting traces. Mostly there
//! are no stragglers: so little may wait, until some of those that were sealed early turn out to have been missed; and
//! nothing at all while more come than that little, and no stragglers for those that wait. In the beginning, when nothing is
//! known of stragglers, less than that little.
//! When traces are due, and that sealing early loses nothing, is not decided here.

use std::collections::{HashSet, VecDeque};

use crate::trace_id::Hashed;

/// Bytes that may wait, as long as there are not more: some thousands of traces, about what stays in the cache. When there
/// are, either more may wait or nothing.
const LEAST: usize = 4 << 20;
/// After so many traces that were sealed early it is looked how many stragglers came in time.
const LOOK: u32 = 1 << 13;
/// Bytes that may wait in the beginning, and the first look comes after so many: nothing is known of stragglers yet, and
/// whatever waits then takes memory that was never touched before, which is the dearest there is.
const FIRST: usize = 512 << 10;
const FIRST_LOOK: u32 = 1 << 10;
/// One in so many of the traces that are sealed early is watched.
const SAMPLE: u64 = 64;
/// Traces that are watched at the most.
const WATCHED: usize = 1 << 14;
/// Of the watched ones so many must have been missed, and one in [`DEAR`], before more may wait.
const SOME: u32 = 4;
const DEAR: u32 = 64;
/// As long as one in so many of them is missed, no less may wait.
const CHEAP: u32 = 512;
/// After so many watched ones counting begins anew.
const WINDOW: u32 = 1024;
/// How long, in µs, until half as many may wait when nothing speaks against it.
const FORGET: i64 = 60_000_000;

/// See above.
#[derive(Debug)]
pub(crate) struct Patience {
    least: usize,
    most: usize,
    room: usize,
    /// It has not been looked yet who comes.
    first: bool,
    /// Hashes of traces that were sealed early, and when they would have been, in that order.
    watched: VecDeque<(i64, u64)>,
    /// Those of them that nobody has missed yet.
    hashes: HashSet<u64, Hashed>,
    /// Watched since counting began, and missed.
    begun: u32,
    missed: u32,
    /// When there was reason last to let as many wait as do.
    needed: i64,
    /// Sealed early since stragglers that came in time are counted, and those.
    early: u32,
    in_time: u32,
    /// While nothing waits: bytes that were sealed since then.
    sealed: usize,
    since: i64,
}

impl Patience {
    /// No more than `most` bytes may ever wait.
    pub(crate) fn new(most: usize) -> Self {
        let least = LEAST.min(most);
        Self {
            least,
            most,
            room: FIRST.min(least),
            first: true,
            watched: VecDeque::new(),
            hashes: HashSet::default(),
            begun: 0,
            missed: 0,
            needed: -FORGET,
            early: 0,
            in_time: 0,
            sealed: 0,
            since: 0,
        }
    }

    /// Bytes that may wait now.
    #[inline]
    pub(crate) fn room(&mut self, now: i64) -> usize {
        if self.room > self.least && !(0..FORGET).contains(&(now - self.needed)) {
            self.room = (self.room / 2).max(self.least);
            self.needed = now;
        }
        self.room
    }

    /// The trace of this hash, which takes so many bytes, is sealed although it is due only then.
    #[inline]
    pub(crate) fn hurried(&mut self, now: i64, hash: u64, due: i64, bytes: usize) {
        if self.room == 0 {
            self.sealed += bytes;
            let linger = due - now;
            if !(0..linger).contains(&(now - self.since)) {
                self.look_whether_many(now, linger);
            }
        } else {
            self.early += 1;
            let enough = if self.first { FIRST_LOOK } else { LOOK };
            if self.early >= enough {
                self.look_who_came(now);
            }
        }
        if hash.is_multiple_of(SAMPLE) {
            self.watch(now, hash, due);
        }
    }

    /// A straggler came for one that waited.
    #[inline]
    pub(crate) fn came_in_time(&mut self) {
        self.in_time += 1;
    }

    /// If hardly anybody came for those that waited, nothing waits from now on; otherwise no less than usual. Not soon after
    /// some were missed: stragglers may come a second later, when that many have been sealed again and again.
    #[cold]
    fn look_who_came(&mut self, now: i64) {
        let nobody = self.in_time.saturating_mul(CHEAP) < self.early;
        let missed =
            (0..FORGET).contains(&(now - self.needed)) || self.missed.saturating_mul(CHEAP) > self.begun;
        if nobody && !missed && self.room <= self.least {
            self.room = 0;
            (self.sealed, self.since) = (0, now);
        } else {
            self.room = self.room.max(self.least);
        }
        self.first = false;
        (self.early, self.in_time) = (0, 0);
    }

    /// If as many as are sealed could wait, they do from now on.
    #[cold]
    fn look_whether_many(&mut self, now: i64, linger: i64) {
        let at_a_time = self.sealed as i128 * i128::from(linger) / i128::from((now - self.since).max(1));
        if at_a_time < self.least as i128 {
            self.room = self.least;
        }
        (self.sealed, self.since) = (0, now);
    }

    /// A trace of this hash begins, which is not among those that wait.
    #[inline]
    pub(crate) fn begins(&mut self, now: i64, hash: u64) {
        if hash.is_multiple_of(SAMPLE) && self.hashes.remove(&hash) {
            self.miss(now);
        }
    }

    fn watch(&mut self, now: i64, hash: u64, due: i64) {
        while let Some((due, hash)) = self.watched.front()
            && *due <= now
        {
            self.hashes.remove(hash);
            self.watched.pop_front();
        }
        if self.watched.len() >= WATCHED {
            return;
        }
        if self.begun >= WINDOW {
            if self.missed.saturating_mul(CHEAP) >= self.begun {
                self.needed = now;
            }
            (self.begun, self.missed) = (0, 0);
        }
        if self.hashes.insert(hash) {
            self.begun += 1;
            self.watched.push_back((due, hash));
        }
    }

    #[cold]
    fn miss(&mut self, now: i64) {
        self.missed += 1;
        if self.missed < SOME || self.missed.saturating_mul(DEAR) < self.begun {
            return;
        }
        self.room = self.room.saturating_mul(2).clamp(self.least, self.most);
        self.needed = now;
        // What is missed from now on has to come of the new room.
        self.watched.clear();
        self.hashes.clear();
        (self.begun, self.missed) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    /// Seals so many traces early, of which one in `each` is missed a moment later.
    fn seal(patience: &mut Patience, now: i64, count: u64, each: Option<u64>) {
        for number in 0..count {
            // Of another round others.
            let hash = (now as u64).wrapping_mul(0x9e37_79b9) << 24 | number;
            patience.hurried(now, hash, now + SECOND, 800);
            if each.is_some_and(|each| (number / SAMPLE).is_multiple_of(each)) {
                patience.begins(now, hash);
            }
        }
    }

    #[test]
    fn more_may_wait_while_some_are_missed() {
        let mut patience = Patience::new(100 << 20);
        assert_eq!(patience.room(0), FIRST);
        seal(&mut patience, 1, 1000, None);
        assert_eq!(patience.room(1), FIRST, "nobody came, of few");
        seal(&mut patience, 2 * SECOND, 100_000, Some(500));
        assert!(patience.room(2 * SECOND) <= LEAST, "one in five hundred is cheap");
        seal(&mut patience, 4 * SECOND, 20_000, Some(20));
        assert!(patience.room(4 * SECOND) > LEAST);
        for round in 3..20 {
            seal(&mut patience, 2 * round * SECOND, 20_000, Some(20));
        }
        assert_eq!(patience.room(40 * SECOND), 100 << 20, "no more than there is");
    }

    #[test]
    fn what_nobody_needs_is_given_up_again() {
        let mut patience = Patience::new(16 << 20);
        for round in 1..4 {
            seal(&mut patience, 2 * round * SECOND, 20_000, Some(20));
        }
        assert_eq!(patience.room(10 * SECOND), 16 << 20);
        // Now and then one is missed: not enough for more, but as much is needed.
        for round in 5..40 {
            seal(&mut patience, 2 * round * SECOND, 3 * 65_536, Some(200));
            assert_eq!(patience.room(2 * round * SECOND), 16 << 20);
        }
        for round in 40..130 {
            seal(&mut patience, 2 * round * SECOND, 65_536, None);
            patience.room(2 * round * SECOND);
        }
        assert_eq!(patience.room(260 * SECOND), 0);
        // By a clock that was set back as well.
        for round in 1..3 {
            seal(&mut patience, (400 + 2 * round) * SECOND, 20_000, Some(20));
        }
        assert!(patience.room(404 * SECOND) > LEAST);
        patience.room(0);
        assert!(patience.room(FORGET) <= LEAST);
    }

    #[test]
    fn nothing_waits_while_nobody_comes_and_there_is_too_much_of_it() {
        let mut patience = Patience::new(100 << 20);
        // One in a hundred comes in time.
        (0..FIRST_LOOK / 100).for_each(|_| patience.came_in_time());
        seal(&mut patience, 1, u64::from(FIRST_LOOK), None);
        for _ in 0..10 {
            assert_eq!(patience.room(SECOND), LEAST);
            (0..LOOK / 100).for_each(|_| patience.came_in_time());
            seal(&mut patience, SECOND, u64::from(LOOK), None);
        }
        assert_eq!(patience.room(SECOND), LEAST);
        // Hardly one.
        seal(&mut patience, 2 * SECOND, 2 * u64::from(LOOK), None);
        patience.came_in_time();
        seal(&mut patience, 2 * SECOND, u64::from(LOOK), None);
        assert_eq!(patience.room(2 * SECOND), 0);
        // As long as there are that many.
        for second in 3..10 {
            seal(&mut patience, second * SECOND, 10_000, None);
            assert_eq!(patience.room(second * SECOND), 0);
        }
        seal(&mut patience, 11 * SECOND, 1000, None);
        seal(&mut patience, 12 * SECOND, 1000, None);
        assert_eq!(patience.room(12 * SECOND), LEAST, "these have room");
        seal(&mut patience, 13 * SECOND, 3 * u64::from(LOOK), None);
        assert_eq!(patience.room(13 * SECOND), 0);
        // A single one long after the last.
        seal(&mut patience, 1000 * SECOND, 1, None);
        assert_eq!(patience.room(1000 * SECOND), LEAST);
        seal(&mut patience, 1001 * SECOND, 3 * u64::from(LOOK), None);
        assert_eq!(patience.room(1001 * SECOND), 0);
        // Until some are missed.
        seal(&mut patience, 1002 * SECOND, 20_000, Some(20));
        assert!(patience.room(1002 * SECOND) >= LEAST);
        seal(&mut patience, 1003 * SECOND, 20_000, Some(20));
        assert!(patience.room(1003 * SECOND) > LEAST);
    }

    #[test]
    fn that_nobody_comes_shows_soon_in_the_beginning() {
        let mut patience = Patience::new(100 << 20);
        seal(&mut patience, 1, u64::from(FIRST_LOOK) - 1, None);
        assert_eq!(patience.room(1), FIRST);
        seal(&mut patience, 2, 1, None);
        assert_eq!(patience.room(2), 0);
        // Later a first look is one as all others.
        seal(&mut patience, 10 * SECOND, 1, None);
        assert_eq!(patience.room(10 * SECOND), LEAST, "few came since");
        seal(&mut patience, 11 * SECOND, u64::from(LOOK) - 1, None);
        assert_eq!(patience.room(11 * SECOND), LEAST);
        seal(&mut patience, 12 * SECOND, 1, None);
        assert_eq!(patience.room(12 * SECOND), 0);
    }

    #[test]
    fn stragglers_that_come_later_are_waited_for_in_the_end() {
        let mut patience = Patience::new(100 << 20);
        // 100,000 traces a second, and for each of them a straggler half a second later.
        let hash = |number: i64| (number + 100_000) as u64;
        for number in 0..1_000_000 {
            let now = number * 10;
            patience.hurried(now, hash(number), now + SECOND, 800);
            patience.begins(now, hash(number - 50_000));
        }
        assert!(patience.room(10 * SECOND) > 16 * LEAST, "{}", patience.room);
    }

    #[test]
    fn it_remembers_a_bounded_number_until_they_are_due() {
        let mut patience = Patience::new(1 << 30);
        for number in 0..10 * WATCHED as u64 {
            patience.hurried(0, number * SAMPLE, 3600 * SECOND, 800);
        }
        assert_eq!(
            (patience.watched.len(), patience.hashes.len()),
            (WATCHED, WATCHED)
        );
        // One that was due before it came again was not missed.
        for number in 0..WATCHED as u64 {
            patience.hurried(3600 * SECOND, (1 << 40 | number) * SAMPLE, 3601 * SECOND, 800);
            patience.begins(3600 * SECOND, number * SAMPLE);
        }
        assert!(patience.room(3600 * SECOND) <= LEAST);
        assert!(patience.hashes.len() <= WATCHED);
    }

    #[test]
    fn never_more_than_all_there_is() {
        assert_eq!(Patience::new(1000).room(0), 1000);
    }
}
