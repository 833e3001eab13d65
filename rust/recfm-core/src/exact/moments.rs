//! Mean and standard deviation from an exact sum and an exact sum of squares.

use xxhash_rust::xxh3::xxh3_64;

use super::{BINS, ExactSum, LOWEST, SUM_LIMBS, check_finite, parts};
use crate::wide::{Wide, bits, difference, divided, product, rounded, shifted};
use crate::{Error, Result};

/// Limbs for the squares of 2^64 floats of any size.
const SQUARE_LIMBS: usize = 67;
/// More values than this can only come of merging copies.
const MOST: u64 = 1 << 62;
/// A square has up to 106 bits, so this many fit a bin before it must be emptied.
const FULL: usize = 1 << 20;

/// Count, mean, standard deviation and range of finite floats, exact until they are read.
#[derive(Debug, Clone)]
pub struct ExactMoments {
    count: u64,
    min: f64,
    max: f64,
    sum: ExactSum,
    /// Squared mantissas by exponent, of at most `FULL` values.
    bins: Box<[u128]>,
    squares: Wide<SQUARE_LIMBS>,
}

impl Default for ExactMoments {
    fn default() -> Self {
        Self {
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: ExactSum::default(),
            bins: vec![0; BINS].into(),
            squares: Wide::ZERO,
        }
    }
}

impl ExactMoments {
    const MAGIC: &[u8; 8] = b"recfmEM1";
    const BYTES: usize = 8 * (4 + SUM_LIMBS + SQUARE_LIMBS + 1);

    /// Takes every value in; refuses all of them if one is not finite.
    pub fn update(&mut self, values: &[f64]) -> Result<()> {
        check_finite(values)?;
        self.count = self.counted(values.len() as u64)?;
        for values in values.chunks(FULL) {
            for &value in values {
                let (exponent, mantissa) = parts(value);
                let sign = value.to_bits() as i64 >> 63;
                self.sum.bins[exponent] += i128::from((mantissa as i64 ^ sign) - sign);
                self.bins[exponent] += u128::from(mantissa) * u128::from(mantissa);
            }
            self.empty_bins();
        }
        for &value in values {
            let value = value + 0.0; // one zero, or the first one seen would win
            self.min = self.min.min(value);
            self.max = self.max.max(value);
        }
        Ok(())
    }

    fn empty_bins(&mut self) {
        for (exponent, bin) in self
            .bins
            .iter_mut()
            .enumerate()
            .filter(|(_, bin)| **bin != 0)
        {
            let bin = std::mem::take(bin);
            self.squares
                .add_shifted(bin as i128, 2 * exponent.saturating_sub(1));
        }
    }

    /// Takes in what other moments were made of.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.count = self.counted(other.count)?;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum.merge(&other.sum);
        self.squares.add(&other.squares);
        Ok(())
    }

    /// The count with `more`, as long as the wide numbers have room for it.
    fn counted(&self, more: u64) -> Result<u64> {
        let count = self.count.checked_add(more);
        count
            .filter(|&count| count <= MOST)
            .ok_or(Error::ValueCount(self.count))
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Smallest value.
    pub fn min(&self) -> Result<f64> {
        self.known("min").map(|()| self.min)
    }

    /// Largest value.
    pub fn max(&self) -> Result<f64> {
        self.known("max").map(|()| self.max)
    }

    /// Mean, rounded once.
    pub fn mean(&self) -> Result<f64> {
        self.known("mean").map(|()| self.sum.over(self.count))
    }

    /// Standard deviation of the population, rounded once.
    pub fn std(&self) -> Result<f64> {
        self.known("std")?;
        // With S the sum and Q the sum of squares: std = sqrt(n * Q - S^2) / n.
        Ok(self
            .spread()
            .map_or(0.0, |spread| root_over(&spread, self.count)))
    }

    /// `n * Q - S^2`; `None` if that is negative, which no values make it.
    fn spread(&self) -> Option<Vec<u64>> {
        let sum = self.sum.total().magnitude();
        difference(
            &product(&self.squares.0, &[self.count]),
            &product(&sum, &sum),
        )
    }

    fn known(&self, moment: &'static str) -> Result<()> {
        if self.count == 0 {
            return Err(Error::NoValues(moment));
        }
        Ok(())
    }

    /// The moments as bytes, a function of the values alone and not of how they came.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut words = vec![self.count, self.min.to_bits(), self.max.to_bits()];
        words.extend(self.sum.total().0);
        words.extend(self.squares.0);
        let mut bytes = Self::MAGIC.to_vec();
        bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        bytes
    }

    /// Reads what `to_bytes` wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |reason| Error::State {
            what: "ExactMoments",
            reason,
        };
        if bytes.len() != Self::BYTES {
            return Err(damaged(format!(
                "{} bytes instead of {}",
                bytes.len(),
                Self::BYTES
            )));
        }
        if &bytes[..8] != Self::MAGIC {
            return Err(damaged(
                "they do not start with its mark and version".to_owned(),
            ));
        }
        let words: Vec<_> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|&word| u64::from_le_bytes(word))
            .collect();
        if words[words.len() - 1] != xxh3_64(&bytes[..bytes.len() - 8]) {
            return Err(damaged("the checksum does not match".to_owned()));
        }
        let mut moments = Self {
            count: words[1],
            min: f64::from_bits(words[2]),
            max: f64::from_bits(words[3]),
            ..Self::default()
        };
        moments.sum.rest.0.copy_from_slice(&words[4..4 + SUM_LIMBS]);
        moments
            .squares
            .0
            .copy_from_slice(&words[4 + SUM_LIMBS..words.len() - 1]);
        if moments.count > MOST {
            return Err(damaged("the count is impossible".to_owned()));
        }
        let ordered = moments.count == 0 || moments.min <= moments.max;
        if moments.squares.is_negative() || !ordered || moments.spread().is_none() {
            return Err(damaged("no values have these moments".to_owned()));
        }
        Ok(moments)
    }
}

impl PartialEq for ExactMoments {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

/// `sqrt(square * 2^(2 * LOWEST)) / count`, rounded once.
fn root_over(square: &[u64], count: u64) -> f64 {
    if bits(square) == 0 {
        return 0.0;
    }
    // Moved by `half` twice, the radicand has 124 to 128 bits and its root at least 62.
    let half = (126 - bits(square) + 2 * bits(&[count])).div_euclid(2);
    let (limbs, first) = shifted(square, 2 * half);
    let (limbs, second) = divided(&limbs, count);
    let (limbs, third) = divided(&limbs, count);
    let limb = |i: usize| u128::from(limbs.get(i).copied().unwrap_or(0));
    let radicand = limb(1) << 64 | limb(0);
    let root = radicand.isqrt();
    let cut = first || second || third || root * root != radicand;
    rounded(&[root as u64], LOWEST - half, cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(values: &[f64]) -> ExactMoments {
        let mut moments = ExactMoments::default();
        moments.update(values).unwrap();
        moments
    }

    #[test]
    fn moments_do_not_cancel() {
        let far = moments(&[1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
        assert_eq!(
            (far.mean(), far.std()),
            (Ok(1e9 + 10.0), Ok(22.5_f64.sqrt()))
        );
        let tiny = moments(&[-5e-324, 5e-324, 1e-320]);
        assert_eq!(tiny.std(), Ok(954.0 * 5e-324));
        let huge = moments(&[-f64::MAX, f64::MAX]);
        assert_eq!((huge.mean(), huge.std()), (Ok(0.0), Ok(f64::MAX)));
        assert_eq!(moments(&[0.1; 7]).std(), Ok(0.0));
    }

    #[test]
    fn bytes_depend_on_the_values_alone() {
        let values: Vec<_> = (0..5000)
            .map(|i| f64::from(i * i % 911) / 7.0 - 40.0)
            .collect();
        let whole = moments(&values);
        for cut in [0, 1, 2500, 5000] {
            let mut parts = moments(&values[cut..]);
            parts.merge(&moments(&values[..cut])).unwrap();
            assert_eq!(parts.to_bytes(), whole.to_bytes());
        }
        let read = ExactMoments::from_bytes(&whole.to_bytes()).unwrap();
        assert_eq!(read, whole);
        assert_eq!((read.mean(), read.std()), (whole.mean(), whole.std()));
        assert_eq!((read.min(), read.max()), (whole.min(), whole.max()));
    }

    #[test]
    fn a_full_bin_is_emptied_in_time() {
        let values = vec![f64::from_bits(1.0_f64.to_bits() + (1 << 52) - 1); 3 * FULL + 5];
        assert_eq!(moments(&values).std(), Ok(0.0));
        assert_eq!(moments(&values).mean(), Ok(values[0]));
    }

    #[test]
    fn damage_is_detected_anywhere() {
        let bytes = moments(&[1.0, 2.0]).to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert!(ExactMoments::from_bytes(&damaged).is_err(), "byte {at}");
            assert!(ExactMoments::from_bytes(&bytes[..at]).is_err());
        }
    }

    #[test]
    fn what_is_not_finite_is_named_and_changes_nothing() {
        let mut sum = moments(&[1.0]);
        let error = sum.update(&[2.0, f64::INFINITY, f64::NAN]);
        let (row, value) = (1, f64::INFINITY);
        assert_eq!(error, Err(Error::NotFinite { row, value }));
        assert_eq!(sum, moments(&[1.0]));
        assert_eq!(moments(&[]).std(), Err(Error::NoValues("std")));
    }

    #[test]
    fn copies_cannot_be_merged_for_ever() {
        let mut sum = moments(&[1.0, 4.0]);
        for _ in 0..61 {
            sum.merge(&sum.clone()).unwrap();
        }
        assert_eq!((sum.mean(), sum.std()), (Ok(2.5), Ok(1.5)));
        let bytes = sum.to_bytes();
        assert_eq!(sum.merge(&sum.clone()), Err(Error::ValueCount(MOST)));
        assert_eq!(sum.update(&[0.0]), Err(Error::ValueCount(MOST)));
        assert_eq!(sum.to_bytes(), bytes);
    }
}
