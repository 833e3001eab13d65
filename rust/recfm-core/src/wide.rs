//! Whole numbers of thousands of bits, as little-endian limbs: what an exact sum of floats needs and no more.

/// A signed whole number in two's complement. The caller chooses N such that nothing overflows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wide<const N: usize>(pub [u64; N]);

impl<const N: usize> Wide<N> {
    pub const ZERO: Self = Self([0; N]);

    /// Adds `value * 2^bit`.
    pub fn add_shifted(&mut self, value: i128, bit: usize) {
        let shift = bit % 64;
        let low = (value as u128) << shift;
        let high = if shift == 0 {
            value >> 127
        } else {
            value >> (128 - shift)
        };
        let sign = (value >> 127) as u64;
        let words = [low as u64, (low >> 64) as u64, high as u64];
        let words = words.into_iter().chain(std::iter::repeat(sign));
        add_words(&mut self.0[bit / 64..], words);
    }

    /// Adds another number.
    pub fn add(&mut self, other: &Self) {
        add_words(&mut self.0, other.0.into_iter());
    }

    pub fn is_negative(&self) -> bool {
        self.0[N - 1] >> 63 == 1
    }

    /// Absolute value.
    pub fn magnitude(&self) -> Vec<u64> {
        let mut limbs = self.0.to_vec();
        if self.is_negative() {
            for limb in &mut limbs {
                *limb = !*limb;
            }
            add_words(&mut limbs, std::iter::once(1).chain(std::iter::repeat(0)));
        }
        limbs
    }
}

fn add_words(limbs: &mut [u64], words: impl Iterator<Item = u64>) {
    let mut carry = false;
    for (limb, word) in limbs.iter_mut().zip(words) {
        let (sum, first) = limb.overflowing_add(word);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        (*limb, carry) = (sum, first | second);
    }
}

/// `a * b`.
pub fn product(a: &[u64], b: &[u64]) -> Vec<u64> {
    let mut out = vec![0_u64; a.len() + b.len()];
    for (i, &left) in a.iter().enumerate() {
        let mut carry = 0_u128;
        for (place, &right) in out[i..].iter_mut().zip(b.iter().chain(std::iter::once(&0))) {
            let sum = u128::from(left) * u128::from(right) + u128::from(*place) + carry;
            *place = sum as u64;
            carry = sum >> 64;
        }
    }
    out
}

/// `a - b`, or `None` if that is negative.
pub fn difference(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let mut borrow = false;
    let limb = |limbs: &[u64], i: usize| limbs.get(i).copied().unwrap_or(0);
    let out = (0..a.len().max(b.len()))
        .map(|i| {
            let (rest, first) = limb(a, i).overflowing_sub(limb(b, i));
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            borrow = first | second;
            rest
        })
        .collect();
    (!borrow).then_some(out)
}

/// Bits up to the highest that is set.
pub fn bits(limbs: &[u64]) -> i64 {
    let top = limbs.iter().rposition(|&limb| limb > 0);
    top.map_or(0, |i| {
        i as i64 * 64 + 64 - i64::from(limbs[i].leading_zeros())
    })
}

/// `floor(limbs * 2^shift)`, and whether anything was cut off.
pub fn shifted(limbs: &[u64], shift: i64) -> (Vec<u64>, bool) {
    let words = (shift.unsigned_abs() / 64) as usize;
    let rest = (shift.unsigned_abs() % 64) as u32;
    if shift >= 0 {
        let mut out = vec![0; words];
        out.extend_from_slice(limbs);
        return (product(&out, &[1 << rest]), false);
    }
    let lost = limbs.iter().take(words).any(|&limb| limb > 0);
    let kept = limbs.get(words..).unwrap_or(&[]);
    let (out, remainder) = divided(kept, 1 << rest);
    (out, lost | remainder)
}

/// `floor(limbs / divisor)`, and whether anything was cut off.
pub fn divided(limbs: &[u64], divisor: u64) -> (Vec<u64>, bool) {
    let (mut out, mut remainder) = (limbs.to_vec(), 0_u128);
    for limb in out.iter_mut().rev() {
        let part = remainder << 64 | u128::from(*limb);
        *limb = (part / u128::from(divisor)) as u64;
        remainder = part % u128::from(divisor);
    }
    (out, remainder > 0)
}

/// The float nearest to `limbs * 2^exponent`, ties to even.
///
/// Where `more`, the number is larger than that by less than one unit; it then needs 54 bits or more.
pub fn rounded(limbs: &[u64], exponent: i64, more: bool) -> f64 {
    let length = bits(limbs);
    if length == 0 {
        return 0.0;
    }
    let lowest = (exponent + length - 53).max(-1074);
    // One bit more than a float keeps, then the nearest of the two neighbours.
    let (twice, cut) = shifted(limbs, exponent - lowest + 1);
    let (twice, cut) = (twice.first().copied().unwrap_or(0), cut | more);
    let up = twice & 1 == 1 && (cut || twice & 2 == 2);
    let mantissa = (twice >> 1) + u64::from(up);
    if lowest + 1074 > 2045 {
        return f64::INFINITY;
    }
    // A carry out of the mantissa lands in the exponent, as it should.
    f64::from_bits((((lowest + 1074) as u64) << 52) + mantissa)
}

#[cfg(test)]
#[expect(
    clippy::float_cmp,
    reason = "to the last bit is what these tests are about"
)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_carries_across_limbs() {
        assert_eq!(product(&[u64::MAX, 1], &[u64::MAX]), [1, u64::MAX - 2, 1]);
        assert_eq!(difference(&[0, 1], &[1]), Some(vec![u64::MAX, 0]));
        assert_eq!(difference(&[1], &[0, 1]), None);
        assert_eq!(shifted(&[3], 127), (vec![0, 1 << 63, 1], false));
        assert_eq!(shifted(&[0, 1 << 63, 1], -127), (vec![3, 0], false));
        assert_eq!(shifted(&[5], -1), (vec![2], true));
        assert_eq!(divided(&[1, 1], 2), (vec![1 << 63, 0], true));
        assert_eq!((bits(&[]), bits(&[0, 4])), (0, 67));
    }

    #[test]
    fn sums_change_sign() {
        let mut sum = Wide::<4>::ZERO;
        sum.add_shifted(-3, 63);
        assert!(sum.is_negative());
        assert_eq!(sum.magnitude(), [1 << 63, 1, 0, 0]);
        sum.add_shifted(i128::MAX, 64);
        sum.add_shifted(3, 63);
        assert_eq!(sum.magnitude(), [0, u64::MAX, u64::MAX >> 1, 0]);
    }

    #[test]
    fn rounding_goes_to_the_nearest_and_from_ties_to_even() {
        const ODD: u64 = (1 << 53) + 1;
        assert_eq!(rounded(&[ODD], 0, false), (1_u64 << 53) as f64);
        assert_eq!(rounded(&[ODD << 10], 0, true), ((ODD + 1) << 10) as f64);
        assert_eq!(rounded(&[ODD + 2], 0, false), (ODD + 3) as f64);
        assert_eq!(rounded(&[1], -1074, false), 5e-324);
        assert_eq!(rounded(&[1], -1075, false), 0.0);
        assert_eq!(rounded(&[3], -1075, false), 1e-323);
        assert_eq!(rounded(&[u64::MAX], -1074 - 65, false), 0.0);
        assert_eq!(rounded(&[u64::MAX], 960, false), f64::INFINITY);
        assert_eq!(rounded(&[u64::MAX << 11], 960, false), f64::MAX);
        assert_eq!(rounded(&[0, 1], 0, false), 2_f64.powi(64));
    }
}
