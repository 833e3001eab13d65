//! Ranking and calibration metrics, exact and the same for any number of threads.
//!
//! Pairs are counted in integers and sums are exact until they are read, so nothing depends on the order of rows.

mod predictions;
mod ranking;
mod reliability;

use rayon::prelude::*;

pub use predictions::Predictions;
pub use reliability::{Bin, Bins, Reliability};

use crate::exact::ExactSum;
use crate::history::same_length;
use crate::{Error, Result, pool};
use ranking::{Groups, grouped};

/// Probabilities are moved this far away from 0 and 1 before the logarithm, as `FuxiCTR` does.
pub const EPSILON: f64 = 1e-7;

/// Rows that are worth a thread of their own.
const BLOCK: usize = 1 << 13;

/// What a group's AUC counts for in the mean; groups of one class have no AUC and never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weighting {
    /// By rows, as `FuxiCTR` and BARS do.
    Impressions,
    /// By rows of label 1, as `RecBole` does.
    Positives,
    /// All the same, as `TorchRec` and `TorchEasyRec` do.
    Uniform,
}

impl Weighting {
    /// The weighting of a name.
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "impressions" => Ok(Self::Impressions),
            "positives" => Ok(Self::Positives),
            "uniform" => Ok(Self::Uniform),
            _ => Err(Error::Choice {
                argument: "weighting",
                found: name.to_owned(),
                known: "'impressions', 'positives' or 'uniform'",
            }),
        }
    }
}

/// AUC averaged over groups, usually users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauc {
    /// Weighted mean of the groups' AUCs.
    pub value: f64,
    /// Groups with both labels.
    pub used: usize,
    /// Groups with one label only; they have no AUC.
    pub dropped: usize,
}

impl Gauc {
    fn of(groups: &Groups) -> Result<Self> {
        let (used, dropped) = (groups.used, groups.dropped);
        let value = groups.mean().ok_or(Error::NoGroup(dropped))?;
        Ok(Self {
            value,
            used,
            dropped,
        })
    }
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
pub fn auc(label: &[f32], score: &[f64]) -> Result<f64> {
    const NAME: &str = "auc";
    let groups = ranked(NAME, None, label, score, Weighting::Uniform)?;
    groups
        .mean()
        .ok_or_else(|| one_class(NAME, label.len(), is_positive(label[0])))
}

/// Weighted mean of the AUC of each group; groups with one label only are left out.
pub fn gauc(group: &[i64], label: &[f32], score: &[f64], weighting: Weighting) -> Result<Gauc> {
    Gauc::of(&ranked("gauc", Some(group), label, score, weighting)?)
}

fn ranked(
    metric: &'static str,
    group: Option<&[i64]>,
    label: &[f32],
    score: &[f64],
    weighting: Weighting,
) -> Result<Groups> {
    if label.is_empty() {
        return Err(Error::MetricEmpty(metric));
    }
    pool::install(|| {
        check_labels(label)?;
        same_length("label", label.len(), "score", score.len())?;
        if let Some(row) = first_not(score, |score| !score.is_nan()) {
            return Err(Error::NanScore(row));
        }
        if let Some(group) = group {
            same_length("group", group.len(), "label", label.len())?;
        }
        // Models give 32-bit scores: half the digits to sort by.
        Ok(if is_single(score) {
            let row = |i: usize| (rank_single(score[i] as f32), is_positive(label[i]));
            grouped(label.len(), group, row, weighting)
        } else {
            let row = |i: usize| (rank(score[i]), is_positive(label[i]));
            grouped(label.len(), group, row, weighting)
        })
    })?
}

/// Mean negative log-likelihood in nats; probabilities are clipped to `[EPSILON, 1 - EPSILON]`.
pub fn logloss(label: &[f32], probability: &[f64]) -> Result<f64> {
    check_bets("logloss", label, probability)?;
    mean_loss(label.len(), |i| (is_positive(label[i]), probability[i]))
}

/// Log loss over the entropy of the labels' own base rate: 1 is what a constant reaches, less is better.
pub fn normalized_entropy(label: &[f32], probability: &[f64]) -> Result<f64> {
    const NAME: &str = "normalized entropy";
    check_bets(NAME, label, probability)?;
    let entropy = entropy(positives(label), label.len())
        .ok_or_else(|| one_class(NAME, label.len(), is_positive(label[0])))?;
    Ok(logloss(label, probability)? / entropy)
}

/// Mean prediction over mean label: 1 is right on average, above it predicts too much.
pub fn calibration(label: &[f32], probability: &[f64]) -> Result<f64> {
    const NAME: &str = "calibration";
    check_bets(NAME, label, probability)?;
    let sum = ExactSum::par(probability.len(), |i| probability[i])?;
    sums_to_calibration(&sum, positives(label))
        .ok_or_else(|| one_class(NAME, label.len(), is_positive(label[0])))
}

/// `None` without a positive label.
fn sums_to_calibration(probabilities: &ExactSum, positives: usize) -> Option<f64> {
    (positives > 0).then(|| probabilities.over(positives as u64))
}

fn positives(label: &[f32]) -> usize {
    label.iter().filter(|&&label| is_positive(label)).count()
}

/// Entropy in nats of labels of which `positives` are 1; `None` where they are all the same.
fn entropy(positives: usize, n: usize) -> Option<f64> {
    let rate = positives as f64 / n as f64;
    (0 < positives && positives < n).then(|| -(rate * rate.ln() + (1.0 - rate) * (-rate).ln_1p()))
}

/// Mean loss of rows, given whether their label is 1 and their probability.
fn mean_loss(n: usize, row: impl Fn(usize) -> (bool, f64) + Sync) -> Result<f64> {
    let sum = ExactSum::par(n, |i| {
        let (positive, probability) = row(i);
        loss(positive, probability)
    })?;
    Ok(sum.over(n as u64))
}

fn loss(positive: bool, probability: f64) -> f64 {
    let probability = probability.clamp(EPSILON, 1.0 - EPSILON);
    if positive {
        -probability.ln()
    } else {
        -(-probability).ln_1p()
    }
}

/// Of a label that is known to be 0 or 1.
fn is_positive(label: f32) -> bool {
    label > 0.0
}

/// Maps scores to integers in the same order; both zeros are equal.
fn rank(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | (1 << 63)
    }
}

/// `rank` of scores that are 32-bit floats.
fn rank_single(score: f32) -> u64 {
    let bits = (score + 0.0).to_bits();
    u64::from(if bits >> 31 == 1 {
        !bits
    } else {
        bits | (1 << 31)
    })
}

/// Whether 32-bit floats hold all scores exactly.
#[expect(clippy::float_cmp, reason = "exactness is the question")]
fn is_single(score: &[f64]) -> bool {
    first_not(score, |&score| f64::from(score as f32) == score).is_none()
}

/// The first value that is not `good`; only then is it looked for one by one.
fn first_not<T: Sync>(values: &[T], good: impl Fn(&T) -> bool + Sync) -> Option<usize> {
    // Blocks without an early exit are what the compiler turns into vector instructions.
    let bad = |block: &[T]| !block.iter().fold(true, |all, value| all & good(value));
    let block = values.par_chunks(BLOCK).position_first(bad)?;
    let from = block * BLOCK;
    Some(from + values[from..].iter().position(|value| !good(value))?)
}

fn check_labels(label: &[f32]) -> Result<()> {
    match first_not(label, |label| [0.0, 1.0].contains(label)) {
        Some(row) => Err(Error::Label {
            row,
            value: label[row],
        }),
        None => Ok(()),
    }
}

fn check_probabilities(probability: &[f64]) -> Result<()> {
    match first_not(probability, |p| (0.0..=1.0).contains(p)) {
        Some(row) => Err(Error::Probability {
            row,
            value: probability[row],
        }),
        None => Ok(()),
    }
}

fn check_bets(metric: &'static str, label: &[f32], probability: &[f64]) -> Result<()> {
    if label.is_empty() {
        return Err(Error::MetricEmpty(metric));
    }
    pool::install(|| {
        check_labels(label)?;
        same_length("label", label.len(), "probability", probability.len())?;
        check_probabilities(probability)
    })?
}

fn one_class(metric: &'static str, n: usize, positive: bool) -> Error {
    Error::OneClass {
        metric,
        n,
        label: positive.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_count_half() {
        assert_eq!(auc(&[0.0, 1.0, 0.0, 1.0], &[0.1, 0.4, 0.4, 0.8]), Ok(0.875));
        assert_eq!(auc(&[0.0, 1.0], &[0.0, -0.0]), Ok(0.5));
        assert_eq!(
            auc(&[1.0, 0.0], &[f64::INFINITY, f64::NEG_INFINITY]),
            Ok(1.0)
        );
    }

    #[test]
    fn groups_weigh_by_rows_and_one_class_groups_drop() {
        let group = [5, 5, -3, -3, -3, 8];
        let label = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0];
        let score = [0.1, 0.9, 0.5, 0.7, 0.2, 0.3];
        let expected = (2.0 * 1.0 + 3.0 * 0.5) / 5.0;
        assert_eq!(
            gauc(&group, &label, &score, Weighting::Impressions),
            Ok(Gauc {
                value: expected,
                used: 2,
                dropped: 1
            })
        );
    }

    #[test]
    fn the_base_rate_itself_has_normalized_entropy_one() {
        let label = [1.0, 0.0, 0.0, 0.0];
        assert!((normalized_entropy(&label, &[0.25; 4]).unwrap() - 1.0).abs() < 1e-15);
    }

    #[test]
    fn certainty_costs_what_the_clip_allows() {
        assert!((logloss(&[1.0], &[0.0]).unwrap() + EPSILON.ln()).abs() < 1e-12);
        assert!((logloss(&[0.0], &[1.0]).unwrap() + EPSILON.ln()).abs() < 1e-6);
    }

    #[test]
    fn undefined_metrics_say_why() {
        let metric = "auc";
        assert_eq!(
            auc(&[1.0; 3], &[0.0; 3]),
            Err(Error::OneClass {
                metric,
                n: 3,
                label: 1
            })
        );
        assert_eq!(auc(&[], &[]), Err(Error::MetricEmpty(metric)));
        assert_eq!(
            auc(&[1.0, 0.5], &[0.0; 2]),
            Err(Error::Label { row: 1, value: 0.5 })
        );
        assert_eq!(auc(&[1.0, 0.0], &[0.0, f64::NAN]), Err(Error::NanScore(1)));
        assert_eq!(
            gauc(&[1, 2], &[1.0, 0.0], &[0.5; 2], Weighting::Uniform),
            Err(Error::NoGroup(2))
        );
        assert_eq!(
            logloss(&[1.0], &[1.5]),
            Err(Error::Probability { row: 0, value: 1.5 })
        );
        assert!(matches!(auc(&[1.0], &[]), Err(Error::Length { .. })));
    }
}
