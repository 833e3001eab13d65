//! From a value to its id: flat tables for many lookups.

use crate::hash::{FIRST, Key, UNKNOWN};
use crate::text::{Brief, Texts};
use crate::{Error, Result};

/// Ids of integers.
#[derive(Debug)]
pub(crate) struct IntIds {
    values: Vec<i64>,
    find: IntTable,
}

#[derive(Debug)]
enum IntTable {
    /// `ids[value - low]`, where the values lie close together, as ids from a database do.
    Dense { low: i64, ids: Vec<i32> },
    /// Open addressing; an id of 0 marks a free slot.
    Hashed(Vec<(i64, i32)>),
}

impl IntIds {
    /// Numbers `values` in order; none may occur twice. `name` is that of the vocabulary, for errors.
    pub(crate) fn new(values: Vec<i64>, name: &str) -> Result<Self> {
        check_size(values.len(), name)?;
        let low = values.iter().copied().min().unwrap_or(0);
        let high = values.iter().copied().max().unwrap_or(0);
        let span = high.wrapping_sub(low) as u64;
        let find = if span < values.len() as u64 * 4 + 1024 {
            let mut ids = vec![0; span as usize + 1];
            for (position, &value) in values.iter().enumerate() {
                let slot = &mut ids[value.wrapping_sub(low) as usize];
                if *slot != 0 {
                    return Err(repeated(name, position));
                }
                *slot = position as i32 + FIRST;
            }
            for slot in ids.iter_mut().filter(|id| **id == 0) {
                *slot = UNKNOWN;
            }
            IntTable::Dense { low, ids }
        } else {
            let mut slots = vec![(0, 0); slots_for(values.len())];
            for (position, &value) in values.iter().enumerate() {
                let slot = probe(&slots, value.hash64(), |slot| {
                    slot.1 == 0 || slot.0 == value
                });
                if slots[slot].1 != 0 {
                    return Err(repeated(name, position));
                }
                slots[slot] = (value, position as i32 + FIRST);
            }
            IntTable::Hashed(slots)
        };
        Ok(Self { values, find })
    }

    /// The id of `value`, 1 if it has none.
    #[inline]
    pub(crate) fn get(&self, value: i64) -> i32 {
        match &self.find {
            IntTable::Dense { low, ids } => {
                let place = value.wrapping_sub(*low) as u64;
                ids.get(place as usize).copied().unwrap_or(UNKNOWN)
            }
            IntTable::Hashed(slots) => {
                let slot = probe(slots, value.hash64(), |slot| slot.1 == 0 || slot.0 == value);
                slots[slot].1.max(UNKNOWN)
            }
        }
    }

    /// The values in id order.
    pub(crate) fn values(&self) -> &[i64] {
        &self.values
    }
}

/// Ids of strings.
#[derive(Debug)]
pub(crate) struct StrIds {
    values: Texts,
    /// Open addressing; an id of 0 marks a free slot. A short string is found without a look at `values`.
    slots: Vec<(Brief, i32)>,
}

impl StrIds {
    /// Numbers `values` in order; none may occur twice, all are UTF-8. `name` is that of the vocabulary, for errors.
    pub(crate) fn new(values: Texts, name: &str) -> Result<Self> {
        check_size(values.len(), name)?;
        check_utf8(&values, name)?;
        let mut ids = Self {
            slots: vec![(Brief::new(b"", 0), 0); slots_for(values.len())],
            values,
        };
        for position in 0..ids.values.len() {
            let value = ids.values.get(position);
            let hash = value.hash64();
            let brief = Brief::new(value, hash);
            let slot = ids.slot(hash, brief, value);
            if ids.slots[slot].1 != 0 {
                return Err(repeated(name, position));
            }
            ids.slots[slot] = (brief, position as i32 + FIRST);
        }
        Ok(ids)
    }

    /// The id of `value`, 1 if it has none.
    #[inline]
    pub(crate) fn get(&self, value: &[u8]) -> i32 {
        let hash = value.hash64();
        let slot = self.slot(hash, Brief::new(value, hash), value);
        self.slots[slot].1.max(UNKNOWN)
    }

    #[inline]
    fn slot(&self, hash: u64, brief: Brief, value: &[u8]) -> usize {
        probe(&self.slots, hash, |&(other, id)| {
            id == 0
                || (other == brief
                    && (brief.is_whole() || self.values.get((id - FIRST) as usize) == value))
        })
    }

    /// The values in id order.
    pub(crate) fn values(&self) -> &Texts {
        &self.values
    }
}

/// A power of two that leaves at least half of the slots free.
fn slots_for(values: usize) -> usize {
    (values * 2).next_power_of_two().max(8)
}

/// The first slot from `hash` on where `stop` holds; a free slot must stop.
#[inline]
fn probe<T>(slots: &[T], hash: u64, stop: impl Fn(&T) -> bool) -> usize {
    let mask = slots.len() - 1;
    let mut slot = hash as usize & mask;
    while !stop(&slots[slot]) {
        slot = (slot + 1) & mask;
    }
    slot
}

fn check_size(values: usize, name: &str) -> Result<()> {
    if values > (i32::MAX - FIRST) as usize {
        return Err(Error::VocabSize {
            column: name.to_owned(),
            values,
        });
    }
    Ok(())
}

/// Strings leave as text, so what is none must not come in.
fn check_utf8(values: &Texts, name: &str) -> Result<()> {
    match values
        .iter()
        .find(|text| std::str::from_utf8(text).is_err())
    {
        Some(text) => Err(Error::NotText {
            column: name.to_owned(),
            value: String::from_utf8_lossy(text).into_owned(),
        }),
        None => Ok(()),
    }
}

fn repeated(name: &str, position: usize) -> Error {
    Error::VocabValues {
        column: name.to_owned(),
        position,
        reason: "it occurs before",
    }
}
