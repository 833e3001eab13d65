//! From a key to the row that holds it: the join of a side table.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rayon::prelude::*;

use crate::hash::Key;
use crate::history::same_length;
use crate::{Error, Result, pool};

/// Keys that one task looks up at least.
const MIN_KEYS: usize = 1024;

/// The row of each of some distinct keys.
#[derive(Debug)]
pub struct KeyIndex {
    keys: Vec<i64>,
    /// Positions in `keys`; 4 bytes each, hashed by the key they stand for.
    places: HashTable<u32>,
}

impl KeyIndex {
    /// Numbers `keys` from 1 in the order given; none may occur twice. `name` is that of their column, for errors.
    pub fn new(keys: &[i64], name: &str) -> Result<Self> {
        if keys.len() > i32::MAX as usize {
            return Err(Error::VocabSize {
                column: name.to_owned(),
                values: keys.len(),
            });
        }
        let mut places = HashTable::with_capacity(keys.len());
        for (row, key) in keys.iter().enumerate() {
            match places.entry(
                key.hash64(),
                |&other: &u32| keys[other as usize] == *key,
                |&other| keys[other as usize].hash64(),
            ) {
                Entry::Vacant(vacant) => vacant.insert(row as u32),
                Entry::Occupied(first) => {
                    return Err(Error::TwiceKey {
                        column: name.to_owned(),
                        first: *first.get() as usize,
                        row,
                        key: *key,
                    });
                }
            };
        }
        Ok(Self {
            keys: keys.to_vec(),
            places,
        })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of each key, from 1; 0 for an unknown key.
    pub fn rows(&self, keys: &[i64], out: &mut [i64]) -> Result<()> {
        same_length("out", out.len(), "keys", keys.len())?;
        pool::install(|| {
            out.par_iter_mut()
                .zip(keys)
                .with_min_len(MIN_KEYS)
                .for_each(|(row, key)| *row = self.row(*key));
        })
    }

    fn row(&self, key: i64) -> i64 {
        let found = |&place: &u32| self.keys[place as usize] == key;
        self.places
            .find(key.hash64(), found)
            .map_or(0, |&place| i64::from(place) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_numbered_from_one_and_strangers_are_zero() {
        let index = KeyIndex::new(&[7, i64::MIN, -1], "user").unwrap();
        let mut rows = [9; 5];
        index.rows(&[-1, 7, 0, i64::MIN, 7], &mut rows).unwrap();
        assert_eq!(rows, [3, 1, 0, 2, 1]);
        assert_eq!((index.len(), index.is_empty()), (3, false));
    }

    #[test]
    fn a_key_that_occurs_twice_is_named() {
        assert_eq!(
            KeyIndex::new(&[7, 5, 7], "user").unwrap_err(),
            Error::TwiceKey {
                column: "user".to_owned(),
                first: 0,
                row: 2,
                key: 7
            }
        );
    }
}
