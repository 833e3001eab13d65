//! Stable hashing of categorical values: XXH3 with 64 bits, seeded by the feature's name.
//!
//! XXH3 is a published algorithm, so ids are the same on every platform and in every version of recfm.

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use crate::column::{Chunk, fill, first_null, total_len};
use crate::history::same_length;
use crate::xxh3::Xxh3;
use crate::{Error, Result, pool};

/// Id of padding.
pub const PADDING: i32 = 0;
/// Id of every value that has no id of its own, and of null.
pub const UNKNOWN: i32 = 1;
/// First id of a real value.
pub const FIRST: i32 = 2;

/// Rows that one task takes.
const BLOCK: usize = 1 << 14;

/// Hash seed of the feature `name`; equal values of different features hash differently.
pub fn seed_of(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// XXH3 of any bytes, unseeded: the checksum of recfm's files.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Hashes the values of one feature to ids: 2 and up for values, 1 for null.
#[derive(Debug, Clone)]
pub struct Hasher {
    name: String,
    xxh3: Xxh3,
    room: Modulus,
}

impl Hasher {
    /// A hasher for the feature `name`, with ids below `buckets`.
    pub fn new(name: &str, buckets: i64) -> Result<Self> {
        if !(3..=i64::from(i32::MAX)).contains(&buckets) {
            return Err(Error::Buckets {
                column: name.to_owned(),
                buckets,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            xxh3: Xxh3::new(seed_of(name)),
            room: Modulus::new(buckets as u64 - FIRST as u64),
        })
    }

    /// Name of the feature.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows that an embedding table for these ids needs.
    pub fn rows(&self) -> usize {
        self.room.divisor as usize + FIRST as usize
    }

    /// The id of an integer.
    #[inline]
    pub fn int(&self, value: i64) -> i32 {
        self.bucket(self.xxh3.of_int(value))
    }

    /// The id of a string's bytes.
    #[inline]
    pub fn str(&self, bytes: &[u8]) -> i32 {
        self.bucket(self.xxh3.of(bytes))
    }

    #[inline]
    fn bucket(&self, hash: u64) -> i32 {
        FIRST + self.room.of(hash) as i32
    }
}

/// Remainders by one divisor, without division.
#[derive(Debug, Clone, Copy)]
struct Modulus {
    divisor: u64,
    inverse: u64,
}

impl Modulus {
    fn new(divisor: u64) -> Self {
        // 2^64 / divisor, rounded down; 2^64 - 1 in place of 2^64 is the same unless the divisor is a power of two.
        let exact = divisor.is_power_of_two() && divisor > 1;
        Self {
            divisor,
            inverse: u64::MAX / divisor + u64::from(exact),
        }
    }

    /// `x % divisor`. The quotient by the rounded inverse is right or 1 too low.
    #[inline]
    fn of(self, x: u64) -> u64 {
        let quotient = ((u128::from(x) * u128::from(self.inverse)) >> 64) as u64;
        let rest = x - quotient * self.divisor;
        // Without a branch: a rest below the divisor wraps around to a large number.
        rest.min(rest.wrapping_sub(self.divisor))
    }
}

/// 64-bit keys for users and items: integers as they are, strings as the bits of their unseeded hash.
pub fn hash_keys(chunks: &[Chunk<'_>], name: &str) -> Result<Vec<i64>> {
    if chunks.iter().any(Chunk::may_be_null)
        && let Some(row) = first_null(chunks, name)?
    {
        return Err(Error::NullKey {
            column: name.to_owned(),
            row,
        });
    }
    let mut keys = vec![0; total_len(chunks)];
    pool::install(|| {
        let blocks = keys.par_chunks_mut(BLOCK).enumerate();
        blocks.try_for_each(|(block, keys)| {
            let str = |bytes: &[u8]| xxh3_64(bytes) as i64;
            fill(chunks, name, block * BLOCK, keys, 0, |value| value, str)
        })
    })??;
    Ok(keys)
}

/// One key for each row of several columns: the bits of XXH3 over its integers, little-endian, one after another.
pub fn joint_keys(columns: &[&[i64]]) -> Result<Vec<i64>> {
    let Some(first) = columns.first() else {
        return Err(Error::NoColumns);
    };
    for column in columns {
        same_length("a column", column.len(), "the first", first.len())?;
    }
    let key = |row: usize, bytes: &mut Vec<u8>| {
        bytes.clear();
        bytes.extend(columns.iter().flat_map(|column| column[row].to_le_bytes()));
        xxh3_64(bytes) as i64
    };
    pool::install(|| {
        (0..first.len())
            .into_par_iter()
            .with_min_len(1 << 12)
            .map_init(Vec::new, |bytes, row| key(row, bytes))
            .collect()
    })
}

/// A value that the tables of this crate find by its hash.
pub(crate) trait Key: Copy + Ord + Send + Sync {
    /// Not part of any stored format.
    fn hash64(self) -> u64;
}

impl Key for i64 {
    #[inline]
    fn hash64(self) -> u64 {
        mix64(self as u64)
    }
}

impl Key for &[u8] {
    #[inline]
    fn hash64(self) -> u64 {
        Xxh3::new(0).of(self)
    }
}

/// The finalizer of `SplitMix64`: a bijection in which every input bit moves every output bit.
pub(crate) fn mix64(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::tests::Text;
    use crate::encode::{Encoding, encode};

    #[test]
    fn golden_values_of_xxh3() {
        assert_eq!(seed_of(""), 0x2d06_8005_38d3_94c2);
        assert_eq!(seed_of("item"), xxh3_64(b"item"));
        let text = Text::new(&[Some("")]);
        assert_eq!(
            hash_keys(&[text.chunk()], "u"),
            Ok(vec![0x2d06_8005_38d3_94c2])
        );
    }

    #[test]
    fn remainders_without_division_are_remainders() {
        let mut x = 1_u64;
        for divisor in [1, 2, 3, 7, 1 << 20, (1 << 20) - 2, (1 << 31) - 3] {
            let modulus = Modulus::new(divisor);
            for _ in 0..1000 {
                x = mix64(x.wrapping_add(divisor));
                for x in [x, x >> 40, 0, 1, divisor, divisor - 1, u64::MAX] {
                    assert_eq!(modulus.of(x), x % divisor);
                }
            }
        }
    }

    #[test]
    fn joint_keys_are_the_hash_of_the_joined_bytes() {
        let bytes = [7_i64.to_le_bytes(), (-1_i64).to_le_bytes()].concat();
        assert_eq!(joint_keys(&[&[7], &[-1]]), Ok(vec![xxh3_64(&bytes) as i64]));
        assert_eq!(joint_keys(&[]), Err(Error::NoColumns));
        assert!(matches!(
            joint_keys(&[&[7], &[]]),
            Err(Error::Length { .. })
        ));
    }

    #[test]
    fn null_is_unknown_and_values_start_at_two() {
        let hasher = Hasher::new("f", 3).unwrap();
        assert_eq!((hasher.str(b"a"), hasher.int(7)), (2, 2));
        let text = Text::new(&[None]);
        assert_eq!(
            encode(Encoding::Hash(&hasher), &[text.chunk()]),
            Ok(vec![1])
        );
    }

    #[test]
    fn too_few_buckets_are_refused() {
        for buckets in [i64::MIN, -1, 2, 1 << 31] {
            assert!(matches!(
                Hasher::new("f", buckets),
                Err(Error::Buckets { .. })
            ));
        }
    }

    #[test]
    fn a_null_key_names_its_row() {
        let text = Text::new(&[Some("a"), None]);
        let error = hash_keys(&[text.chunk()], "user").unwrap_err();
        let column = "user".into();
        assert_eq!(error, Error::NullKey { column, row: 1 });
    }
}
