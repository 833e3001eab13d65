//! Distinct values numbered from 2, and the way back from a value to its number.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::hash::{FIRST, Key, UNKNOWN};
use crate::{Error, Result};

/// A value as a vocabulary owns it.
pub(crate) trait Owned {
    type Key<'a>: Key
    where
        Self: 'a;

    fn key(&self) -> Self::Key<'_>;
}

impl Owned for i64 {
    type Key<'a> = i64;

    fn key(&self) -> i64 {
        *self
    }
}

impl Owned for Box<str> {
    type Key<'a> = &'a str;

    fn key(&self) -> &str {
        self
    }
}

/// Distinct values and the way back from a value to its id.
#[derive(Debug)]
pub(crate) struct Ids<V> {
    values: Vec<V>,
    /// Positions in `values`; 4 bytes each, hashed by the value they stand for.
    positions: HashTable<i32>,
}

impl<V: Owned> Ids<V> {
    /// Numbers `values` in order; none may occur twice. `name` is that of the vocabulary, for errors.
    pub(crate) fn new(values: Vec<V>, name: &str) -> Result<Self> {
        if values.len() > (i32::MAX - FIRST) as usize {
            return Err(Error::VocabSize {
                column: name.to_owned(),
                values: values.len(),
            });
        }
        let mut positions = HashTable::with_capacity(values.len());
        let key = |position: i32| values[position as usize].key();
        for position in 0..values.len() as i32 {
            let value = key(position);
            match positions.entry(
                value.hash64(),
                |&other| key(other) == value,
                |&other| key(other).hash64(),
            ) {
                Entry::Vacant(vacant) => vacant.insert(position),
                Entry::Occupied(_) => {
                    return Err(Error::VocabValues {
                        column: name.to_owned(),
                        position: position as usize,
                        reason: "it occurs before",
                    });
                }
            };
        }
        Ok(Self { values, positions })
    }

    /// The id of `value`, 1 if it has none.
    pub(crate) fn get<'a>(&'a self, value: V::Key<'a>) -> i32 {
        self.positions
            .find(value.hash64(), |&position| {
                self.values[position as usize].key() == value
            })
            .map_or(UNKNOWN, |position| position + FIRST)
    }

    /// The values in id order.
    pub(crate) fn values(&self) -> &[V] {
        &self.values
    }
}
