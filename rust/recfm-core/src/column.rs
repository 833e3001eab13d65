//! A categorical column without Arrow: chunks of integers or strings, read where they lie.

use std::borrow::Cow;
use std::ops::Range;

use crate::vocab::Kind;
use crate::{Error, Result};

/// Key of a null row in [`Chunk::select`].
pub const NULL_KEY: u32 = u32::MAX;

/// One row of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// An integer.
    Int(i64),
    /// A string's bytes.
    Str(&'a [u8]),
}

/// A bitmap, least significant bit first: which rows are not null.
#[derive(Debug, Clone, Copy)]
pub struct Bits<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// Bit of the first row.
    pub offset: usize,
}

impl Bits<'_> {
    fn get(self, row: usize) -> bool {
        let bit = self.offset + row;
        self.bytes[bit / 8] >> (bit % 8) & 1 == 1
    }
}

/// Strings as Arrow lays them out.
#[derive(Debug, Clone)]
pub enum Strs<'a> {
    /// Row `i` is `bytes[offsets[i]..offsets[i + 1]]`.
    Offsets32(&'a [i32], &'a [u8]),
    /// The same with 64-bit offsets.
    Offsets64(&'a [i64], &'a [u8]),
    /// 16 bytes a row: the length and the string itself, or the length, four bytes, a buffer and an offset.
    Views(&'a [u128], Vec<&'a [u8]>),
}

impl<'a> Strs<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Offsets32(offsets, _) => offsets.len().saturating_sub(1),
            Self::Offsets64(offsets, _) => offsets.len().saturating_sub(1),
            Self::Views(views, _) => views.len(),
        }
    }

    /// The bytes of a row, unless the layout points outside its buffers.
    fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Offsets32(offsets, bytes) => {
                let (start, stop) = (offsets[row].try_into(), offsets[row + 1].try_into());
                bytes.get(start.ok()?..stop.ok()?)
            }
            Self::Offsets64(offsets, bytes) => {
                let (start, stop) = (offsets[row].try_into(), offsets[row + 1].try_into());
                bytes.get(start.ok()?..stop.ok()?)
            }
            Self::Views(views, buffers) => view(&views[row], buffers),
        }
    }
}

/// Longest string that a view holds itself.
const INLINE: usize = 12;

fn view<'a>(view: &'a u128, buffers: &[&'a [u8]]) -> Option<&'a [u8]> {
    let bytes: &[u8; 16] = bytemuck::cast_ref(view);
    let number = |at: usize| {
        u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    };
    let len = number(0);
    if len <= INLINE {
        return Some(&bytes[4..4 + len]);
    }
    buffers
        .get(number(8))?
        .get(number(12)..number(12).checked_add(len)?)
}

/// Values, readable in any order.
#[derive(Debug, Clone)]
pub enum Values<'a> {
    /// Integers; where `valid` is false the integer means nothing.
    Ints {
        /// One integer per row.
        values: Cow<'a, [i64]>,
        /// Which rows are not null; absent when all are.
        valid: Option<Bits<'a>>,
    },
    /// Strings; where `valid` is false the string means nothing.
    Strs {
        /// One string per row.
        strs: Strs<'a>,
        /// Which rows are not null; absent when all are.
        valid: Option<Bits<'a>>,
    },
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
            Self::Strs { strs, .. } => strs.len(),
            Self::Nulls(len) => *len,
        }
    }

    /// Fills `out` with the image of every row of a range.
    ///
    /// Apart from `for_each` because images are made where the values are read: one loop for each layout, and
    /// nothing in it but the work itself.
    #[inline(always)]
    #[allow(
        clippy::inline_always,
        reason = "its caller may be compiled for wider vectors"
    )]
    fn fill<T: Copy>(
        &self,
        rows: Range<usize>,
        out: &mut [T],
        null: T,
        int: impl Fn(i64) -> T,
        str: impl Fn(&'a [u8]) -> T,
    ) -> Readable {
        match self {
            Self::Ints { values, valid } => {
                for (out, &value) in out.iter_mut().zip(&values[rows.clone()]) {
                    *out = int(value);
                }
                blank(out, rows, valid.as_ref(), null);
            }
            Self::Strs { strs, valid } => {
                let is_null = |row| valid.is_some_and(|bits| !bits.get(row));
                // A loop for each layout, so that it is not looked up again for every row.
                match strs {
                    Strs::Views(views, buffers) => {
                        let get = |row: usize| view(&views[row], buffers);
                        fill_strs(rows.clone(), out, get, is_null, str)?;
                    }
                    _ => fill_strs(rows.clone(), out, |row| strs.get(row), is_null, str)?,
                }
                blank(out, rows, valid.as_ref(), null);
            }
            Self::Nulls(_) => out.fill(null),
        }
        Ok(())
    }

    /// Calls `each` with every row of a range, in order.
    #[inline]
    fn for_each(&self, rows: Range<usize>, mut each: impl FnMut(usize, Value<'a>)) -> Readable {
        let is_valid = |valid: &Option<Bits<'_>>, row| valid.is_none_or(|bits| bits.get(row));
        match self {
            Self::Ints {
                values,
                valid: None,
            } => {
                for (row, &value) in rows.clone().zip(&values[rows]) {
                    each(row, Value::Int(value));
                }
            }
            Self::Ints { values, valid } => {
                for row in rows {
                    let value = if is_valid(valid, row) {
                        Value::Int(values[row])
                    } else {
                        Value::Null
                    };
                    each(row, value);
                }
            }
            Self::Strs { strs, valid } => {
                for row in rows {
                    let value = if is_valid(valid, row) {
                        Value::Str(strs.get(row).ok_or(row)?)
                    } else {
                        Value::Null
                    };
                    each(row, value);
                }
            }
            Self::Nulls(_) => {
                for row in rows {
                    each(row, Value::Null);
                }
            }
        }
        Ok(())
    }
}

#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "its caller may be compiled for wider vectors"
)]
fn fill_strs<'a, T>(
    rows: Range<usize>,
    out: &mut [T],
    get: impl Fn(usize) -> Option<&'a [u8]>,
    is_null: impl Fn(usize) -> bool,
    image: impl Fn(&'a [u8]) -> T,
) -> Readable {
    for (out, row) in out.iter_mut().zip(rows) {
        // What lies behind a null may be anything.
        let bytes = get(row).or_else(|| is_null(row).then_some(&[]));
        *out = image(bytes.ok_or(row)?);
    }
    Ok(())
}

/// Writes `null` where a row is null.
fn blank<T: Copy>(out: &mut [T], rows: Range<usize>, valid: Option<&Bits<'_>>, null: T) {
    if let Some(bits) = valid {
        for (out, row) in out.iter_mut().zip(rows) {
            if !bits.get(row) {
                *out = null;
            }
        }
    }
}

/// The row whose string lies outside its buffers, if there is one.
pub(crate) type Readable = std::result::Result<(), usize>;

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
    let mut before = 0;
    for chunk in chunks {
        let (start, stop) = (
            first.max(before),
            (first + out.len()).min(before + chunk.len()),
        );
        if start < stop {
            let out = &mut out[start - first..stop - first];
            chunk
                .fill(start - before..stop - before, out, null, &int, &str)
                .map_err(|row| malformed(name, before + row))?;
        }
        before += chunk.len();
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
    let mut first = 0;
    for chunk in chunks {
        let (start, stop) = (rows.start.max(first), rows.end.min(first + chunk.len()));
        if start < stop {
            chunk
                .for_each(start - first..stop - first, |row, value| {
                    each(first + row, value);
                })
                .map_err(|row| malformed(name, first + row))?;
        }
        first += chunk.len();
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
    fn short_views_hold_their_string_and_long_ones_point_to_it() {
        let long = b"..a string of more than twelve bytes";
        let mut views = [0_u128; 3];
        for (view, (len, tail)) in views.iter_mut().zip([
            (3_u32, *b"abc\0\0\0\0\0\0\0\0\0"),
            (34, *b"a st\0\0\0\0\x02\0\0\0"),
            (34, *b"a st\x01\0\0\0\x02\0\0\0"),
        ]) {
            let bytes: &mut [u8; 16] = bytemuck::cast_mut(view);
            bytes[..4].copy_from_slice(&len.to_ne_bytes());
            bytes[4..].copy_from_slice(&tail);
        }
        let strs = Strs::Views(&views, vec![long]);
        assert_eq!(strs.get(0), Some(&b"abc"[..]));
        assert_eq!(strs.get(1), Some(&long[2..]));
        assert_eq!(strs.get(2), None, "there is no second buffer");
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
