//! Rows of a table, by number: the copy that makes a batch.

use rayon::prelude::*;

use crate::history::same_length;
use crate::{Error, Result, pool};

/// Values that one task copies at least.
const MIN_VALUES: usize = 1 << 15;

/// How many rows ahead of its copy a row is asked for.
const AHEAD: usize = 12;

/// Cache lines of a row that are asked for; the hardware follows a longer row by itself.
const MAX_LINES: usize = 4;

/// Copies `src[rows[i]]` to `out[i]`; `src` is `[n, width]`, `out` is `[rows.len(), width]`.
pub fn take_rows<T: Copy + Send + Sync>(
    src: &[T],
    width: usize,
    rows: &[i64],
    out: &mut [T],
) -> Result<()> {
    let Some(n) = src.len().checked_div(width) else {
        return Ok(());
    };
    check_rows(rows, n)?;
    same_length("out", out.len() / width, "rows", rows.len())?;
    pool::install(|| {
        let task = MIN_VALUES.div_ceil(width);
        rows.par_chunks(task)
            .zip(out.par_chunks_mut(task * width))
            .for_each(|(rows, out)| copy_rows(src, width, rows, out));
    })
}

/// Copies rows that are known to lie in `src`, asking memory for each some rows before it is needed.
pub(crate) fn copy_rows<T: Copy>(src: &[T], width: usize, rows: &[i64], out: &mut [T]) {
    match width {
        0 => {}
        1 => {
            for (out, &row) in out.iter_mut().zip(rows) {
                *out = src[row as usize];
            }
        }
        _ => {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                if let Some(&ahead) = rows.get(i + AHEAD) {
                    prefetch(src, ahead as usize * width, width);
                }
                let at = rows[i] as usize * width;
                out.copy_from_slice(&src[at..at + width]);
            }
        }
    }
}

/// Asks for the cache lines of `src[at..at + width]`, a few of them at most; a hint, it changes nothing.
#[allow(unsafe_code)]
fn prefetch<T>(src: &[T], at: usize, width: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let per_line = 64 / size_of::<T>();
        for at in (at..at + width).step_by(per_line).take(MAX_LINES) {
            // SAFETY: prefetching reads nothing and faults on no address; the pointer is never dereferenced.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(src.as_ptr().wrapping_add(at).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (src, at, width);
}

/// The lists `rows` of a jagged table: values, and offsets with one entry more than rows.
pub fn take_lists(values: &[i32], offsets: &[i64], rows: &[i64]) -> Result<(Vec<i32>, Vec<i64>)> {
    let Some(lists) = offsets.len().checked_sub(1) else {
        return Err(Error::Offsets(
            "it is empty, but holds one entry more than there are lists".to_owned(),
        ));
    };
    check_rows(rows, lists)?;
    let mut taken_offsets = Vec::with_capacity(rows.len() + 1);
    let mut total = 0;
    taken_offsets.push(total);
    for &row in rows {
        let (start, stop) = (offsets[row as usize], offsets[row as usize + 1]);
        if start < 0 || stop < start || stop > values.len() as i64 {
            let n = values.len();
            return Err(Error::Offsets(format!(
                "list {row} is [{start}, {stop}) of {n} values"
            )));
        }
        total += stop - start;
        taken_offsets.push(total);
    }
    let mut taken = Vec::with_capacity(total as usize);
    for &row in rows {
        taken.extend_from_slice(
            &values[offsets[row as usize] as usize..offsets[row as usize + 1] as usize],
        );
    }
    Ok((taken, taken_offsets))
}

pub(crate) fn check_rows(rows: &[i64], n: usize) -> Result<()> {
    match rows.iter().position(|&row| row < 0 || row >= n as i64) {
        Some(position) => Err(Error::RowRange {
            position,
            row: rows[position],
            n,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_in_the_order_asked_for() {
        let mut out = [0; 6];
        take_rows(&[1, 2, 3, 4], 2, &[1, 0, 1], &mut out).unwrap();
        assert_eq!(out, [3, 4, 1, 2, 3, 4]);
    }

    #[test]
    fn a_row_outside_is_named() {
        for row in [-1, 2, i64::MIN, i64::MAX] {
            let error = take_rows(&[1, 2], 1, &[0, row], &mut [0; 2]);
            assert_eq!(
                error,
                Err(Error::RowRange {
                    position: 1,
                    row,
                    n: 2
                })
            );
        }
    }

    #[test]
    fn lists_are_taken_whole() {
        let taken = take_lists(&[1, 2, 3], &[0, 2, 2, 3], &[2, 1, 0, 2]);
        assert_eq!(taken, Ok((vec![3, 1, 2, 3], vec![0, 1, 1, 3, 4])));
        assert_eq!(take_lists(&[], &[0], &[]), Ok((vec![], vec![0])));
    }

    #[test]
    fn offsets_that_point_nowhere_are_refused() {
        for offsets in [&[][..], &[0, 4], &[-1, 1], &[2, 1]] {
            assert!(take_lists(&[1, 2, 3], offsets, &[0]).is_err());
        }
    }
}
