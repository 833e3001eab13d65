//! Shuffled epochs without memory: a keyed permutation of the row numbers.
//!
//! Batch `k` of an epoch is a function of (rows, batch size, seed, epoch, k) alone, so a run resumes at any batch
//! by asking for it. The permutation is a Feistel network on the next power of two; positions that land behind
//! the last row walk on along their cycle until they land on a row (Black and Rogaway, 2002).

use rayon::prelude::*;

use crate::hash::mix64;
use crate::{Error, Result, pool};

const ROUNDS: usize = 10;

/// Tables below 4096 rows are permuted inside 4096: on a few bits a Feistel network reaches few permutations.
const MIN_BITS: u32 = 12;

/// Positions that pass through the network side by side.
const LANES: usize = 8;

/// Rows that one task computes.
const BLOCK: usize = 1024;

/// A permutation of `0..n` that is computed, not stored.
#[derive(Debug, Clone)]
pub struct Permutation {
    n: u64,
    low_bits: u32,
    low_mask: u64,
    high_mask: u64,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..n` for this seed and epoch.
    pub fn new(n: u64, seed: u64, epoch: u64) -> Self {
        let bits = (u64::BITS - n.saturating_sub(1).leading_zeros()).max(MIN_BITS);
        let low_bits = bits / 2;
        // Golden-ratio steps keep (seed, epoch) and (seed + 1, epoch - 1) apart.
        let mut state =
            mix64(mix64(seed.wrapping_add(GOLDEN)).wrapping_add(epoch.wrapping_add(GOLDEN)));
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(GOLDEN);
            mix64(state)
        });
        Self {
            n,
            low_bits,
            low_mask: (1 << low_bits) - 1,
            high_mask: (1 << (bits - low_bits)) - 1,
            keys,
        }
    }

    /// The rows at `first..first + out.len()`, all of which must be below `n`.
    ///
    /// One position waits for twenty multiplications in a row, so eight go through the network side by side.
    pub fn fill(&self, first: u64, out: &mut [i64]) {
        debug_assert!(out.len() as u64 <= self.n && first <= self.n - out.len() as u64);
        let mut position = first;
        for block in out.chunks_mut(BLOCK) {
            let mut lanes = block.chunks_exact_mut(LANES);
            for rows in &mut lanes {
                let at: [u64; LANES] = std::array::from_fn(|i| position + i as u64);
                for (row, at) in rows.iter_mut().zip(self.steps(at)) {
                    *row = at as i64;
                }
                position += LANES as u64;
            }
            for row in lanes.into_remainder() {
                *row = self.step(position) as i64;
                position += 1;
            }
            self.walk(block);
        }
    }

    /// Sends those of `rows` that lie behind the last row on along their cycles, eight side by side.
    fn walk(&self, rows: &mut [i64]) {
        let mut outside = [0_usize; BLOCK];
        let mut count = 0;
        for (i, &row) in rows.iter().enumerate() {
            outside[count] = i;
            count += usize::from(row as u64 >= self.n);
        }
        while count > 0 {
            let mut kept = 0;
            for start in (0..count).step_by(LANES) {
                let lanes: [usize; LANES] =
                    std::array::from_fn(|i| outside[(start + i).min(count - 1)]);
                let steps = self.steps(lanes.map(|i| rows[i] as u64));
                for (&i, row) in lanes.iter().zip(steps).take(count - start) {
                    rows[i] = row as i64;
                    outside[kept] = i;
                    kept += usize::from(row >= self.n);
                }
            }
            count = kept;
        }
    }

    /// One pass through the network: a bijection of `0..2^bits`.
    fn step(&self, x: u64) -> u64 {
        self.steps([x])[0]
    }

    /// One pass each of several positions.
    #[inline]
    fn steps<const N: usize>(&self, x: [u64; N]) -> [u64; N] {
        let mut high = x.map(|x| x >> self.low_bits);
        let mut low = x.map(|x| x & self.low_mask);
        for pair in self.keys.chunks_exact(2) {
            for (high, &low) in high.iter_mut().zip(&low) {
                *high ^= mix64(low ^ pair[0]) & self.high_mask;
            }
            for (low, &high) in low.iter_mut().zip(&high) {
                *low ^= mix64(high ^ pair[1]) & self.low_mask;
            }
        }
        std::array::from_fn(|i| (high[i] << self.low_bits) | low[i])
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One batch of an epoch.
#[derive(Debug, Clone, Copy)]
pub struct BatchAt {
    /// Rows in an epoch.
    pub n: i64,
    /// Rows in a batch; the last batch holds what is left.
    pub batch_size: i64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the epoch.
    pub epoch: u64,
    /// Number of the batch within the epoch.
    pub index: i64,
    /// Permute the rows; otherwise they come in order.
    pub shuffle: bool,
}

/// The rows of a batch, in order.
pub fn batch_rows(at: BatchAt) -> Result<Vec<i64>> {
    let BatchAt {
        n,
        batch_size,
        index,
        ..
    } = at;
    if n < 0 {
        return Err(Error::Negative {
            name: "n",
            value: n,
        });
    }
    if batch_size < 1 {
        return Err(Error::BatchSize(batch_size));
    }
    let batches = n / batch_size + i64::from(n % batch_size != 0);
    if !(0..batches).contains(&index) {
        return Err(Error::BatchIndex {
            index,
            n,
            batch_size,
            batches,
        });
    }
    let first = index * batch_size;
    let rows = batch_size.min(n - first);
    if !at.shuffle {
        return Ok((first..first + rows).collect());
    }
    let permutation = Permutation::new(n as u64, at.seed, at.epoch);
    let mut out = vec![0; rows as usize];
    pool::install(|| {
        let blocks = out.par_chunks_mut(BLOCK).with_min_len(2).enumerate();
        blocks.for_each(|(i, block)| permutation.fill((first as usize + i * BLOCK) as u64, block));
    })?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(n: i64, batch_size: i64, seed: u64, epoch: u64) -> Vec<i64> {
        let batches = (n + batch_size - 1) / batch_size;
        let at = |index| BatchAt {
            n,
            batch_size,
            seed,
            epoch,
            index,
            shuffle: true,
        };
        (0..batches)
            .flat_map(|index| batch_rows(at(index)).unwrap())
            .collect()
    }

    #[test]
    fn an_epoch_holds_every_row_once() {
        for n in [1, 2, 3, 100, 4095, 4096, 4097, 10_000] {
            let mut rows = epoch(n, 64, 3, 5);
            rows.sort_unstable();
            assert!(rows.into_iter().eq(0..n));
        }
    }

    #[test]
    fn order_does_not_depend_on_the_batch_size() {
        assert_eq!(epoch(1000, 7, 1, 2), epoch(1000, 1000, 1, 2));
    }

    #[test]
    fn seeds_and_epochs_give_other_orders() {
        let orders = [
            epoch(500, 500, 0, 0),
            epoch(500, 500, 0, 1),
            epoch(500, 500, 1, 0),
            epoch(500, 500, 1, 1),
        ];
        for (i, a) in orders.iter().enumerate() {
            assert!(orders[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn all_orders_of_four_rows_are_equally_likely() {
        let mut seen = std::collections::HashMap::new();
        for seed in 0..2400 {
            *seen.entry(epoch(4, 4, seed, 0)).or_insert(0_i64) += 1;
        }
        // Chi-squared with 23 degrees of freedom: above 50 in fewer than one of a thousand fair draws.
        let chi: f64 = seen
            .values()
            .map(|&count| ((count - 100) * (count - 100)) as f64 / 100.0)
            .sum();
        assert_eq!(seen.len(), 24);
        assert!(chi < 50.0, "chi-squared is {chi}");
    }

    #[test]
    fn extreme_sizes_do_not_overflow() {
        let at = BatchAt {
            n: i64::MAX,
            batch_size: i64::MAX - 1,
            seed: 1,
            epoch: 0,
            index: 1,
            shuffle: true,
        };
        assert_eq!(batch_rows(at).unwrap().len(), 1);
        assert!(matches!(
            batch_rows(BatchAt { index: 2, ..at }),
            Err(Error::BatchIndex { batches: 2, .. })
        ));
        assert_eq!(
            batch_rows(BatchAt {
                batch_size: 0,
                ..at
            }),
            Err(Error::BatchSize(0))
        );
        assert!(matches!(
            batch_rows(BatchAt {
                n: 0,
                index: 0,
                ..at
            }),
            Err(Error::BatchIndex { batches: 0, .. })
        ));
    }
}
