//! Ranking and calibration metrics, exact and the same for any number of threads.

use rayon::prelude::*;

use crate::history::same_length;
use crate::{Error, Result, pool};

/// Probabilities are moved this far away from 0 and 1 before the logarithm, as `FuxiCTR` does.
pub const EPSILON: f64 = 1e-7;

/// Rows summed in one go. Fixed, so that the order of additions is the same for any number of threads.
const BLOCK: usize = 1 << 13;

/// AUC averaged over groups, usually users.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gauc {
    /// Mean of the groups' AUCs, weighted by their rows.
    pub value: f64,
    /// Groups with both labels.
    pub used: usize,
    /// Groups with one label only; they have no AUC.
    pub dropped: usize,
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.
pub fn auc(label: &[f32], score: &[f64]) -> Result<f64> {
    const NAME: &str = "auc";
    check_labels(NAME, label)?;
    check_scores(label, score)?;
    let ranks = pool::install(|| {
        let rows = label.par_iter().zip(score);
        let mut ranks: Vec<_> = rows
            .map(|(&label, &score)| (rank(score), is_positive(label)))
            .collect();
        ranks.par_sort_unstable();
        ranks
    })?;
    sorted_auc(&ranks, |&(rank, _)| rank, |&(_, positive)| positive)
        .ok_or_else(|| one_class(NAME, label))
}

/// Mean of the AUC of each group, weighted by the group's rows; groups with one label only are left out.
pub fn gauc(group: &[i64], label: &[f32], score: &[f64]) -> Result<Gauc> {
    check_labels("gauc", label)?;
    check_scores(label, score)?;
    same_length("group", group.len(), "label", label.len())?;
    let ranks = pool::install(|| {
        let rows = group.par_iter().zip(label).zip(score);
        let mut ranks: Vec<_> = rows
            .map(|((&group, &label), &score)| (group, rank(score), is_positive(label)))
            .collect();
        ranks.par_sort_unstable();
        ranks
    })?;
    let (mut sum, mut rows, mut used, mut dropped) = (0.0, 0, 0, 0);
    for group in ranks.chunk_by(|a, b| a.0 == b.0) {
        if let Some(auc) = sorted_auc(group, |&(_, rank, _)| rank, |&(_, _, positive)| positive) {
            sum += auc * group.len() as f64;
            rows += group.len();
            used += 1;
        } else {
            dropped += 1;
        }
    }
    if used == 0 {
        return Err(Error::NoGroup(dropped));
    }
    Ok(Gauc {
        value: sum / rows as f64,
        used,
        dropped,
    })
}

/// Mean negative log-likelihood in nats; probabilities are clipped to `[EPSILON, 1 - EPSILON]`.
pub fn logloss(label: &[f32], probability: &[f64]) -> Result<f64> {
    mean_loss("logloss", label, probability)
}

/// Log loss over the entropy of the labels' own base rate: 1 is what a constant reaches, less is better.
pub fn normalized_entropy(label: &[f32], probability: &[f64]) -> Result<f64> {
    const NAME: &str = "normalized entropy";
    let loss = mean_loss(NAME, label, probability)?;
    let positives = label.iter().filter(|&&label| is_positive(label)).count();
    if positives == 0 || positives == label.len() {
        return Err(one_class(NAME, label));
    }
    let rate = positives as f64 / label.len() as f64;
    Ok(loss / -(rate * rate.ln() + (1.0 - rate) * (-rate).ln_1p()))
}

fn mean_loss(metric: &'static str, label: &[f32], probability: &[f64]) -> Result<f64> {
    check_labels(metric, label)?;
    same_length("label", label.len(), "probability", probability.len())?;
    if let Some(row) = probability.iter().position(|p| !(0.0..=1.0).contains(p)) {
        return Err(Error::Probability {
            row,
            value: probability[row],
        });
    }
    let blocks: Vec<f64> = pool::install(|| {
        let blocks = label.par_chunks(BLOCK).zip(probability.par_chunks(BLOCK));
        blocks
            .map(|(label, probability)| {
                label
                    .iter()
                    .zip(probability)
                    .map(|(&l, &p)| loss(l, p))
                    .sum()
            })
            .collect()
    })?;
    Ok(blocks.iter().sum::<f64>() / label.len() as f64)
}

fn loss(label: f32, probability: f64) -> f64 {
    let probability = probability.clamp(EPSILON, 1.0 - EPSILON);
    if is_positive(label) {
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

/// AUC of rows that are sorted by rank; `None` if one label is missing. Counts pairs in integers, so it is exact.
fn sorted_auc<T>(
    rows: &[T],
    rank: impl Fn(&T) -> u64,
    positive: impl Fn(&T) -> bool,
) -> Option<f64> {
    let (mut twice_wins, mut positives, mut negatives) = (0_u128, 0_u128, 0_u128);
    for ties in rows.chunk_by(|a, b| rank(a) == rank(b)) {
        let tied_positives = ties.iter().filter(|row| positive(row)).count() as u128;
        let tied_negatives = ties.len() as u128 - tied_positives;
        twice_wins += tied_positives * (2 * negatives + tied_negatives);
        positives += tied_positives;
        negatives += tied_negatives;
    }
    let pairs = positives * negatives;
    (pairs > 0).then(|| twice_wins as f64 / (2 * pairs) as f64)
}

fn check_labels(metric: &'static str, label: &[f32]) -> Result<()> {
    if label.is_empty() {
        return Err(Error::MetricEmpty(metric));
    }
    match label.iter().position(|label| ![0.0, 1.0].contains(label)) {
        Some(row) => Err(Error::Label {
            row,
            value: label[row],
        }),
        None => Ok(()),
    }
}

fn check_scores(label: &[f32], score: &[f64]) -> Result<()> {
    same_length("label", label.len(), "score", score.len())?;
    match score.iter().position(|score| score.is_nan()) {
        Some(row) => Err(Error::NanScore(row)),
        None => Ok(()),
    }
}

fn one_class(metric: &'static str, label: &[f32]) -> Error {
    Error::OneClass {
        metric,
        n: label.len(),
        label: label[0] as u8,
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
            gauc(&group, &label, &score),
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
            gauc(&[1, 2], &[1.0, 0.0], &[0.5; 2]),
            Err(Error::NoGroup(2))
        );
        assert_eq!(
            logloss(&[1.0], &[1.5]),
            Err(Error::Probability { row: 0, value: 1.5 })
        );
        assert!(matches!(auc(&[1.0], &[]), Err(Error::Length { .. })));
    }
}
