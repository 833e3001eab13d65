//! Vectors in [-1, 1] in fewer bits: bfloat16, int8, and int4 with a codebook.

use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::{Error, Result, pool};

/// What an int8 of 127 stands for is 1; a step is 1/127.
pub const INT8_SCALE: f32 = 127.0;
/// Values of a codebook for int4.
pub const CODES: usize = 16;

const MIN_VALUES: usize = 1 << 14;

/// Sixteen values evenly over [-1, 1]; a step is 2/15.
pub fn uniform_codebook() -> [f32; CODES] {
    std::array::from_fn(|i| (2.0 * i as f32 - 15.0) / 15.0)
}

/// A codebook that can be searched: sixteen finite values, rising.
pub fn checked_codebook(values: &[f32]) -> Result<&[f32; CODES]> {
    let rising = |codes: &&[f32; CODES]| {
        codes.iter().all(|code| code.is_finite()) && codes.is_sorted_by(|a, b| a < b)
    };
    values.try_into().ok().filter(rising).ok_or(Error::Codebook)
}

/// Nearest bfloat16 of each value, as bits.
pub fn to_bf16(values: &[f32]) -> Result<Vec<u16>> {
    pool::install(|| {
        values
            .par_iter()
            .with_min_len(MIN_VALUES)
            .map(|&value| bf16::from_f32(value).to_bits())
            .collect()
    })
}

/// Nearest int8 of each value; what lies outside [-1, 1] becomes its nearer end.
pub fn to_int8(values: &[f32]) -> Result<Vec<i8>> {
    let code = |&value: &f32| (value.clamp(-1.0, 1.0) * INT8_SCALE).round_ties_even() as i8;
    pool::install(|| {
        values
            .par_iter()
            .with_min_len(MIN_VALUES)
            .map(code)
            .collect()
    })
}

/// Nearest code of each value, two to a byte with the first in the low half; rows of `dim` values start at a byte.
pub fn to_int4(values: &[f32], dim: usize, codebook: &[f32; CODES]) -> Result<Vec<u8>> {
    let borders: [f32; CODES - 1] =
        std::array::from_fn(|i| f32::midpoint(codebook[i], codebook[i + 1]));
    let code = |value: f32| {
        borders
            .iter()
            .map(|&border| u8::from(value > border))
            .sum::<u8>()
    };
    let pack = |pair: &[f32]| code(pair[0]) | pair.get(1).map_or(0, |&value| code(value) << 4);
    if dim == 0 {
        return Ok(Vec::new());
    }
    pool::install(|| {
        let rows = values
            .par_chunks(dim)
            .with_min_len(MIN_VALUES.div_ceil(dim));
        rows.flat_map_iter(|row| row.chunks(2).map(pack)).collect()
    })
}

/// Both values of every byte of int4 codes.
pub fn pairs_of(codebook: &[f32; CODES]) -> Vec<[f32; 2]> {
    (0..=usize::from(u8::MAX))
        .map(|byte| [codebook[byte & 15], codebook[byte >> 4]])
        .collect()
}

pub(crate) fn from_bf16(from: &[bf16], to: &mut [f32]) {
    from.convert_to_f32_slice(to);
}

pub(crate) fn from_int8(from: &[i8], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = f32::from(*from) / INT8_SCALE;
    }
}

pub(crate) fn from_int4(from: &[u8], to: &mut [f32], pairs: &[[f32; 2]]) {
    let (whole, last) = to.as_chunks_mut::<2>();
    for (from, to) in from.iter().zip(whole) {
        *to = pairs[usize::from(*from)];
    }
    if let ([to], Some(from)) = (last, from.last()) {
        *to = pairs[usize::from(*from)][0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<f32> {
        (-1000..=1000).map(|i| i as f32 / 1000.0).collect()
    }

    #[test]
    fn errors_stay_within_half_a_step() {
        let values = values();
        let mut back = vec![0.0; values.len()];
        let worst = |back: &[f32]| {
            values
                .iter()
                .zip(back)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max)
        };
        from_int8(&to_int8(&values).unwrap(), &mut back);
        assert!(worst(&back) <= 0.5 / 127.0 + 1e-6);
        let codebook = uniform_codebook();
        let codes = to_int4(&values, values.len(), &codebook).unwrap();
        assert_eq!(codes.len(), values.len().div_ceil(2));
        from_int4(&codes, &mut back, &pairs_of(&codebook));
        assert!(worst(&back) <= 1.0 / 15.0 + 1e-6);
        assert_eq!(
            (back[0].to_bits(), back[2000].to_bits()),
            ((-1.0_f32).to_bits(), 1.0_f32.to_bits())
        );
    }

    #[test]
    fn odd_rows_of_int4_start_at_a_byte() {
        let codebook = uniform_codebook();
        let codes = to_int4(&[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], 3, &codebook).unwrap();
        assert_eq!(codes, [0xf0, 0x00, 0x0f, 0x0f]);
        let mut back = [9.0; 3];
        from_int4(&codes[2..], &mut back, &pairs_of(&codebook));
        assert_eq!(
            back.map(f32::to_bits),
            [1.0_f32, -1.0, 1.0].map(f32::to_bits)
        );
    }

    #[test]
    fn a_codebook_must_rise() {
        assert!(checked_codebook(&uniform_codebook()).is_ok());
        let mut bad = uniform_codebook();
        bad[3] = bad[4];
        assert_eq!(checked_codebook(&bad), Err(Error::Codebook));
        assert_eq!(checked_codebook(&[0.0]), Err(Error::Codebook));
    }
}
