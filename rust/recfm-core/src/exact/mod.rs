//! Sums and moments of floats without rounding: the same bits for any order, any chunks and any number of workers.
//!
//! A float is a whole number times a power of two, so each exponent has a bin of whole numbers to add into. The bins
//! meet in one wide number, which is rounded once, when it is read.

mod moments;

use rayon::prelude::*;

pub use moments::ExactMoments;

use crate::wide::{Wide, divided, rounded, shifted};
use crate::{Error, Result, pool};

const BINS: usize = 2048;
/// Limbs for 2^64 floats of any size.
const SUM_LIMBS: usize = 34;
/// Exponent of the last bit of the smallest float.
const LOWEST: i64 = -1074;

/// The exact sum of finite floats.
#[derive(Debug, Clone)]
pub struct ExactSum {
    bins: Box<[i128]>,
    rest: Wide<SUM_LIMBS>,
}

impl Default for ExactSum {
    fn default() -> Self {
        Self {
            bins: vec![0; BINS].into(),
            rest: Wide::ZERO,
        }
    }
}

impl ExactSum {
    /// Adds every value; refuses all of them if one is not finite.
    pub fn add(&mut self, values: &[f64]) -> Result<()> {
        check_finite(values)?;
        for &value in values {
            self.push(value);
        }
        Ok(())
    }

    /// The sum of `n` finite values, added up by all threads.
    pub(crate) fn par(n: usize, value: impl Fn(usize) -> f64 + Sync) -> Result<Self> {
        pool::install(|| {
            let pieces = rayon::current_num_threads();
            let sums = (0..pieces).into_par_iter().map(|piece| {
                let mut sum = Self::default();
                for i in piece * n / pieces..(piece + 1) * n / pieces {
                    sum.push(value(i));
                }
                sum
            });
            sums.reduce(Self::default, |mut a, b| {
                a.merge(&b);
                a
            })
        })
    }

    /// Adds a value that must be finite.
    #[inline]
    pub fn push(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        let (exponent, mantissa) = parts(value);
        let sign = value.to_bits() as i64 >> 63;
        self.bins[exponent] += i128::from((mantissa as i64 ^ sign) - sign);
    }

    /// Adds what another sum holds.
    pub fn merge(&mut self, other: &Self) {
        self.rest.add(&other.total());
    }

    /// The sum, rounded once to the nearest float; infinite if none is near.
    pub fn value(&self) -> f64 {
        let total = self.total();
        signed(
            total.is_negative(),
            rounded(&total.magnitude(), LOWEST, false),
        )
    }

    /// The sum divided by a count above 0, rounded once.
    pub fn over(&self, count: u64) -> f64 {
        quotient(&self.total(), count)
    }

    fn total(&self) -> Wide<SUM_LIMBS> {
        let mut total = self.rest.clone();
        for (exponent, &bin) in self.bins.iter().enumerate().filter(|(_, bin)| **bin != 0) {
            total.add_shifted(bin, exponent.saturating_sub(1));
        }
        total
    }
}

/// A finite float as `mantissa * 2^(max(exponent, 1) - 1 + LOWEST)`, without its sign.
#[inline]
fn parts(value: f64) -> (usize, u64) {
    let bits = value.to_bits();
    let exponent = (bits >> 52) as usize % BINS;
    (
        exponent,
        (bits & ((1 << 52) - 1)) | u64::from(exponent > 0) << 52,
    )
}

fn check_finite(values: &[f64]) -> Result<()> {
    // Chunks without an early exit are what the compiler turns into vector instructions.
    let finite = |chunk: &[f64]| {
        chunk
            .iter()
            .fold(true, |all, value| all & value.is_finite())
    };
    if values.chunks(1024).all(finite) {
        return Ok(());
    }
    let row = values
        .iter()
        .position(|value| !value.is_finite())
        .unwrap_or(0);
    Err(Error::NotFinite {
        row,
        value: values[row],
    })
}

fn signed(negative: bool, value: f64) -> f64 {
    if negative { -value } else { value }
}

fn quotient<const N: usize>(sum: &Wide<N>, count: u64) -> f64 {
    const MORE: i64 = 128; // bits, so that the quotient has at least 64
    let (sum, sign) = (sum.magnitude(), sum.is_negative());
    let (limbs, cut) = divided(&shifted(&sum, MORE).0, count);
    signed(sign, rounded(&limbs, LOWEST - MORE, cut))
}

#[cfg(test)]
#[expect(
    clippy::float_cmp,
    reason = "to the last bit is what these tests are about"
)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_beside_something_huge() {
        let mut sum = ExactSum::default();
        sum.add(&[1e308, 1.0, 1e308, -1e308, 5e-324, -1e308, 1e-3])
            .unwrap();
        assert_eq!(sum.value(), 1.001);
        sum.add(&[-1.0, -1e-3]).unwrap();
        assert_eq!(sum.value(), 5e-324);
        assert_eq!(ExactSum::default().value(), 0.0);
    }

    #[test]
    fn what_is_too_large_is_infinite_but_its_mean_is_not() {
        let mut sum = ExactSum::default();
        sum.add(&[-f64::MAX; 3]).unwrap();
        assert_eq!(sum.value(), f64::NEG_INFINITY);
        assert_eq!(sum.over(3), -f64::MAX);
    }
}
