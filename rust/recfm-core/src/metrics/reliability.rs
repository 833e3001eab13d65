//! Reliability: predicted against observed rates in bins of probability.

use crate::exact::ExactSum;
use crate::{Error, Result};

const MOST: i64 = 10_000;

/// How probabilities are put into bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bins {
    /// By value: bin i of k holds `(i / k, (i + 1) / k]`, and 0 is in the first.
    Width,
    /// By rank: about as many rows in each. Equal probabilities share the bin of the lowest of them.
    Count,
}

impl Bins {
    /// The kind of a name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "width" => Ok(Self::Width),
            "count" => Ok(Self::Count),
            _ => Err(Error::Choice {
                argument: "by",
                found: name.to_owned(),
                known: "'width' or 'count'",
            }),
        }
    }
}

/// One bin that is not empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    /// Which of the bins, from 0.
    pub bin: usize,
    /// Rows in it.
    pub rows: usize,
    /// Rows of label 1.
    pub positives: usize,
    /// Mean probability.
    pub probability: f64,
}

/// Predicted against observed rates.
#[derive(Debug, Clone, PartialEq)]
pub struct Reliability {
    /// The bins with rows, by rising probability.
    pub bins: Vec<Bin>,
    /// Expected calibration error: mean distance of a bin's mean probability from its mean label, weighted by rows.
    pub error: f64,
}

/// Table of at least one row; `row` gives probability and label by rising probability.
#[expect(clippy::float_cmp, reason = "a tie is a tie to the last bit")]
pub fn reliability(
    n: usize,
    row: impl Fn(usize) -> (f64, bool),
    bins: Bins,
    count: i64,
) -> Result<Reliability> {
    if !(1..=MOST).contains(&count) {
        return Err(Error::BinCount(count));
    }
    let count = count as usize;
    let edges: Vec<_> = (1..count).map(|i| i as f64 / count as f64).collect();
    let bin_of = |first: usize| match bins {
        Bins::Width => {
            let probability = row(first).0;
            edges.partition_point(|&edge| edge < probability)
        }
        Bins::Count => (first as u128 * count as u128 / n as u128) as usize,
    };
    let (mut table, mut errors, mut start) = (Vec::new(), ExactSum::default(), 0);
    while start < n {
        let bin = bin_of(start);
        let (mut sum, mut positives, mut stop) = (ExactSum::default(), 0, start);
        // The first row of equal probabilities decides for all of them.
        while stop < n && (stop == start || row(stop).0 == row(stop - 1).0 || bin_of(stop) == bin) {
            let (probability, positive) = row(stop);
            sum.push(probability);
            positives += usize::from(positive);
            stop += 1;
        }
        let rows = stop - start;
        let probability = sum.over(rows as u64);
        table.push(Bin {
            bin,
            rows,
            positives,
            probability,
        });
        sum.push(-(positives as f64));
        errors.push(sum.value().abs());
        start = stop;
    }
    Ok(Reliability {
        bins: table,
        error: errors.over(n as u64),
    })
}
