//! AUC of one group or many: rows packed into whole numbers that sort by group, then score, then label.

use rayon::prelude::*;

use super::{BLOCK, Weighting};
use crate::exact::ExactSum;
use crate::sort::sort_by_code;

/// A number that rows are packed into: the group from some bit on, the score from bit 1, the label in bit 0.
trait Word: Copy + Ord + Default + Send + Sync {
    /// A number that fits.
    fn of(value: u128) -> Self;

    /// The 64 bits from `shift` on.
    fn bits_from(self, shift: u32) -> u64;
}

macro_rules! words {
    ($($type:ty),*) => {$(
        impl Word for $type {
            #[inline]
            fn of(value: u128) -> Self {
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

words!(u32, u64, u128);

/// Rows are brought together by at most so many bits of their group, in two rounds.
const MOST_BITS: u32 = 20;

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
    let keys = rows.map(|i| W::of(packed(i))).collect();
    if bits == 0 {
        let mut groups = Groups::default();
        let sorted = sort_by_code(keys, shift - 1, |key| key.bits_from(1));
        add(&mut groups, &sorted, weighting);
        return groups;
    }
    // Many groups share a code; each code's few rows are then sorted where they lie, in cache.
    let few = MOST_BITS.min(usize::BITS - n.leading_zeros()).min(bits);
    let code = |key: W| {
        let group = key.bits_from(shift);
        if bits == few {
            return group;
        }
        group.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - few)
    };
    let mut keys = sort_by_code(keys, few, code);
    let pieces = rayon::current_num_threads();
    let mut parts = Vec::with_capacity(pieces);
    let mut rest = &mut keys[..];
    for left in (1..=pieces).rev() {
        let mut cut = rest.len() / left;
        if 0 < cut && cut < rest.len() {
            let before = code(rest[cut - 1]);
            cut += rest[cut..].partition_point(|&key| code(key) == before);
        }
        let (part, others) = rest.split_at_mut(cut);
        parts.push(part);
        rest = others;
    }
    let parts = parts.into_par_iter().map(|part| {
        let mut groups = Groups::default();
        for rows in part.chunk_by_mut(|&a, &b| code(a) == code(b)) {
            rows.sort_unstable();
            for rows in rows.chunk_by(|a, b| a.bits_from(shift) == b.bits_from(shift)) {
                add(&mut groups, rows, weighting);
            }
        }
        groups
    });
    parts.reduce(Groups::default, |a, b| a.merge(&b))
}

/// Adds a group, its rows sorted by score. Pairs are counted in integers.
fn add<W: Word>(groups: &mut Groups, rows: &[W], weighting: Weighting) {
    let (mut twice_wins, mut negatives) = (0_u128, 0);
    let (mut tied_positives, mut tied_negatives) = (0, 0);
    let mut score = rows[0].bits_from(1);
    for row in rows {
        if row.bits_from(1) != score {
            twice_wins += u128::from(tied_positives) * u128::from(2 * negatives + tied_negatives);
            negatives += tied_negatives;
            (tied_positives, tied_negatives) = (0, 0);
            score = row.bits_from(1);
        }
        let positive = row.bits_from(0) & 1;
        tied_positives += positive;
        tied_negatives += 1 - positive;
    }
    twice_wins += u128::from(tied_positives) * u128::from(2 * negatives + tied_negatives);
    negatives += tied_negatives;
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
