//! Stable hashing of categorical values: XXH3 with 64 bits, seeded by the feature's name.
//!
//! XXH3 is a published algorithm, so ids are the same on every platform and in every version of recfm.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use rayon::prelude::*;

use crate::column::{Chunk, first_null, total_len};
use crate::history::same_length;
use crate::{Error, Result, pool};

/// Id of padding.
pub const PADDING: i32 = 0;
/// Id of every value that has no id of its own, and of null.
pub const UNKNOWN: i32 = 1;
/// First id of a real value.
pub const FIRST: i32 = 2;

/// Hash seed of the feature `name`; equal values of different features hash differently.
pub fn seed_of(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Hashes each value to one of `buckets` ids: 2 and up for values, 1 for null.
pub fn hash_ids(chunks: &[Chunk<'_>], name: &str, buckets: i64) -> Result<Vec<i32>> {
    if !(3..=i64::from(i32::MAX)).contains(&buckets) {
        return Err(Error::Buckets {
            column: name.to_owned(),
            buckets,
        });
    }
    let seed = seed_of(name);
    let room = buckets as u64 - FIRST as u64;
    let bucket = |bytes: &[u8]| FIRST + (xxh3_64_with_seed(bytes, seed) % room) as i32;
    pool::install(|| {
        let mut ids = Vec::with_capacity(total_len(chunks));
        for chunk in chunks {
            chunk.map_into(
                &mut ids,
                UNKNOWN,
                |i| bucket(&i.to_le_bytes()),
                |s| bucket(s.as_bytes()),
            );
        }
        ids
    })
}

/// 64-bit keys for users and items: integers as they are, strings as the bits of their unseeded hash.
pub fn hash_keys(chunks: &[Chunk<'_>], name: &str) -> Result<Vec<i64>> {
    if let Some(row) = first_null(chunks) {
        return Err(Error::NullKey {
            column: name.to_owned(),
            row,
        });
    }
    pool::install(|| {
        let mut keys = Vec::with_capacity(total_len(chunks));
        for chunk in chunks {
            chunk.map_into(&mut keys, 0, |i| i, |s| xxh3_64(s.as_bytes()) as i64);
        }
        keys
    })
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

/// Hash of a value inside the tables of this crate; not part of any stored format.
pub(crate) trait Key: Copy + Ord + Send + Sync {
    fn hash64(self) -> u64;
}

impl Key for i64 {
    fn hash64(self) -> u64 {
        mix64(self as u64)
    }
}

impl Key for &str {
    fn hash64(self) -> u64 {
        xxh3_64(self.as_bytes())
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
    use crate::column::Values;

    fn strs<'a>(values: &[Option<&'a str>]) -> Vec<Chunk<'a>> {
        vec![Chunk::new(Values::Strs(values.to_vec()))]
    }

    #[test]
    fn golden_values_of_xxh3() {
        assert_eq!(seed_of(""), 0x2d06_8005_38d3_94c2);
        assert_eq!(seed_of("item"), xxh3_64(b"item"));
        assert_eq!(
            hash_keys(&strs(&[Some("")]), "u"),
            Ok(vec![0x2d06_8005_38d3_94c2])
        );
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
        let ids = hash_ids(&strs(&[Some("a"), None, Some("a")]), "f", 3).unwrap();
        assert_eq!(ids, [2, 1, 2]);
    }

    #[test]
    fn too_few_buckets_are_refused() {
        for buckets in [i64::MIN, -1, 2, 1 << 31] {
            assert!(matches!(
                hash_ids(&[], "f", buckets),
                Err(Error::Buckets { .. })
            ));
        }
    }

    #[test]
    fn a_null_key_names_its_row() {
        let error = hash_keys(&strs(&[Some("a"), None]), "user").unwrap_err();
        assert_eq!(
            error,
            Error::NullKey {
                column: "user".into(),
                row: 1
            }
        );
    }
}
