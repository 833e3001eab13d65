//! Windows of past events as dense tensors.

use half::f16;
use rayon::prelude::*;

use crate::history::{HistoryIndex, same_length};
use crate::{Error, Result, pool};

/// Stored values that can be copied out, widened where the output is wider.
pub trait Stored<Out>: Copy + Sync {
    /// Copies one event; both slices have `dim` values.
    fn copy(from: &[Self], to: &mut [Out]);
}

impl Stored<f32> for f32 {
    fn copy(from: &[Self], to: &mut [f32]) {
        to.copy_from_slice(from);
    }
}

impl Stored<i32> for i32 {
    fn copy(from: &[Self], to: &mut [i32]) {
        to.copy_from_slice(from);
    }
}

impl Stored<f32> for f16 {
    fn copy(from: &[Self], to: &mut [f32]) {
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(from, to);
    }
}

/// A table with one row of `dim` values for each event, in the order in which the index was given them.
#[derive(Debug, Clone, Copy)]
pub struct Store<'a, T> {
    /// `[n, dim]`.
    pub values: &'a [T],
    /// Values of an event.
    pub dim: usize,
}

/// Fills `out [B, length, dim]` with the events of each window, newest first, and zeros behind them.
///
/// `start` and `stop` are those of [`HistoryIndex::window`].
pub fn gather<In: Stored<Out>, Out: Default + Copy + Send>(
    index: &HistoryIndex,
    start: &[i64],
    stop: &[i64],
    store: Store<'_, In>,
    out: &mut [Out],
    length: usize,
) -> Result<()> {
    same_length("start", start.len(), "stop", stop.len())?;
    let Store { values, dim } = store;
    same_length(
        "store",
        values.len().checked_div(dim).unwrap_or(index.len()),
        "index",
        index.len(),
    )?;
    let width = length.saturating_mul(dim);
    check_windows(start, stop, index.len(), length)?;
    same_length(
        "out",
        out.len().checked_div(width).unwrap_or(start.len()),
        "start",
        start.len(),
    )?;
    if width == 0 {
        return Ok(());
    }
    pool::install(|| {
        let windows = start
            .par_iter()
            .zip(stop)
            .zip(out.par_chunks_exact_mut(width));
        windows.for_each(|((&start, &stop), out)| {
            let events = index.rows()[start as usize..stop as usize].iter().rev();
            let (filled, padding) = out.split_at_mut(events.len() * dim);
            for (&event, out) in events.zip(filled.chunks_exact_mut(dim)) {
                let at = event as usize * dim;
                In::copy(&values[at..at + dim], out);
            }
            padding.fill(Out::default());
        });
    })
}

fn check_windows(start: &[i64], stop: &[i64], n: usize, length: usize) -> Result<()> {
    for (row, (&start, &stop)) in start.iter().zip(stop).enumerate() {
        if start < 0 || stop < start || stop > n as i64 {
            return Err(Error::WindowRange {
                row,
                start,
                stop,
                n,
            });
        }
        let count = (stop - start) as usize;
        if count > length {
            return Err(Error::WindowLength { row, count, length });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One user, events at times 0, 1, 2 given newest first; event `e` holds `[e + 1, -(e + 1)]`.
    fn index() -> HistoryIndex {
        HistoryIndex::new(&[7, 7, 7], &[2, 1, 0]).unwrap()
    }

    const VALUES: [i32; 6] = [1, -1, 2, -2, 3, -3];

    fn run(start: &[i64], stop: &[i64], length: usize) -> Result<Vec<i32>> {
        let mut out = vec![99; start.len() * length * 2];
        gather(
            &index(),
            start,
            stop,
            Store {
                values: &VALUES,
                dim: 2,
            },
            &mut out,
            length,
        )?;
        Ok(out)
    }

    #[test]
    fn newest_comes_first_and_the_rest_is_zero() {
        assert_eq!(
            run(&[0, 1, 0], &[2, 3, 0], 2),
            Ok(vec![2, -2, 3, -3, 1, -1, 2, -2, 0, 0, 0, 0])
        );
        assert_eq!(run(&[2], &[3], 2), Ok(vec![1, -1, 0, 0]));
    }

    #[test]
    fn windows_outside_the_index_or_the_output_are_refused() {
        assert_eq!(
            run(&[0], &[3], 2),
            Err(Error::WindowLength {
                row: 0,
                count: 3,
                length: 2
            })
        );
        for (start, stop) in [(-1, 1), (2, 1), (0, 4), (i64::MIN, i64::MAX)] {
            assert_eq!(
                run(&[start], &[stop], 9),
                Err(Error::WindowRange {
                    row: 0,
                    start,
                    stop,
                    n: 3
                })
            );
        }
    }

    #[test]
    fn half_precision_is_widened() {
        let values: Vec<f16> = [0.5, -1.25, 65504.0].map(f16::from_f32).to_vec();
        let mut out = vec![9.0; 3];
        gather(
            &index(),
            &[0],
            &[3],
            Store {
                values: &values,
                dim: 1,
            },
            &mut out,
            3,
        )
        .unwrap();
        assert_eq!(out, [0.5, -1.25, 65504.0]);
    }

    #[test]
    fn a_store_of_another_table_is_refused() {
        let mut out = vec![0; 2];
        let error = gather(
            &index(),
            &[0],
            &[1],
            Store {
                values: &VALUES[..4],
                dim: 2,
            },
            &mut out,
            1,
        );
        assert!(matches!(
            error,
            Err(Error::Length {
                left: "store",
                left_len: 2,
                ..
            })
        ));
    }
}
