//! Counting the values of a column.

use std::cmp::Reverse;

use hashbrown::HashTable;
use rayon::prelude::*;

use crate::column::{Chunk, Values};
use crate::hash::Key;

/// How often each value occurs.
pub(crate) type Counts<K> = HashTable<(K, i64)>;

fn add<K: Key>(counts: &mut Counts<K>, value: K, times: i64) {
    counts
        .entry(
            value.hash64(),
            |other| other.0 == value,
            |other| other.0.hash64(),
        )
        .or_insert((value, 0))
        .get_mut()
        .1 += times;
}

fn merge<K: Key>(a: Counts<K>, b: Counts<K>) -> Counts<K> {
    let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
    for (value, times) in small {
        add(&mut large, value, times);
    }
    large
}

/// How often each value occurs, counted by every thread apart and then merged.
pub(crate) fn count<'a, K: Key>(
    chunks: &[Chunk<'a>],
    get: impl Fn(&Values<'a>, usize) -> Option<K> + Sync,
) -> Counts<K> {
    let mut total = Counts::new();
    for chunk in chunks {
        let (values, weights) = chunk.weighted();
        let block = values.len().div_ceil(rayon::current_num_threads()).max(1);
        let counts = (0..values.len())
            .into_par_iter()
            .step_by(block)
            .map(|start| {
                let mut counts = Counts::new();
                for row in start..values.len().min(start + block) {
                    let times = weights.as_ref().map_or(1, |weights| weights[row]);
                    if times > 0
                        && let Some(value) = get(values, row)
                    {
                        add(&mut counts, value, times);
                    }
                }
                counts
            })
            .reduce(Counts::new, merge);
        total = merge(total, counts);
    }
    total
}

/// The values to keep in id order, with their counts.
pub(crate) fn ranked<K: Key>(counts: Counts<K>, min_count: i64) -> (Vec<K>, Vec<i64>) {
    let mut kept: Vec<_> = counts
        .into_iter()
        .filter(|&(_, count)| count >= min_count)
        .collect();
    kept.par_sort_unstable_by_key(|&(value, count)| (Reverse(count), value));
    kept.into_iter().unzip()
}
