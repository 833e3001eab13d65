//! From a key to the row that holds it: the join of a side table.

use rayon::prelude::*;

use crate::hash::UNKNOWN;
use crate::history::same_length;
use crate::ids::IntIds;
use crate::{Error, Result, pool};

/// Keys that one task looks up at least.
const MIN_KEYS: usize = 1024;

/// The row of each of some distinct keys.
#[derive(Debug)]
pub struct KeyIndex(IntIds);

impl KeyIndex {
    /// Numbers `keys` from 1 in the order given; none may occur twice. `name` is that of their column, for errors.
    pub fn new(keys: &[i64], name: &str) -> Result<Self> {
        IntIds::new(keys.to_vec(), name)
            .map(Self)
            .map_err(|error| match error {
                Error::VocabValues { position: row, .. } => Error::TwiceKey {
                    column: name.to_owned(),
                    first: keys.iter().position(|&key| key == keys[row]).unwrap_or(row),
                    row,
                    key: keys[row],
                },
                other => other,
            })
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.values().len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of each key, from 1; 0 for an unknown key.
    pub fn rows(&self, keys: &[i64], out: &mut [i64]) -> Result<()> {
        same_length("out", out.len(), "keys", keys.len())?;
        pool::install(|| {
            out.par_iter_mut()
                .zip(keys)
                .with_min_len(MIN_KEYS)
                .for_each(|(row, &key)| *row = i64::from(self.0.get(key) - UNKNOWN));
        })
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
