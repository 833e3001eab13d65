//! Parallel radix sort by a numeric code of each item.

use rayon::prelude::*;

const DIGIT: u32 = 10;
const BUCKETS: usize = 1 << DIGIT;
/// Pieces below this are not worth a thread.
const PIECE: usize = 1 << 15;

/// Sorts items by the lowest `bits` bits of their codes, which have no others. Call inside the pool.
///
/// Items of the same code keep their order, so the result does not depend on the number of threads.
pub fn sort_by_code<T: Copy + Default + Send + Sync>(
    mut items: Vec<T>,
    bits: u32,
    code: impl Fn(T) -> u64 + Sync,
) -> Vec<T> {
    let threads = rayon::current_num_threads().next_power_of_two();
    let mut piece = items.len().div_ceil(threads).max(PIECE);
    let mut spare = vec![T::default(); items.len()];
    let pieces = items.par_chunks_mut(piece).zip(spare.par_chunks_mut(piece));
    pieces.for_each(|(items, spare)| sort_piece(items, spare, bits, &code));
    while piece < items.len() {
        let pairs = items
            .par_chunks(2 * piece)
            .zip(spare.par_chunks_mut(2 * piece));
        pairs.for_each(|(pair, out)| {
            let (left, right) = pair.split_at(piece.min(pair.len()));
            merge(left, right, out, &code);
        });
        std::mem::swap(&mut items, &mut spare);
        piece *= 2;
    }
    items
}

/// Least significant digit first; digits in which all codes agree cost nothing.
fn sort_piece<T: Copy>(items: &mut [T], spare: &mut [T], bits: u32, code: &impl Fn(T) -> u64) {
    let shifts = || (0..bits).step_by(DIGIT as usize);
    let mut counts = vec![[0_usize; BUCKETS]; shifts().len()];
    for &item in &*items {
        let code = code(item);
        for (shift, counts) in shifts().zip(&mut counts) {
            counts[digit(code, shift)] += 1;
        }
    }
    let (mut from, mut to) = (items, spare);
    let mut swapped = false;
    for (shift, mut places) in shifts().zip(counts) {
        if places.contains(&from.len()) {
            continue;
        }
        let mut place = 0;
        for count in &mut places {
            place += std::mem::replace(count, place);
        }
        for &item in &*from {
            let place = &mut places[digit(code(item), shift)];
            to[*place] = item;
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
fn digit(code: u64, shift: u32) -> usize {
    (code >> shift) as usize % BUCKETS
}

/// Merges two sorted slices, of equal codes the left first; the halves of large ones in parallel.
fn merge<T: Copy + Send + Sync>(
    left: &[T],
    right: &[T],
    out: &mut [T],
    code: &(impl Fn(T) -> u64 + Sync),
) {
    if out.len() <= PIECE || left.is_empty() || right.is_empty() {
        return merge_small(left, right, out, code);
    }
    let (i, j) = if left.len() < right.len() {
        let middle = code(right[right.len() / 2]);
        let i = left.partition_point(|&item| code(item) <= middle);
        (i, right.len() / 2)
    } else {
        let middle = code(left[left.len() / 2]);
        let j = right.partition_point(|&item| code(item) < middle);
        (left.len() / 2, j)
    };
    let (low, high) = out.split_at_mut(i + j);
    rayon::join(
        || merge(&left[..i], &right[..j], low, code),
        || merge(&left[i..], &right[j..], high, code),
    );
}

fn merge_small<T: Copy>(left: &[T], right: &[T], out: &mut [T], code: &impl Fn(T) -> u64) {
    let (mut i, mut j) = (0, 0);
    for place in out {
        let take_left = j == right.len() || (i < left.len() && code(left[i]) <= code(right[j]));
        *place = if take_left { left[i] } else { right[j] };
        i += usize::from(take_left);
        j += usize::from(!take_left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool;

    #[test]
    fn items_of_any_codes_and_number_are_sorted_and_ties_keep_their_order() {
        for n in [0, 1, 2, 1000, PIECE + 1, 5 * PIECE + 77] {
            for bits in [1, 3, 10, 33, 64] {
                let mut state = 7_u64;
                let items: Vec<_> = (0..n)
                    .map(|i| {
                        state = state.wrapping_mul(0xda94_2042_e4dd_58b5).wrapping_add(3);
                        ((state ^ (state >> 31)) >> (64 - bits), i)
                    })
                    .collect();
                let mut expected = items.clone();
                expected.sort_unstable();
                let sorted = pool::install(|| sort_by_code(items, bits, |item| item.0)).unwrap();
                assert_eq!(sorted, expected);
            }
        }
    }

    #[test]
    fn merging_halves_keeps_ties_in_order() {
        let left: Vec<_> = (0..3 * PIECE).map(|i| (i as u64 / 9000, i)).collect();
        let right: Vec<_> = left
            .iter()
            .map(|&(code, i)| (code, i + 3 * PIECE))
            .collect();
        for (left, right) in [
            (&left[..], &right[..]),
            (&left[..], &right[..9]),
            (&left[9..20], &right),
        ] {
            let mut expected = [left, right].concat();
            expected.sort_by_key(|item| item.0);
            let mut out = vec![(0, 0); expected.len()];
            pool::install(|| merge(left, right, &mut out, &|item| item.0)).unwrap();
            assert_eq!(out, expected);
        }
    }
}
