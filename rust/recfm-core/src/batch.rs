//! Whole batches: which rows they serve, and those rows of every column, in one pass.

use rayon::prelude::*;

use crate::shuffle::Permutation;
use crate::take::{check_rows, copy_rows};
use crate::{Error, Result, pool};

/// Rows that one task computes and copies: their numbers stay in the nearest cache.
const BLOCK: usize = 1024;

/// Which rows an epoch serves, and in which order.
#[derive(Debug, Clone, Copy)]
pub struct Epoch<'a> {
    /// Rows in the epoch.
    pub n: i64,
    /// The rows, by number; without them, `offset..offset + n`.
    pub served: Option<&'a [i64]>,
    /// First row where `served` is not given.
    pub offset: i64,
    /// Seed of the run.
    pub seed: u64,
    /// Number of the epoch.
    pub epoch: u64,
    /// Permute the rows; otherwise they come in order.
    pub shuffle: bool,
}

/// A table `[height, width]` and where its rows go, `[rows, width]`.
#[derive(Debug)]
pub struct Table<'a, T> {
    /// The table.
    pub src: &'a [T],
    /// Values of a row.
    pub width: usize,
    /// Receives the rows.
    pub out: &'a mut [T],
}

/// A table of any type that a batch carries.
#[derive(Debug)]
pub enum Column<'a> {
    /// Ids.
    I32(Table<'a, i32>),
    /// Numbers and labels.
    F32(Table<'a, f32>),
    /// Keys and times.
    I64(Table<'a, i64>),
}

/// Rows that one task fills.
struct Task<'a> {
    first: i64,
    rows: &'a mut [i64],
    columns: Vec<Column<'a>>,
}

/// Fills `rows` with the row numbers at the positions of `ranges`, `(first, count)` each, and every column with
/// those rows.
///
/// On an error what was written is undefined.
pub fn fill<'a>(
    epoch: Epoch<'_>,
    ranges: &[(i64, i64)],
    rows: &'a mut [i64],
    columns: Vec<Column<'a>>,
) -> Result<()> {
    check(epoch, ranges, rows.len())?;
    let height = columns.iter().map(Column::height).min();
    for column in &columns {
        column.check(rows.len())?;
    }
    let permutation = Permutation::new(epoch.n as u64, epoch.seed, epoch.epoch);
    let mut tasks = split(ranges, rows, columns);
    let run = |task: &mut Task<'_>| {
        if epoch.shuffle {
            permutation.fill(task.first as u64, task.rows);
        } else {
            (task.first..)
                .zip(task.rows.iter_mut())
                .for_each(|(at, row)| *row = at);
        }
        match epoch.served {
            Some(served) => task
                .rows
                .iter_mut()
                .for_each(|row| *row = served[*row as usize]),
            None => task.rows.iter_mut().for_each(|row| *row += epoch.offset),
        }
        if let Some(height) = height {
            check_rows(task.rows, height)?;
        }
        for column in &mut task.columns {
            column.copy(task.rows);
        }
        Ok(())
    };
    if let [task] = tasks.as_mut_slice() {
        return run(task);
    }
    pool::install(|| tasks.par_iter_mut().try_for_each(run))?
}

fn check(epoch: Epoch<'_>, ranges: &[(i64, i64)], rows: usize) -> Result<()> {
    let Epoch {
        n, served, offset, ..
    } = epoch;
    for (name, value) in [("n", n), ("offset", offset)] {
        if value < 0 {
            return Err(Error::Negative { name, value });
        }
    }
    if let Some(served) = served {
        crate::history::same_length("served", served.len(), "n", n as usize)?;
    }
    if n.checked_add(offset).is_none() {
        return Err(Error::Range {
            first: offset,
            count: n,
            n: i64::MAX,
        });
    }
    let mut total = 0_usize;
    for &(first, count) in ranges {
        if first < 0 || count < 0 || first > n || count > n - first {
            return Err(Error::Range { first, count, n });
        }
        total = total.saturating_add(count as usize);
    }
    crate::history::same_length("rows", rows, "ranges", total)
}

fn split<'a>(
    ranges: &[(i64, i64)],
    mut rows: &'a mut [i64],
    mut columns: Vec<Column<'a>>,
) -> Vec<Task<'a>> {
    let mut tasks = Vec::with_capacity(rows.len() / BLOCK + ranges.len());
    for &(mut first, mut count) in ranges {
        while count > 0 {
            let taken = count.min(BLOCK as i64);
            let (head, tail) = rows.split_at_mut(taken as usize);
            rows = tail;
            let (heads, tails) = columns
                .into_iter()
                .map(|column| column.split_at(taken as usize))
                .unzip();
            columns = tails;
            tasks.push(Task {
                first,
                rows: head,
                columns: heads,
            });
            first += taken;
            count -= taken;
        }
    }
    tasks
}

impl Column<'_> {
    fn height(&self) -> usize {
        fn of<T>(table: &Table<'_, T>) -> usize {
            table
                .src
                .len()
                .checked_div(table.width)
                .unwrap_or(i64::MAX as usize)
        }
        match self {
            Self::I32(table) => of(table),
            Self::F32(table) => of(table),
            Self::I64(table) => of(table),
        }
    }

    fn check(&self, rows: usize) -> Result<()> {
        fn of<T>(table: &Table<'_, T>, rows: usize) -> Result<()> {
            let len = table.out.len().checked_div(table.width).unwrap_or(rows);
            crate::history::same_length("out", len, "rows", rows)
        }
        match self {
            Self::I32(table) => of(table, rows),
            Self::F32(table) => of(table, rows),
            Self::I64(table) => of(table, rows),
        }
    }

    fn split_at(self, rows: usize) -> (Self, Self) {
        fn of<T>(table: Table<'_, T>, rows: usize) -> (Table<'_, T>, Table<'_, T>) {
            let Table { src, width, out } = table;
            let (head, tail) = out.split_at_mut(rows * width);
            (
                Table {
                    src,
                    width,
                    out: head,
                },
                Table {
                    src,
                    width,
                    out: tail,
                },
            )
        }
        match self {
            Self::I32(table) => {
                let (head, tail) = of(table, rows);
                (Self::I32(head), Self::I32(tail))
            }
            Self::F32(table) => {
                let (head, tail) = of(table, rows);
                (Self::F32(head), Self::F32(tail))
            }
            Self::I64(table) => {
                let (head, tail) = of(table, rows);
                (Self::I64(head), Self::I64(tail))
            }
        }
    }

    fn copy(&mut self, rows: &[i64]) {
        match self {
            Self::I32(table) => copy_rows(table.src, table.width, rows, table.out),
            Self::F32(table) => copy_rows(table.src, table.width, rows, table.out),
            Self::I64(table) => copy_rows(table.src, table.width, rows, table.out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shuffle::{BatchAt, batch_rows};

    const IDS: [i32; 8] = [0, 10, 1, 11, 2, 12, 3, 13];

    fn epoch(served: Option<&[i64]>, offset: i64) -> Epoch<'_> {
        Epoch {
            n: 3,
            served,
            offset,
            seed: 0,
            epoch: 0,
            shuffle: false,
        }
    }

    fn ids(epoch: Epoch<'_>, ranges: &[(i64, i64)], rows: usize) -> Result<(Vec<i64>, Vec<i32>)> {
        let (mut taken, mut out) = (vec![0; rows], vec![0; rows * 2]);
        let column = Column::I32(Table {
            src: &IDS,
            width: 2,
            out: &mut out,
        });
        fill(epoch, ranges, &mut taken, vec![column])?;
        Ok((taken, out))
    }

    #[test]
    fn ranges_follow_each_other() {
        assert_eq!(
            ids(epoch(None, 1), &[(2, 1), (0, 2)], 3),
            Ok((vec![3, 1, 2], vec![3, 13, 1, 11, 2, 12]))
        );
        assert_eq!(
            ids(epoch(Some(&[3, 0, 3]), 0), &[(1, 2)], 2),
            Ok((vec![0, 3], vec![0, 10, 3, 13]))
        );
        assert_eq!(ids(epoch(None, 0), &[], 0), Ok((vec![], vec![])));
    }

    #[test]
    fn what_lies_outside_is_refused() {
        for range in [(-1, 1), (0, 4), (3, 1), (1, -1), (i64::MAX, i64::MAX)] {
            let (first, count) = range;
            assert_eq!(
                ids(epoch(None, 0), &[range], 1),
                Err(Error::Range { first, count, n: 3 })
            );
        }
        assert!(matches!(
            ids(epoch(None, 2), &[(0, 3)], 3),
            Err(Error::RowRange { row: 4, n: 4, .. })
        ));
        assert!(matches!(
            ids(epoch(Some(&[0, -1, 0]), 0), &[(1, 1)], 1),
            Err(Error::RowRange { row: -1, .. })
        ));
        assert!(matches!(
            ids(epoch(Some(&[0]), 0), &[(0, 1)], 1),
            Err(Error::Length { left: "served", .. })
        ));
        assert!(matches!(
            ids(epoch(None, 0), &[(0, 1)], 2),
            Err(Error::Length { left: "rows", .. })
        ));
        assert!(ids(epoch(None, -1), &[(0, 1)], 1).is_err());
        assert!(ids(epoch(None, i64::MAX), &[(0, 1)], 1).is_err());
    }

    #[test]
    fn a_large_shuffled_fill_is_that_of_batch_rows() {
        let n = 70_000;
        let table: Vec<f32> = (0..n).map(|row| row as f32).collect();
        let (mut rows, mut out) = (vec![0; 50_000], vec![0.0; 50_000]);
        let all = Epoch {
            n,
            served: None,
            offset: 0,
            seed: 3,
            epoch: 4,
            shuffle: true,
        };
        let column = Column::F32(Table {
            src: &table,
            width: 1,
            out: &mut out,
        });
        fill(all, &[(10_000, 50_000)], &mut rows, vec![column]).unwrap();
        let at = BatchAt {
            n,
            batch_size: 10_000,
            seed: 3,
            epoch: 4,
            index: 0,
            shuffle: true,
        };
        let wanted: Vec<i64> = (1..6)
            .flat_map(|index| batch_rows(BatchAt { index, ..at }).unwrap())
            .collect();
        assert_eq!(rows, wanted);
        let copied: Vec<i64> = out.iter().map(|&value| value as i64).collect();
        assert_eq!(copied, rows);
    }
}
