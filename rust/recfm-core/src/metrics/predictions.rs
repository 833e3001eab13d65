//! Predictions that arrive in parts and from many workers, kept as compactly as exact ranking allows.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::ranking::{Groups, grouped};
use super::{BLOCK, Bins, Gauc, Reliability, Weighting};
use super::{
    check_labels, check_probabilities, entropy, is_positive, is_single, mean_loss, one_class,
};
use super::{reliability::reliability, sums_to_calibration};
use crate::exact::ExactSum;
use crate::history::same_length;
use crate::sort::sort_by_code;
use crate::{Error, Result, pool};

/// Labels, probabilities and users of all rows so far.
///
/// A row takes 4 bytes while every probability is a 32-bit float and 8 bytes from the first that is not, and 8 bytes
/// for its user.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    rows: Rows,
    /// Of every row, or none at all.
    user: Vec<i64>,
}

/// Bits of the probability, which order as it does, and the label below them.
#[derive(Debug, Clone)]
enum Rows {
    Single(Vec<u32>),
    Double(Vec<u64>),
}

impl Default for Rows {
    fn default() -> Self {
        Self::Single(Vec::new())
    }
}

impl Rows {
    fn len(&self) -> usize {
        match self {
            Self::Single(rows) => rows.len(),
            Self::Double(rows) => rows.len(),
        }
    }

    fn row(&self, i: usize) -> (u64, bool) {
        match self {
            Self::Single(rows) => (u64::from(rows[i] >> 1), rows[i] & 1 == 1),
            Self::Double(rows) => (rows[i] >> 1, rows[i] & 1 == 1),
        }
    }

    fn probability(&self, i: usize) -> f64 {
        match self {
            Self::Single(rows) => single(rows[i]),
            Self::Double(rows) => double(rows[i]),
        }
    }

    fn widened(self) -> Vec<u64> {
        match self {
            Self::Single(rows) => rows
                .into_iter()
                .map(|row| packed_double(single(row), row & 1 == 1))
                .collect(),
            Self::Double(rows) => rows,
        }
    }

    fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Single(rows), Self::Single(more)) => rows.extend(more),
            (Self::Double(rows), more) => rows.extend(more.widened()),
            (rows, more @ Self::Double(_)) => {
                let mut wide = std::mem::take(rows).widened();
                wide.extend(more.widened());
                *self = Self::Double(wide);
            }
        }
    }
}

fn single(row: u32) -> f64 {
    f64::from(f32::from_bits(row >> 1))
}

fn double(row: u64) -> f64 {
    f64::from_bits(row >> 1)
}

fn packed_single(probability: f64, positive: bool) -> u32 {
    // Adding zero turns -0 into 0. The sign bit is free for the shift.
    (probability as f32 + 0.0).to_bits() << 1 | u32::from(positive)
}

fn packed_double(probability: f64, positive: bool) -> u64 {
    (probability + 0.0).to_bits() << 1 | u64::from(positive)
}

impl Predictions {
    const MAGIC: &[u8; 8] = b"recfmPR1";
    const WHAT: &str = "Predictions";

    /// Takes rows in: all of them or, where one is refused, none.
    ///
    /// Users come with every update or with none.
    pub fn update(
        &mut self,
        label: &[f32],
        probability: &[f64],
        user: Option<&[i64]>,
    ) -> Result<()> {
        same_length("label", label.len(), "probability", probability.len())?;
        if let Some(user) = user {
            same_length("label", label.len(), "user", user.len())?;
        }
        let rows = pool::install(|| {
            check_labels(label)?;
            check_probabilities(probability)?;
            let rows = label.par_iter().zip(probability).with_min_len(BLOCK);
            let rows = rows.map(|(&label, &probability)| (probability, is_positive(label)));
            Ok(if is_single(probability) {
                Rows::Single(
                    rows.map(|(p, positive)| packed_single(p, positive))
                        .collect(),
                )
            } else {
                Rows::Double(
                    rows.map(|(p, positive)| packed_double(p, positive))
                        .collect(),
                )
            })
        })??;
        self.append(rows, user)
    }

    /// Takes in the rows of another worker.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        let users = other.has_users().then_some(&other.user[..]);
        self.append(other.rows, users)
    }

    fn append(&mut self, rows: Rows, user: Option<&[i64]>) -> Result<()> {
        if rows.len() == 0 {
            return Ok(());
        }
        if !self.is_empty() && self.has_users() != user.is_some() {
            return Err(Error::SomeUsers(self.len()));
        }
        self.rows.append(rows);
        self.user.extend_from_slice(user.unwrap_or_default());
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the rows have users.
    pub fn has_users(&self) -> bool {
        !self.user.is_empty()
    }

    /// Bytes that the rows take.
    pub fn nbytes(&self) -> usize {
        let row = match self.rows {
            Rows::Single(_) => 4,
            Rows::Double(_) => 8,
        };
        row * self.len() + 8 * self.user.len()
    }

    /// Area under the ROC curve; ties count half.
    pub fn auc(&self) -> Result<f64> {
        const NAME: &str = "auc";
        self.known(NAME)?;
        let groups = self.grouped(None, Weighting::Uniform)?;
        groups.mean().ok_or_else(|| self.one_class(NAME))
    }

    /// Mean of the users' AUCs.
    pub fn gauc(&self, weighting: Weighting) -> Result<Gauc> {
        self.known("gauc")?;
        if !self.has_users() {
            return Err(Error::NoUsers);
        }
        Gauc::of(&self.grouped(Some(&self.user), weighting)?)
    }

    fn grouped(&self, user: Option<&[i64]>, weighting: Weighting) -> Result<Groups> {
        // One match here instead of one for each row.
        pool::install(|| match &self.rows {
            Rows::Single(rows) => grouped(
                rows.len(),
                user,
                |i| (u64::from(rows[i] >> 1), rows[i] & 1 == 1),
                weighting,
            ),
            Rows::Double(rows) => grouped(
                rows.len(),
                user,
                |i| (rows[i] >> 1, rows[i] & 1 == 1),
                weighting,
            ),
        })
    }

    /// Mean negative log-likelihood in nats, as [`super::logloss`].
    pub fn logloss(&self) -> Result<f64> {
        self.known("logloss")?;
        mean_loss(self.len(), |i| {
            (self.rows.row(i).1, self.rows.probability(i))
        })
    }

    /// Log loss over the entropy of the base rate, as [`super::normalized_entropy`].
    pub fn normalized_entropy(&self) -> Result<f64> {
        const NAME: &str = "normalized entropy";
        self.known(NAME)?;
        let positives = self.positives()?;
        let entropy = entropy(positives, self.len()).ok_or_else(|| self.one_class(NAME))?;
        Ok(self.logloss()? / entropy)
    }

    /// Mean prediction over mean label, as [`super::calibration`].
    pub fn calibration(&self) -> Result<f64> {
        const NAME: &str = "calibration";
        self.known(NAME)?;
        let positives = self.positives()?;
        let sum = ExactSum::par(self.len(), |i| self.rows.probability(i))?;
        sums_to_calibration(&sum, positives).ok_or_else(|| self.one_class(NAME))
    }

    /// Predicted against observed rates, as [`super::Reliability`].
    pub fn reliability(&self, bins: Bins, count: i64) -> Result<Reliability> {
        self.known("calibration error")?;
        match &self.rows {
            Rows::Single(rows) => {
                let sorted =
                    pool::install(|| sort_by_code(rows.clone(), 30, |row| u64::from(row >> 1)))?;
                reliability(
                    sorted.len(),
                    |i| (single(sorted[i]), sorted[i] & 1 == 1),
                    bins,
                    count,
                )
            }
            Rows::Double(rows) => {
                let sorted = pool::install(|| sort_by_code(rows.clone(), 62, |row| row >> 1))?;
                reliability(
                    sorted.len(),
                    |i| (double(sorted[i]), sorted[i] & 1 == 1),
                    bins,
                    count,
                )
            }
        }
    }

    fn positives(&self) -> Result<usize> {
        pool::install(|| {
            let rows = (0..self.len()).into_par_iter().with_min_len(BLOCK);
            rows.filter(|&i| self.rows.row(i).1).count()
        })
    }

    fn known(&self, metric: &'static str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::MetricEmpty(metric));
        }
        Ok(())
    }

    fn one_class(&self, metric: &'static str) -> Error {
        one_class(metric, self.len(), self.rows.row(0).1)
    }

    /// The rows as bytes, with a checksum.
    pub fn to_bytes(&self) -> Vec<u8> {
        let double = matches!(self.rows, Rows::Double(_));
        let mut bytes = Vec::with_capacity(self.nbytes() + 32);
        bytes.extend(Self::MAGIC);
        bytes.extend(u64::from(double).to_le_bytes());
        bytes.extend((self.len() as u64).to_le_bytes());
        match &self.rows {
            Rows::Single(rows) => bytes.extend(rows.iter().flat_map(|row| row.to_le_bytes())),
            Rows::Double(rows) => bytes.extend(rows.iter().flat_map(|row| row.to_le_bytes())),
        }
        bytes.extend(self.user.iter().flat_map(|user| user.to_le_bytes()));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |reason: &str| Error::State {
            what: Self::WHAT,
            reason: reason.to_owned(),
        };
        let Some((head, sum)) = bytes
            .split_last_chunk::<8>()
            .filter(|(head, _)| head.len() >= 24)
        else {
            return Err(damaged("too few bytes"));
        };
        if &head[..8] != Self::MAGIC {
            return Err(damaged("they do not start with its mark and version"));
        }
        if u64::from_le_bytes(*sum) != xxh3_64(head) {
            return Err(damaged("the checksum does not match"));
        }
        let words = head[8..24].as_chunks().0;
        let (width, n) = (u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1]));
        let row = if width == 0 { 4 } else { 8 };
        let n = usize::try_from(n).ok().filter(|n| {
            n.checked_mul(row)
                .is_some_and(|size| size <= head.len() - 24)
        });
        let Some(n) = n.filter(|_| width < 2) else {
            return Err(damaged("the number of rows does not fit"));
        };
        let (rows, user) = head[24..].split_at(n * row);
        if ![0, 8 * n].contains(&user.len()) {
            return Err(damaged("the number of users does not fit"));
        }
        let (rows, known) = if row == 4 {
            let rows: Vec<_> = rows
                .as_chunks()
                .0
                .iter()
                .map(|&row| u32::from_le_bytes(row))
                .collect();
            let known = rows.iter().all(|&row| row >> 1 <= 1_f32.to_bits());
            (Rows::Single(rows), known)
        } else {
            let rows: Vec<_> = rows
                .as_chunks()
                .0
                .iter()
                .map(|&row| u64::from_le_bytes(row))
                .collect();
            let known = rows.iter().all(|&row| row >> 1 <= 1_f64.to_bits());
            (Rows::Double(rows), known)
        };
        if !known {
            return Err(damaged("a probability is outside [0, 1]"));
        }
        let user = user
            .as_chunks()
            .0
            .iter()
            .map(|&user| i64::from_le_bytes(user))
            .collect();
        Ok(Self { rows, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
    const SINGLE: [f64; 4] = [0.75, 0.25, 0.75, 0.5];
    const USER: [i64; 4] = [i64::MIN, 7, i64::MIN, 7];

    fn predictions(probability: &[f64], user: Option<&[i64]>) -> Predictions {
        let mut rows = Predictions::default();
        rows.update(&LABEL, probability, user).unwrap();
        rows
    }

    #[test]
    fn merged_rows_are_all_rows() {
        let double = SINGLE.map(|p| p / 3.0);
        let label = [LABEL, LABEL].concat();
        let probability = [double, SINGLE].concat();
        for (first, second) in [(SINGLE, double), (double, SINGLE)] {
            let mut rows = predictions(&first, Some(&USER));
            rows.merge(predictions(&second, Some(&USER))).unwrap();
            assert_eq!((rows.len(), rows.nbytes()), (8, 8 * 16));
            assert_eq!(rows.auc(), super::super::auc(&label, &probability));
            assert_eq!(rows.logloss(), super::super::logloss(&label, &probability));
            let calibration = super::super::calibration(&label, &probability);
            assert_eq!(rows.calibration(), calibration);
        }
    }

    #[test]
    fn bytes_come_back_as_they_were() {
        let double = SINGLE.map(|p| p / 3.0);
        for probability in [SINGLE, double] {
            for user in [None, Some(&USER[..])] {
                let rows = predictions(&probability, user);
                let read = Predictions::from_bytes(&rows.to_bytes()).unwrap();
                assert_eq!(read.to_bytes(), rows.to_bytes());
                assert_eq!(read.auc(), rows.auc());
                let weighting = Weighting::Impressions;
                assert_eq!(read.gauc(weighting), rows.gauc(weighting));
            }
        }
        let empty = Predictions::default().to_bytes();
        assert!(Predictions::from_bytes(&empty).unwrap().is_empty());
    }

    #[test]
    fn users_come_always_or_never() {
        let mut rows = predictions(&SINGLE, None);
        assert_eq!(rows.gauc(Weighting::Uniform), Err(Error::NoUsers));
        let more = predictions(&SINGLE, Some(&USER));
        assert_eq!(rows.merge(more), Err(Error::SomeUsers(4)));
        assert_eq!(rows.merge(Predictions::default()), Ok(()));
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn equal_probabilities_share_a_bin() {
        let rows = predictions(&SINGLE, None);
        let found = rows.reliability(Bins::Count, 4).unwrap();
        let bin = |bin, rows, positives, probability| super::super::Bin {
            bin,
            rows,
            positives,
            probability,
        };
        assert_eq!(
            found.bins,
            [bin(0, 1, 0, 0.25), bin(1, 1, 1, 0.5), bin(2, 2, 1, 0.75)]
        );
        assert_eq!(
            found.error.to_bits(),
            ((0.25 + 0.5 + 0.5) / 4.0_f64).to_bits()
        );
        let found = rows.reliability(Bins::Width, 2).unwrap();
        assert_eq!(found.bins, [bin(0, 2, 1, 0.375), bin(1, 2, 1, 0.75)]);
        for count in [0, 10_001] {
            let found = rows.reliability(Bins::Width, count);
            assert_eq!(found, Err(Error::BinCount(count)));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let bytes = predictions(&SINGLE, Some(&USER)).to_bytes();
        let forged = |at: usize, value: u8| {
            let mut bytes = bytes[..bytes.len() - 8].to_vec();
            bytes[at] = value;
            bytes.extend(xxh3_64(&bytes).to_le_bytes());
            Predictions::from_bytes(&bytes).map_err(|error| error.to_string())
        };
        for (at, value, reason) in [
            (0, b'x', "mark and version"),
            (8, 2, "number of rows"),
            (8, 1, "number of users"),
            (16, 3, "number of users"),
            (23, 255, "number of rows"),
            (27, 255, "outside [0, 1]"),
        ] {
            let error = forged(at, value).unwrap_err();
            assert!(error.contains(reason), "{at}: {error}");
        }
    }
}
