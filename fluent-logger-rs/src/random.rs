//! Random numbers: chunk ids from the operating system, jitter from a small generator.
//!
//! Both are one value that the delivery state machine gets as an argument, so that a test can
//! repeat them.

use std::time::Duration;

use forward_protocol::encode::ChunkId;

/// Bytes fetched from the operating system at a time: 32 chunk ids.
const POOL_BYTES: usize = 512;

pub(crate) struct Random {
    pool: [u8; POOL_BYTES],
    used: usize,
    state: u64,
}

impl Random {
    /// Seeded by the operating system.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut pool = [0; POOL_BYTES];
        getrandom::fill(&mut pool)?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        Ok(Self {
            pool,
            used: 0,
            state: u64::from_ne_bytes(seed) | 1,
        })
    }

    /// A fresh id.
    pub(crate) fn chunk_id(&mut self) -> ChunkId {
        ChunkId::from_random(self.bytes())
    }

    /// Random bytes from the operating system.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > POOL_BYTES {
            // It worked at the start, and Linux, macOS and Windows do not fail later. If one did:
            // the generator below still gives ids that differ from each other.
            if getrandom::fill(&mut self.pool).is_err() {
                for place in 0..POOL_BYTES {
                    let byte = self.next().to_be_bytes()[0];
                    if let Some(slot) = self.pool.get_mut(place) {
                        *slot = byte;
                    }
                }
            }
            self.used = 0;
        }
        let mut out = [0; N];
        if let Some(bytes) = self.pool.get(self.used..self.used + N) {
            out.copy_from_slice(bytes);
        }
        self.used += N;
        out
    }

    /// xorshift64*: good enough to spread clients.
    pub(crate) fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Between 0 and 1.
    pub(crate) fn unit(&mut self) -> f64 {
        // 53 bits, exactly what an f64 holds.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Between `from` and `to`.
    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        from + to.saturating_sub(from).mul_f64(self.unit())
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn chunk_ids_have_24_characters_and_differ() {
        let mut random = Random::new().unwrap();
        let mut seen = HashSet::new();
        for _ in 0..100_000 {
            let id = random.chunk_id();
            assert_eq!(id.as_bytes().len(), 24);
            assert!(seen.insert(id));
        }
    }

    #[test]
    fn jitter_stays_in_its_range() {
        let mut random = Random::new().unwrap();
        let (from, to) = (Duration::from_millis(50), Duration::from_millis(100));
        for _ in 0..10_000 {
            let value = random.between(from, to);
            assert!(value >= from && value <= to, "{value:?}");
        }
        assert_eq!(random.between(to, from), to);
    }
}
