//! A categorical column without Arrow: chunks of optional integers or strings.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::vocab::Kind;

/// Key of a null row in [`Chunk::keys`].
pub const NULL_KEY: u32 = u32::MAX;

/// Rows that one task takes at least; below this a task costs more than it does.
const MIN_ROWS: usize = 4096;

/// Optional values, readable in any order.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// Integers; where `valid` is false the integer means nothing.
    Ints {
        /// One integer per row.
        values: Cow<'a, [i64]>,
        /// Which rows are not null; absent when all are.
        valid: Option<Vec<bool>>,
    },
    /// Strings.
    Strs(Vec<Option<&'a str>>),
    /// This many nulls of no type.
    Nulls(usize),
}

/// Consecutive rows of a column: the values themselves, or keys into them (a dictionary).
#[derive(Debug, Clone)]
pub struct Chunk<'a> {
    values: Values<'a>,
    keys: Option<Vec<u32>>,
}

impl<'a> Values<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ints { values, .. } => values.len(),
            Self::Strs(values) => values.len(),
            Self::Nulls(len) => *len,
        }
    }

    /// The integer in `row`, unless it is null or no integer.
    pub(crate) fn int(&self, row: usize) -> Option<i64> {
        match self {
            Self::Ints { values, valid } if valid.as_ref().is_none_or(|valid| valid[row]) => {
                Some(values[row])
            }
            _ => None,
        }
    }

    /// The string in `row`, unless it is null or no string.
    pub(crate) fn str(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Strs(values) => values[row],
            _ => None,
        }
    }

    fn is_null(&self, row: usize) -> bool {
        self.int(row).is_none() && self.str(row).is_none()
    }

    fn map_into<T: Copy + Send + Sync>(
        &self,
        out: &mut Vec<T>,
        null: T,
        int: impl Fn(i64) -> T + Sync,
        str: impl Fn(&'a str) -> T + Sync,
    ) {
        match self {
            Self::Ints {
                values,
                valid: None,
            } => {
                out.par_extend(values.par_iter().with_min_len(MIN_ROWS).map(|&v| int(v)));
            }
            Self::Ints {
                values,
                valid: Some(valid),
            } => {
                let rows = values.par_iter().zip(valid).with_min_len(MIN_ROWS);
                out.par_extend(rows.map(|(&v, &valid)| if valid { int(v) } else { null }));
            }
            Self::Strs(values) => {
                out.par_extend(
                    values
                        .par_iter()
                        .with_min_len(MIN_ROWS)
                        .map(|v| v.map_or(null, &str)),
                );
            }
            Self::Nulls(len) => out.resize(out.len() + len, null),
        }
    }
}

impl<'a> Chunk<'a> {
    /// A chunk whose rows are `values`.
    pub fn new(values: Values<'a>) -> Self {
        Self { values, keys: None }
    }

    /// A chunk whose row `i` is row `keys[i]` of this one; [`NULL_KEY`] stands for null.
    ///
    /// # Panics
    /// If a key is neither a row nor [`NULL_KEY`].
    #[must_use]
    pub fn select(self, keys: Vec<u32>) -> Self {
        let rows = self.len();
        assert!(
            keys.iter().all(|&k| k == NULL_KEY || (k as usize) < rows),
            "a key lies outside the {rows} rows"
        );
        let keys = match self.keys {
            Some(inner) => keys
                .iter()
                .map(|&k| inner.get(k as usize).copied().unwrap_or(NULL_KEY))
                .collect(),
            None => keys,
        };
        Self {
            values: self.values,
            keys: Some(keys),
        }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.keys
            .as_ref()
            .map_or_else(|| self.values.len(), Vec::len)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Kind of the values, unless the chunk is of no type.
    pub fn kind(&self) -> Option<Kind> {
        match self.values {
            Values::Ints { .. } => Some(Kind::Int),
            Values::Strs(_) => Some(Kind::Str),
            Values::Nulls(_) => None,
        }
    }

    /// Every row in order, read by `get`; `None` for null.
    pub(crate) fn rows<K>(
        &self,
        get: impl Fn(&Values<'a>, usize) -> Option<K>,
    ) -> impl Iterator<Item = Option<K>> {
        (0..self.len()).map(move |row| match &self.keys {
            None => get(&self.values, row),
            Some(keys) if keys[row] == NULL_KEY => None,
            Some(keys) => get(&self.values, keys[row] as usize),
        })
    }

    fn first_null(&self) -> Option<usize> {
        self.rows(|values, row| (!values.is_null(row)).then_some(()))
            .position(|row| row.is_none())
    }

    /// Appends the image of every row to `out`, in order. Of a dictionary only the distinct values are mapped.
    pub fn map_into<T: Copy + Send + Sync>(
        &self,
        out: &mut Vec<T>,
        null: T,
        int: impl Fn(i64) -> T + Sync,
        str: impl Fn(&'a str) -> T + Sync,
    ) {
        let Some(keys) = &self.keys else {
            return self.values.map_into(out, null, int, str);
        };
        let mut images = Vec::with_capacity(self.values.len());
        self.values.map_into(&mut images, null, int, str);
        let rows = keys.par_iter().with_min_len(MIN_ROWS);
        out.par_extend(rows.map(|&k| images.get(k as usize).copied().unwrap_or(null)));
    }

    /// The values, and how often each occurs where that is not once.
    pub(crate) fn weighted(&self) -> (&Values<'a>, Option<Vec<i64>>) {
        let weights = self.keys.as_ref().map(|keys| {
            let mut weights = vec![0; self.values.len()];
            for &key in keys.iter().filter(|&&k| k != NULL_KEY) {
                weights[key as usize] += 1;
            }
            weights
        });
        (&self.values, weights)
    }
}

/// Rows in all chunks.
pub fn total_len(chunks: &[Chunk<'_>]) -> usize {
    chunks.iter().map(Chunk::len).sum()
}

/// First row of the column that is null.
pub fn first_null(chunks: &[Chunk<'_>]) -> Option<usize> {
    let mut before = 0;
    for chunk in chunks {
        if let Some(row) = chunk.first_null() {
            return Some(before + row);
        }
        before += chunk.len();
    }
    None
}

/// Kind of the first chunk that has one.
pub fn kind_of(chunks: &[Chunk<'_>]) -> Option<Kind> {
    chunks.iter().find_map(Chunk::kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(chunk: &Chunk<'_>) -> Vec<i64> {
        let mut out = vec![];
        chunk.map_into(&mut out, -1, |i| i, |s| s.len() as i64);
        out
    }

    #[test]
    fn a_dictionary_of_a_dictionary_reads_through_both() {
        let values = Values::Strs(vec![Some("a"), None, Some("ccc")]);
        let inner = Chunk::new(values).select(vec![2, 1, NULL_KEY, 0]);
        assert_eq!(lengths(&inner), [3, -1, -1, 1]);
        let outer = inner.select(vec![3, 0, 2, NULL_KEY]);
        assert_eq!(lengths(&outer), [1, 3, -1, -1]);
        assert_eq!(outer.first_null(), Some(2));
        assert_eq!(outer.weighted().1, Some(vec![1, 0, 1]));
    }

    #[test]
    fn nulls_of_every_layout_are_found() {
        let ints = Values::Ints {
            values: Cow::Owned(vec![7, 8]),
            valid: Some(vec![true, false]),
        };
        let chunk = Chunk::new(ints);
        assert_eq!(chunk.first_null(), Some(1));
        assert_eq!(lengths(&chunk), [7, -1]);
        let nulls = Chunk::new(Values::Nulls(2));
        assert_eq!(
            (nulls.kind(), nulls.first_null(), lengths(&nulls)),
            (None, Some(0), vec![-1, -1])
        );
    }
}
