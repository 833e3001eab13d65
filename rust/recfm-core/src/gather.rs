//! Windows of past events as dense tensors.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::blocks::Column;
use crate::history::{Part, newest_first, same_length};
use crate::quantize::{from_bf16, from_int4, from_int8};
use crate::{Error, Result, memory, pool};

/// Windows of one task at least.
const MIN_WINDOWS: usize = 64;
/// How many windows ahead row numbers and values are fetched.
const ROWS_AHEAD: usize = 6;
const VALUES_AHEAD: usize = 3;

/// Stored values that can be copied out, widened where the output is wider.
pub trait Stored<Out>: Copy + Sync {
    /// Stored elements of an event of `dim` values.
    fn width(dim: usize) -> usize {
        dim
    }

    /// Copies one event of `to.len()` values; `pairs` is that of its [`Store`].
    fn copy(from: &[Self], to: &mut [Out], pairs: &[[f32; 2]]);
}

impl Stored<f32> for f32 {
    fn copy(from: &[Self], to: &mut [f32], _: &[[f32; 2]]) {
        to.copy_from_slice(from);
    }
}

impl Stored<i32> for i32 {
    fn copy(from: &[Self], to: &mut [i32], _: &[[f32; 2]]) {
        to.copy_from_slice(from);
    }
}

impl Stored<f32> for f16 {
    fn copy(from: &[Self], to: &mut [f32], _: &[[f32; 2]]) {
        half::slice::HalfFloatSliceExt::convert_to_f32_slice(from, to);
    }
}

impl Stored<f32> for bf16 {
    fn copy(from: &[Self], to: &mut [f32], _: &[[f32; 2]]) {
        from_bf16(from, to);
    }
}

impl Stored<f32> for i8 {
    fn copy(from: &[Self], to: &mut [f32], _: &[[f32; 2]]) {
        from_int8(from, to);
    }
}

/// Two int4 codes.
impl Stored<f32> for u8 {
    fn width(dim: usize) -> usize {
        dim.div_ceil(2)
    }

    fn copy(from: &[Self], to: &mut [f32], pairs: &[[f32; 2]]) {
        from_int4(from, to, pairs);
    }
}

/// A table with one row of `dim` values for each event, in the order in which the index was given them.
#[derive(Debug)]
pub struct Store<'a, T> {
    /// `[n, width(dim)]`.
    pub values: Column<'a, T>,
    /// Values of an event.
    pub dim: usize,
    /// For int4, both values of every byte, as [`pairs_of`](crate::quantize::pairs_of) makes them; else empty.
    pub pairs: &'a [[f32; 2]],
}

impl<T> Clone for Store<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Store<'_, T> {}

impl<'a, T: Copy> Store<'a, T> {
    /// Copies the values of event `row`.
    fn read<Out>(&self, row: usize, to: &mut [Out]) -> Result<()>
    where
        T: Stored<Out>,
    {
        let width = T::width(self.dim);
        T::copy(
            self.values.range(row * width..(row + 1) * width)?,
            to,
            self.pairs,
        );
        Ok(())
    }

    /// The values of event `row`, for a hint to the processor.
    fn hint<Out>(&self, row: usize) -> Option<&'a [T]>
    where
        T: Stored<Out>,
    {
        let width = T::width(self.dim);
        self.values.unchecked().get(row * width..(row + 1) * width)
    }
}

/// Fills `out [B, length, dim]` with the events of each window, newest first, and zeros behind them.
///
/// `start` and `stop`, `[B, P]` flat, are those of [`Part::window`] or
/// [`window_of_parts`](crate::history::window_of_parts). Every store has the `dim` of `out`.
pub fn gather<In: Stored<Out>, Out: Default + Copy + Send>(
    parts: &[Part<'_>],
    stores: &[Store<'_, In>],
    start: &[i64],
    stop: &[i64],
    out: &mut [Out],
    (length, dim): (usize, usize),
) -> Result<()> {
    same_length("start", start.len(), "stop", stop.len())?;
    same_length("store", stores.len(), "parts", parts.len())?;
    for (part, store) in parts.iter().zip(stores) {
        let rows = match In::width(store.dim) {
            0 => part.table,
            // Rounded up: a store of wider rows is not taken for one of as many narrow ones.
            width => store.values.len().div_ceil(width),
        };
        same_length("store", rows, "index", part.table)?;
    }
    check_windows(parts, start, stop, length)?;
    let (width, count) = (
        length.saturating_mul(dim),
        start.len().checked_div(parts.len()),
    );
    let Some(windows) = count.filter(|_| width > 0) else {
        out.fill(Out::default());
        return Ok(());
    };
    same_length("out", out.len() / width, "start", windows)?;
    pool::install(|| {
        let filled = out
            .par_chunks_exact_mut(width)
            .enumerate()
            .with_min_len(MIN_WINDOWS);
        match (parts, stores) {
            ([part], [store]) => filled.try_for_each(|(at, out)| {
                let ahead = |steps: usize| {
                    let window = start.get(at + steps).zip(stop.get(at + steps));
                    let range = window.map(|(&start, &stop)| start as usize..stop as usize);
                    range
                        .and_then(|range| part.rows.unchecked().get(range))
                        .unwrap_or_default()
                };
                if !part.rows.is_checked() {
                    memory::prefetch(ahead(ROWS_AHEAD));
                }
                if !store.values.is_checked() {
                    for &row in ahead(VALUES_AHEAD) {
                        memory::prefetch(store.hint(row as usize).unwrap_or_default());
                    }
                }
                let rows = part.rows.range(start[at] as usize..stop[at] as usize)?;
                let (taken, padding) = out.split_at_mut(rows.len() * dim);
                for (&row, out) in rows.iter().rev().zip(taken.chunks_exact_mut(dim)) {
                    store.read(row as usize, out)?;
                }
                padding.fill(Out::default());
                Ok(())
            }),
            _ => filled.try_for_each(|(at, out)| {
                let windows = at * parts.len()..(at + 1) * parts.len();
                let mut rest = out.chunks_exact_mut(dim);
                newest_first(
                    parts,
                    &start[windows.clone()],
                    &stop[windows],
                    length,
                    |part, position| {
                        let row = parts[part].rows.get(position)? as usize;
                        rest.next()
                            .map_or(Ok(()), |out| stores[part].read(row, out))
                    },
                )?;
                rest.for_each(|out| out.fill(Out::default()));
                Ok(())
            }),
        }
    })?
}

fn check_windows(parts: &[Part<'_>], start: &[i64], stop: &[i64], length: usize) -> Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let rows = start.chunks(parts.len()).zip(stop.chunks(parts.len()));
    for (row, (start, stop)) in rows.enumerate() {
        let mut count = 0;
        for ((&start, &stop), part) in start.iter().zip(stop).zip(parts) {
            let n = part.len();
            if start < 0 || stop < start || stop > n as i64 {
                return Err(Error::WindowRange {
                    row,
                    start,
                    stop,
                    n,
                });
            }
            count += (stop - start) as usize;
        }
        if count > length {
            return Err(Error::WindowLength { row, count, length });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::HistoryIndex;
    use crate::quantize::{pairs_of, to_bf16, to_int4, to_int8, uniform_codebook};
    use crate::stop::Stop;
    use half::slice::HalfBitsSliceExt;

    /// One user, events at times 0, 1, 2 given newest first; event `e` holds `[e + 1, -(e + 1)]`.
    fn index() -> HistoryIndex {
        HistoryIndex::new(&[7, 7, 7], &[2, 1, 0], None, &Stop::new()).unwrap()
    }

    fn fill<In: Stored<Out>, Out: Default + Copy + Send>(
        values: &[In],
        (start, stop): (&[i64], &[i64]),
        out: &mut [Out],
        (length, dim): (usize, usize),
        codebook: &[f32; 16],
    ) -> Result<()> {
        let pairs = pairs_of(codebook);
        let store = Store {
            values: values.into(),
            dim,
            pairs: &pairs,
        };
        gather(&[index().part()], &[store], start, stop, out, (length, dim))
    }

    const VALUES: [i32; 6] = [1, -1, 2, -2, 3, -3];

    fn run(start: &[i64], stop: &[i64], length: usize) -> Result<Vec<i32>> {
        let mut out = vec![99; start.len() * length * 2];
        fill(
            &VALUES,
            (start, stop),
            &mut out,
            (length, 2),
            &uniform_codebook(),
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
    fn every_store_is_widened() {
        let exact = [0.5, -1.0, 1.0];
        let codebook = [
            -9.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -1.0, 0.0, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0, 5.0,
        ];
        let window: (&[i64], &[i64]) = (&[0], &[3]);
        let mut outs = vec![vec![9.0_f32; 3]; 5];
        let half: Vec<f16> = exact.map(f16::from_f32).to_vec();
        let brain = to_bf16(&exact).unwrap();
        fill(&exact, window, &mut outs[0], (3, 1), &codebook).unwrap();
        fill(&half, window, &mut outs[1], (3, 1), &codebook).unwrap();
        fill::<bf16, f32>(
            brain.reinterpret_cast(),
            window,
            &mut outs[2],
            (3, 1),
            &codebook,
        )
        .unwrap();
        fill(
            &to_int4(&exact, 1, &codebook).unwrap(),
            window,
            &mut outs[3],
            (3, 1),
            &codebook,
        )
        .unwrap();
        fill(
            &to_int8(&exact).unwrap(),
            window,
            &mut outs[4],
            (3, 1),
            &codebook,
        )
        .unwrap();
        assert!((outs[4][0] - 0.5).abs() < 0.5 / 127.0);
        outs[4][0] = 0.5;
        for out in outs {
            assert_eq!(out, exact);
        }
    }

    #[test]
    fn parts_are_merged_newest_first() {
        let parts = [
            index(),
            HistoryIndex::new(&[7, 7], &[1, 9], None, &Stop::new()).unwrap(),
        ];
        let parts = [parts[0].part(), parts[1].part()];
        let stores = [&[30, 20, 10][..], &[21, 90]].map(|v| Store {
            values: v.into(),
            dim: 1,
            pairs: &[],
        });
        let mut out = vec![5; 6];
        gather::<i32, i32>(&parts, &stores, &[0, 0], &[3, 2], &mut out, (6, 1)).unwrap();
        assert_eq!(out, [90, 30, 21, 20, 10, 0]);
        let error = gather::<i32, i32>(&parts, &stores, &[0, 0], &[3, 2], &mut out[..4], (4, 1));
        assert_eq!(
            error,
            Err(Error::WindowLength {
                row: 0,
                count: 5,
                length: 4
            })
        );
    }

    #[test]
    fn a_store_of_another_table_is_refused() {
        let mut out = vec![0; 2];
        let wider = [1, -1, 2, -2, 3, -3, 4];
        for (values, rows) in [(&VALUES[..4], 2), (&wider, 4)] {
            let error = fill(values, (&[0], &[1]), &mut out, (1, 2), &uniform_codebook());
            assert_eq!(
                error,
                Err(Error::Length {
                    left: "store",
                    left_len: rows,
                    right: "index",
                    right_len: 3
                })
            );
        }
    }
}
