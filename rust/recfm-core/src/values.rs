//! The values of a column where they lie in memory, as Arrow lays them out.

use std::borrow::Cow;
use std::ops::Range;

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
    #[inline]
    fn get(&self, row: usize) -> Option<&'a [u8]> {
        match self {
            Self::Offsets32(offsets, bytes) => between(offsets, bytes, row),
            Self::Offsets64(offsets, bytes) => between(offsets, bytes, row),
            Self::Views(views, buffers) => view(&views[row], buffers),
        }
    }
}

#[inline]
fn between<'a, O: TryInto<usize> + Copy>(
    offsets: &[O],
    bytes: &'a [u8],
    row: usize,
) -> Option<&'a [u8]> {
    let (start, stop) = (offsets[row].try_into(), offsets[row + 1].try_into());
    bytes.get(start.ok()?..stop.ok()?)
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
    pub(crate) fn fill<T: Copy>(
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
                    Strs::Offsets32(offsets, bytes) => {
                        let get = |row| between(offsets, bytes, row);
                        fill_strs(rows.clone(), out, get, is_null, str)?;
                    }
                    Strs::Offsets64(offsets, bytes) => {
                        let get = |row| between(offsets, bytes, row);
                        fill_strs(rows.clone(), out, get, is_null, str)?;
                    }
                }
                blank(out, rows, valid.as_ref(), null);
            }
            Self::Nulls(_) => out.fill(null),
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
