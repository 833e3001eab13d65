//! AUC of one group or many: rows packed into whole numbers that sort by group, then score, then label.

use rayon::prelude::*;

use super::{BLOCK, Weighting};
use crate::exact::ExactSum;
use crate::sort::{Word, sort};

/// What groups add up to, whatever order they come in.
#[derive(Default)]
pub struct Groups {
    weighted: ExactSum,
    weight: u64,
    pub used: usize,
    pub dropped: usize,
}

impl Groups {
    /// The weighted mean of the groups' AUCs; `None` if no group has both labels.
    pub fn mean(&self) -> Option<f64> {
        (self.used > 0).then(|| self.weighted.over(self.weight))
    }

    fn merge(mut self, other: &Self) -> Self {
        self.weighted.merge(&other.weighted);
        self.weight += other.weight;
        self.used += other.used;
        self.dropped += other.dropped;
        self
    }
}

/// AUCs of the groups of `n` rows, or of all rows as one group. Call inside the pool.
///
/// `row` gives the score of a row as an integer in the same order, and whether its label is 1.
pub fn grouped(
    n: usize,
    group: Option<&[i64]>,
    row: impl Fn(usize) -> (u64, bool) + Sync,
    weighting: Weighting,
) -> Groups {
    let scores = Span::of(n, |i| row(i).0);
    // Flipping the sign bit maps signed order to unsigned order.
    let key = |group: i64| group as u64 ^ (1 << 63);
    let groups = group.map_or(Span::ONE, |group| Span::of(n, |i| key(group[i])));
    let rank = |i: usize| {
        let (score, positive) = row(i);
        u128::from(score - scores.low) << 1 | u128::from(positive)
    };
    let (shift, mut bits) = (scores.bits() + 1, groups.bits());
    if bits + shift > u128::BITS {
        let distinct = distinct(group.unwrap_or_default());
        bits = usize::BITS - distinct.len().leading_zeros();
        let place = |i: usize| distinct.partition_point(|&g| g < group.unwrap_or_default()[i]);
        return summed::<u128>(
            n,
            |i| (place(i) as u128) << shift | rank(i),
            shift,
            bits,
            weighting,
        );
    }
    let packed = |i: usize| {
        let group = group.map_or(0, |group| key(group[i]) - groups.low);
        u128::from(group) << shift | rank(i)
    };
    match bits + shift {
        ..=32 => summed::<u32>(n, packed, shift, bits, weighting),
        33..=64 => summed::<u64>(n, packed, shift, bits, weighting),
        _ => summed::<u128>(n, packed, shift, bits, weighting),
    }
}

/// Sorts packed rows, the group from bit `shift` on, and adds up their groups.
fn summed<W: Word>(
    n: usize,
    packed: impl Fn(usize) -> u128 + Sync,
    shift: u32,
    bits: u32,
    weighting: Weighting,
) -> Groups {
    let rows = (0..n).into_par_iter().with_min_len(BLOCK);
    let keys = sort(rows.map(|i| W::low(packed(i))).collect(), shift + bits);
    let group = |key: &W| key.bits_from(shift);
    let pieces = rayon::current_num_threads();
    let mut starts: Vec<_> = (0..pieces).map(|piece| piece * n / pieces).collect();
    for start in starts.iter_mut().filter(|start| **start > 0) {
        let before = group(&keys[*start - 1]);
        *start += keys[*start..].partition_point(|key| group(key) == before);
    }
    starts.push(n);
    let pieces = starts.par_windows(2).map(|piece| {
        let mut groups = Groups::default();
        for rows in keys[piece[0]..piece[1]].chunk_by(|a, b| group(a) == group(b)) {
            add(&mut groups, rows, weighting);
        }
        groups
    });
    pieces.reduce(Groups::default, |a, b| a.merge(&b))
}

/// Adds a group, its rows sorted by score and then label. Pairs are counted in integers.
fn add<W: Word>(groups: &mut Groups, rows: &[W], weighting: Weighting) {
    let (mut twice_wins, mut negatives, mut below) = (0_u128, 0, 0);
    let mut score = rows[0].bits_from(1);
    for row in rows {
        // Negatives of the same score come first: `below` of them lose to this row, the rest of them tie.
        below = if row.bits_from(1) == score {
            below
        } else {
            negatives
        };
        score = row.bits_from(1);
        let positive = row.bits_from(0) & 1;
        twice_wins += u128::from(positive * (below + negatives));
        negatives += 1 - positive;
    }
    let positives = rows.len() as u64 - negatives;
    if positives == 0 || negatives == 0 {
        groups.dropped += 1;
        return;
    }
    let pairs = u128::from(positives) * u128::from(negatives);
    let weight = match weighting {
        Weighting::Impressions => rows.len() as u64,
        Weighting::Positives => positives,
        Weighting::Uniform => 1,
    };
    let auc = twice_wins as f64 / (2 * pairs) as f64;
    groups.weighted.push(auc * weight as f64);
    groups.weight += weight;
    groups.used += 1;
}

/// The distinct groups, ascending.
fn distinct(group: &[i64]) -> Vec<i64> {
    let mut distinct = group.to_vec();
    distinct.par_sort_unstable();
    distinct.dedup();
    distinct
}

/// The range that numbers lie in.
#[derive(Clone, Copy)]
struct Span {
    low: u64,
    high: u64,
}

impl Span {
    const ONE: Self = Self { low: 0, high: 0 };

    fn of(n: usize, number: impl Fn(usize) -> u64 + Sync) -> Self {
        let rows = (0..n).into_par_iter().with_min_len(BLOCK);
        let spans = rows.fold(
            || (u64::MAX, 0),
            |(low, high), i| (low.min(number(i)), high.max(number(i))),
        );
        let (low, high) = spans.reduce(|| (u64::MAX, 0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
        Self { low, high }
    }

    fn bits(self) -> u32 {
        u64::BITS - self.high.saturating_sub(self.low).leading_zeros()
    }
}
