//! A categorical column without Arrow: chunks of integers or strings, read where they lie.

use std::ops::Range;

use crate::values::Readable;
pub use crate::values::{Bits, Strs, Value, Values};
use crate::vocab::Kind;
use crate::{Error, Result};

/// Key of a null row in [`Chunk::select`].
pub const NULL_KEY: u32 = u32::MAX;

/// Consecutive rows of a column: the values themselves, or keys into them (a dictionary).
#[derive(Debug, Clone)]
pub struct Chunk<'a> {
    values: Values<'a>,
    keys: Option<Vec<u32>>,
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

    /// Whether a row of it can be null.
    pub fn may_be_null(&self) -> bool {
        let keyed = self
            .keys
            .as_ref()
            .is_some_and(|keys| keys.contains(&NULL_KEY));
        keyed
            || match &self.values {
                Values::Ints { valid, .. } | Values::Strs { valid, .. } => valid.is_some(),
                Values::Nulls(_) => true,
            }
    }

    /// Kind of the values, unless the chunk is of no type.
    pub fn kind(&self) -> Option<Kind> {
        match self.values {
            Values::Ints { .. } => Some(Kind::Int),
            Values::Strs { .. } => Some(Kind::Str),
            Values::Nulls(_) => None,
        }
    }

    /// The values, where keys point into them; each is read once, however often it occurs.
    pub(crate) fn dictionary(&self) -> Option<(&Values<'a>, &[u32])> {
        self.keys.as_deref().map(|keys| (&self.values, keys))
    }

    /// Fills `out` with the image of every row of a range.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "its caller may be compiled for wider vectors"
    )]
    pub(crate) fn fill<T: Copy>(
        &self,
        rows: Range<usize>,
        out: &mut [T],
        null: T,
        int: impl Fn(i64) -> T,
        str: impl Fn(&'a [u8]) -> T,
    ) -> Readable {
        let Some(keys) = &self.keys else {
            return self.values.fill(rows, out, null, int, str);
        };
        for (out, row) in out.iter_mut().zip(rows) {
            *out = null;
            if keys[row] != NULL_KEY {
                let key = keys[row] as usize;
                let out = std::slice::from_mut(out);
                self.values.fill(key..key + 1, out, null, &int, &str)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with every row of a range, in order.
    #[inline]
    pub(crate) fn for_each(
        &self,
        rows: Range<usize>,
        mut each: impl FnMut(usize, Value<'a>),
    ) -> Readable {
        let Some(keys) = &self.keys else {
            return self.values.for_each(rows, each);
        };
        for row in rows {
            if keys[row] == NULL_KEY {
                each(row, Value::Null);
            } else {
                let key = keys[row] as usize;
                self.values
                    .for_each(key..key + 1, |_, value| each(row, value))?;
            }
        }
        Ok(())
    }
}

/// Where rows `rows` of a column lie: the place of a chunk, the rows before it, and its own rows among them.
pub(crate) fn spans(
    chunks: &[Chunk<'_>],
    rows: Range<usize>,
) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut end = 0;
    chunks.iter().enumerate().filter_map(move |(place, chunk)| {
        let before = end;
        end += chunk.len();
        let (start, stop) = (rows.start.max(before), rows.end.min(end));
        (start < stop).then(|| (place, before, start - before..stop - before))
    })
}

/// Fills `out` with the images of the rows of column `name` from `first` on, counted through all chunks.
pub(crate) fn fill<'a, T: Copy>(
    chunks: &[Chunk<'a>],
    name: &str,
    first: usize,
    out: &mut [T],
    null: T,
    int: impl Fn(i64) -> T,
    str: impl Fn(&'a [u8]) -> T,
) -> Result<()> {
    for (place, before, local) in spans(chunks, first..first + out.len()) {
        let begin = before + local.start - first;
        let out = &mut out[begin..begin + local.len()];
        chunks[place]
            .fill(local, out, null, &int, &str)
            .map_err(|row| malformed(name, before + row))?;
    }
    Ok(())
}

/// Calls `each` with rows `rows` of the column `name`, counted through all chunks from 0.
pub(crate) fn for_each<'a>(
    chunks: &[Chunk<'a>],
    name: &str,
    rows: Range<usize>,
    mut each: impl FnMut(usize, Value<'a>),
) -> Result<()> {
    for (place, before, local) in spans(chunks, rows) {
        chunks[place]
            .for_each(local, |row, value| each(before + row, value))
            .map_err(|row| malformed(name, before + row))?;
    }
    Ok(())
}

pub(crate) fn malformed(name: &str, row: usize) -> Error {
    Error::Malformed {
        column: name.to_owned(),
        row,
    }
}

/// Every value of the dictionary `values`.
pub(crate) fn each_value<'a>(
    values: &Values<'a>,
    name: &str,
    each: impl FnMut(usize, Value<'a>),
) -> Result<()> {
    values
        .for_each(0..values.len(), each)
        .map_err(|row| malformed(name, row))
}

/// Rows in all chunks.
pub fn total_len(chunks: &[Chunk<'_>]) -> usize {
    chunks.iter().map(Chunk::len).sum()
}

/// First row of the column that is null.
pub fn first_null(chunks: &[Chunk<'_>], name: &str) -> Result<Option<usize>> {
    let mut found = None;
    for_each(chunks, name, 0..total_len(chunks), |row, value| {
        if value == Value::Null && found.is_none() {
            found = Some(row);
        }
    })?;
    Ok(found)
}

/// Kind of the first chunk that has one.
pub fn kind_of(chunks: &[Chunk<'_>]) -> Option<Kind> {
    chunks.iter().find_map(Chunk::kind)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A string column as Arrow would hold it, owned by a test.
    pub(crate) struct Text {
        bytes: Vec<u8>,
        offsets: Vec<i64>,
        bits: Vec<u8>,
    }

    impl Text {
        pub(crate) fn new(values: &[Option<&str>]) -> Self {
            let mut text = Self {
                bytes: vec![],
                offsets: vec![0],
                bits: vec![0; values.len().div_ceil(8)],
            };
            for (row, value) in values.iter().enumerate() {
                text.bytes.extend(value.unwrap_or_default().as_bytes());
                text.offsets.push(text.bytes.len() as i64);
                text.bits[row / 8] |= u8::from(value.is_some()) << (row % 8);
            }
            text
        }

        pub(crate) fn chunk(&self) -> Chunk<'_> {
            Chunk::new(Values::Strs {
                strs: Strs::Offsets64(&self.offsets, &self.bytes),
                valid: Some(Bits {
                    bytes: &self.bits,
                    offset: 0,
                }),
            })
        }
    }

    pub(crate) fn ints(values: &[i64]) -> Chunk<'_> {
        Chunk::new(Values::Ints {
            values: values.into(),
            valid: None,
        })
    }

    fn lengths(chunk: &Chunk<'_>) -> Vec<i64> {
        let mut out = vec![];
        for_each(std::slice::from_ref(chunk), "x", 0..chunk.len(), |_, v| {
            out.push(match v {
                Value::Str(bytes) => bytes.len() as i64,
                Value::Int(value) => value,
                Value::Null => -1,
            });
        })
        .unwrap();
        out
    }

    #[test]
    fn a_dictionary_of_a_dictionary_reads_through_both() {
        let text = Text::new(&[Some("a"), None, Some("ccc")]);
        let inner = text.chunk().select(vec![2, 1, NULL_KEY, 0]);
        assert_eq!(lengths(&inner), [3, -1, -1, 1]);
        let outer = inner.select(vec![3, 0, 2, NULL_KEY]);
        assert_eq!(lengths(&outer), [1, 3, -1, -1]);
    }

    #[test]
    fn a_layout_that_points_outside_is_an_error_and_names_its_row() {
        for offsets in [[0, 1, 9], [0, -1, 2], [0, 2, 1]] {
            let strs = Strs::Offsets32(&offsets, b"abc");
            let chunk = Chunk::new(Values::Strs { strs, valid: None });
            let read = for_each(&[ints(&[1]), chunk], "title", 0..3, |_, _| ());
            assert!(
                matches!(read, Err(Error::Malformed { column, row }) if column == "title" && row > 0)
            );
        }
    }

    #[test]
    fn ranges_cross_chunks() {
        let chunks = [ints(&[1, 2]), ints(&[]), ints(&[3, 4])];
        let mut seen = vec![];
        for_each(&chunks, "x", 1..3, |row, value| seen.push((row, value))).unwrap();
        assert_eq!(seen, [(1, Value::Int(2)), (2, Value::Int(3))]);
        assert_eq!(total_len(&chunks), 4);
    }
}
