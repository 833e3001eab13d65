//! Parallel radix sort of unsigned numbers.

use rayon::prelude::*;

/// An unsigned number to sort by.
pub trait Word: Copy + Ord + Default + Send + Sync {
    /// The low bits of a number that fits.
    fn low(value: u128) -> Self;

    /// The bits from `shift` on, cut to 64.
    fn bits_from(self, shift: u32) -> u64;
}

macro_rules! word {
    ($($type:ty),*) => {$(
        impl Word for $type {
            #[inline]
            fn low(value: u128) -> Self {
                value as Self
            }

            #[inline]
            #[allow(clippy::cast_lossless)] // of u32 only
            fn bits_from(self, shift: u32) -> u64 {
                self.checked_shr(shift).unwrap_or(0) as u64
            }
        }
    )*};
}

word!(u32, u64, u128);

const DIGIT: u32 = 8;
const BUCKETS: usize = 1 << DIGIT;
/// Pieces below this are not worth a thread.
const PIECE: usize = 1 << 15;

/// Sorts numbers of which only the lowest `bits` bits differ. Call inside the pool.
pub fn sort<W: Word>(mut keys: Vec<W>, bits: u32) -> Vec<W> {
    let threads = rayon::current_num_threads().next_power_of_two();
    let mut piece = keys.len().div_ceil(threads).max(PIECE);
    let mut spare = vec![W::default(); keys.len()];
    let pieces = keys.par_chunks_mut(piece).zip(spare.par_chunks_mut(piece));
    pieces.for_each(|(keys, spare)| sort_piece(keys, spare, bits));
    while piece < keys.len() {
        let pairs = keys
            .par_chunks(2 * piece)
            .zip(spare.par_chunks_mut(2 * piece));
        pairs.for_each(|(pair, out)| {
            let (left, right) = pair.split_at(piece.min(pair.len()));
            merge(left, right, out);
        });
        std::mem::swap(&mut keys, &mut spare);
        piece *= 2;
    }
    keys
}

/// Least significant digit first; digits in which all keys agree cost nothing.
fn sort_piece<W: Word>(keys: &mut [W], spare: &mut [W], bits: u32) {
    let digits = bits.div_ceil(DIGIT) as usize;
    let mut counts = vec![[0_usize; BUCKETS]; digits];
    for &key in &*keys {
        for (shift, counts) in (0..).step_by(DIGIT as usize).zip(&mut counts) {
            counts[digit(key, shift)] += 1;
        }
    }
    let (mut from, mut to) = (keys, spare);
    let mut swapped = false;
    for (shift, counts) in (0..).step_by(DIGIT as usize).zip(&counts) {
        if counts.contains(&from.len()) {
            continue;
        }
        let mut places = [0; BUCKETS];
        let mut place = 0;
        for (start, count) in places.iter_mut().zip(counts) {
            *start = place;
            place += count;
        }
        for &key in &*from {
            let place = &mut places[digit(key, shift)];
            to[*place] = key;
            *place += 1;
        }
        (from, to) = (to, from);
        swapped = !swapped;
    }
    if swapped {
        to.copy_from_slice(from);
    }
}

#[inline]
fn digit<W: Word>(key: W, shift: u32) -> usize {
    key.bits_from(shift) as usize % BUCKETS
}

/// Merges two sorted slices, the halves of large ones in parallel.
fn merge<W: Word>(left: &[W], right: &[W], out: &mut [W]) {
    if out.len() <= 2 * PIECE {
        return merge_small(left, right, out);
    }
    let (long, short) = if left.len() < right.len() {
        (right, left)
    } else {
        (left, right)
    };
    let middle = long.len() / 2;
    let cut = short.partition_point(|key| *key < long[middle]);
    let (low, high) = out.split_at_mut(middle + cut);
    rayon::join(
        || merge(&long[..middle], &short[..cut], low),
        || merge(&long[middle..], &short[cut..], high),
    );
}

fn merge_small<W: Word>(left: &[W], right: &[W], out: &mut [W]) {
    let (mut i, mut j) = (0, 0);
    for place in out {
        let take_left = j == right.len() || (i < left.len() && left[i] <= right[j]);
        *place = if take_left { left[i] } else { right[j] };
        i += usize::from(take_left);
        j += usize::from(!take_left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool;

    fn check<W: Word + std::fmt::Debug>(n: usize, bits: u32) {
        let mut state = 7_u128;
        let keys: Vec<_> = (0..n)
            .map(|_| {
                state = state
                    .wrapping_mul(0xda94_2042_e4dd_58b5)
                    .wrapping_add(1 << 90 | 3);
                W::low((state ^ (state >> 61)) & (u128::MAX >> (128 - bits)))
            })
            .collect();
        let mut expected = keys.clone();
        expected.sort_unstable();
        assert_eq!(pool::install(|| sort(keys, bits)).unwrap(), expected);
    }

    #[test]
    fn keys_of_any_width_and_number_are_sorted() {
        for n in [0, 1, 2, 1000, PIECE + 1, 5 * PIECE + 77] {
            check::<u32>(n, 32);
            check::<u32>(n, 3);
            check::<u64>(n, 33);
            check::<u128>(n, 128);
        }
    }
}
