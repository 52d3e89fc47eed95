//! Buckets of a histogram: widths that people read easily, aligned to multiples of their width.

/// Widths, ms. Those of a minute and more are whole minutes.
const WIDTHS_MS: [i64; 26] = [
    1,
    10,
    100,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    15_000,
    30_000,
    60_000,
    2 * 60_000,
    5 * 60_000,
    10 * 60_000,
    15 * 60_000,
    30 * 60_000,
    3_600_000,
    2 * 3_600_000,
    3 * 3_600_000,
    6 * 3_600_000,
    12 * 3_600_000,
    86_400_000,
    2 * 86_400_000,
    7 * 86_400_000,
    30 * 86_400_000,
    365 * 86_400_000,
];

/// Buckets of one width between two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets {
    /// First time, Unix ms, inclusive.
    pub from_ms: i64,
    /// Last time, Unix ms, inclusive.
    pub to_ms: i64,
    /// Width, ms.
    pub width_ms: i64,
}

impl Buckets {
    /// The narrowest buckets of which at most `count` cover the time; two, if that is one and the
    /// time is on both sides of 1970. The first and the last may
    /// reach beyond it.
    #[must_use]
    pub fn covering(from_ms: i64, to_ms: i64, count: i64) -> Self {
        let at_most = |count: i64| {
            let wider = std::iter::successors(WIDTHS_MS.last().copied(), |width| width.checked_mul(2));
            let fits = |width: &i64| to_ms.div_euclid(*width) - from_ms.div_euclid(*width) < count;
            WIDTHS_MS.into_iter().chain(wider).find(fits)
        };
        // The start of 1970 is always the end of a bucket, so one is not enough around it.
        let width = at_most(count).or_else(|| at_most(2));
        Self {
            from_ms,
            to_ms,
            width_ms: width.unwrap_or(i64::MAX),
        }
    }

    /// The start of the bucket of a time.
    #[must_use]
    pub fn start_of(&self, time_ms: i64) -> i64 {
        time_ms.div_euclid(self.width_ms) * self.width_ms
    }

    /// The starts of all buckets, ascending.
    pub fn starts(&self) -> impl Iterator<Item = i64> {
        let width = self.width_ms;
        let (first, last) = (self.start_of(self.from_ms), self.to_ms);
        std::iter::successors(Some(first), move |start| start.checked_add(width))
            .take_while(move |start| *start <= last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_time_and_are_not_too_many() {
        let day = 86_400_000;
        for (from, length) in [
            (0, 1),
            (17, 999),
            (1_790_000_000_123, 3_600_000),
            (5, day),
            (-day, 400 * day),
        ] {
            for count in [1, 10, 60, 500] {
                let buckets = Buckets::covering(from, from + length, count);
                let starts: Vec<_> = buckets.starts().collect();
                let most = if from < 0 { count.max(2) } else { count };
                assert!(starts.len() as i64 <= most, "{buckets:?}: {}", starts.len());
                assert!(starts[0] <= from && starts[starts.len() - 1] + buckets.width_ms > from + length);
                assert!(starts.iter().all(|start| buckets.start_of(*start) == *start));
            }
        }
        assert_eq!(Buckets::covering(0, day - 1, 60).width_ms, 1_800_000);
        assert_eq!(Buckets::covering(0, 900_000, 60).width_ms, 30_000);
    }
}
