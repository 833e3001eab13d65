//! Rows of a fused embedding table for a batch of ids, and a table's first values.

use rayon::prelude::*;

use crate::hash::mix64;
use crate::history::same_length;
use crate::memory::advise;
use crate::take::copy_rows;
use crate::{Error, Result, pool};

/// Values that one task copies or fills at least.
const MIN_VALUES: usize = 1 << 15;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which ids one feature reads, and which rows of the fused table are its own.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Name, for errors.
    pub name: String,
    /// Its column of the ids.
    pub column: usize,
    /// First of its rows.
    pub start: usize,
    /// Number of its rows.
    pub rows: usize,
}

/// For each example and feature the row of the table, into `rows [B, F]`, and its values, into `out [B, F, dim]`.
///
/// `weight` is `[n, dim]` and `ids` is `[B, columns]`.
pub fn lookup(
    weight: &[f32],
    dim: usize,
    (ids, columns): (&[i32], usize),
    features: &[Feature],
    rows: &mut [i64],
    out: &mut [f32],
) -> Result<()> {
    let (width, n) = (features.len(), weight.len() / dim.max(1));
    if width == 0 || columns == 0 {
        return Ok(());
    }
    same_length("rows", rows.len() / width, "ids", ids.len() / columns)?;
    same_length("out", out.len(), "rows", rows.len() * dim)?;
    for feature in features {
        let end = feature.start.saturating_add(feature.rows);
        if feature.column >= columns || end > n {
            return Err(Error::Feature {
                name: feature.name.clone(),
                column: feature.column,
                columns,
                end,
                n,
            });
        }
    }
    let task = MIN_VALUES.div_ceil(width * dim.max(1));
    let found = pool::install(|| {
        rows.par_chunks_mut(task * width)
            .zip(out.par_chunks_mut((task * width * dim).max(1)))
            .zip(ids.par_chunks(task * columns))
            .try_for_each(|((rows, out), ids)| {
                let examples = ids.chunks_exact(columns);
                for (rows, ids) in rows.chunks_exact_mut(width).zip(examples) {
                    for (row, feature) in rows.iter_mut().zip(features) {
                        let id = ids[feature.column];
                        // A negative id becomes larger than any table.
                        if id as u32 as usize >= feature.rows {
                            return None;
                        }
                        *row = (feature.start + id as usize) as i64;
                    }
                }
                copy_rows(weight, dim, rows, out);
                Some(())
            })
    })?;
    found.ok_or_else(|| first_outside(ids, columns, features))
}

fn first_outside(ids: &[i32], columns: usize, features: &[Feature]) -> Error {
    let mut examples = ids.chunks_exact(columns).enumerate();
    let outside = examples.find_map(|(row, ids)| {
        let outside = |feature: &&Feature| ids[feature.column] as u32 as usize >= feature.rows;
        let feature = features.iter().find(outside)?;
        Some(Error::IdRange {
            column: feature.name.clone(),
            id: ids[feature.column],
            row,
            rows: feature.rows,
        })
    });
    outside.unwrap_or(Error::Interrupted)
}

/// Fills a table with independent values of mean 0 and deviation `std`; value i depends on (`seed`, i) alone.
///
/// Each is a sum of four uniform 16-bit numbers: a bell shape that ends at 3.46 deviations, in whole-number
/// arithmetic, so it is the same on every machine. `std` 0 fills with zeros. Large tables get huge pages, where the
/// system grants them.
pub fn fill_bell(out: &mut [f32], std: f32, seed: u64) -> Result<()> {
    const MIDDLE: i32 = 2 * 0xffff;
    advise(out);
    let variance = (65_536.0_f64 * 65_536.0 - 1.0) / 3.0;
    let scale = (f64::from(std) / variance.sqrt()) as f32;
    let key = mix64(seed.wrapping_add(GOLDEN));
    pool::install(|| {
        out.par_chunks_mut(MIN_VALUES)
            .enumerate()
            .for_each(|(task, out)| {
                if std == 0.0 {
                    out.fill(0.0);
                    return;
                }
                let first = (task * MIN_VALUES) as u64;
                for (i, value) in out.iter_mut().enumerate() {
                    let bits = mix64(key.wrapping_add((first + i as u64).wrapping_mul(GOLDEN)));
                    let pairs =
                        (bits & 0x0000_ffff_0000_ffff) + (bits >> 16 & 0x0000_ffff_0000_ffff);
                    let sum = (pairs & 0xffff_ffff) + (pairs >> 32);
                    *value = (sum as i32 - MIDDLE) as f32 * scale;
                }
            });
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Vec<Feature> {
        let feature = |name: &str, column, start, rows| Feature {
            name: name.to_owned(),
            column,
            start,
            rows,
        };
        vec![feature("item", 2, 0, 3), feature("user", 0, 3, 2)]
    }

    fn run(ids: &[i32]) -> Result<(Vec<i64>, Vec<f32>)> {
        let weight: Vec<f32> = (0..10).map(|i| i as f32).collect();
        let (mut rows, mut out) = (vec![0; ids.len() / 3 * 2], vec![0.0; ids.len() / 3 * 4]);
        lookup(&weight, 2, (ids, 3), &features(), &mut rows, &mut out)?;
        Ok((rows, out))
    }

    #[test]
    fn every_feature_reads_its_own_rows() {
        let (rows, out) = run(&[0, 9, 2, 1, 9, 0]).unwrap();
        assert_eq!(rows, [2, 3, 0, 4]);
        assert_eq!(out, [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 8.0, 9.0]);
    }

    #[test]
    fn the_first_id_outside_is_named() {
        for id in [2, -1, i32::MAX, i32::MIN] {
            assert_eq!(
                run(&[0, 0, 0, id, 0, 3, 5, 0, 0]),
                Err(Error::IdRange {
                    column: "item".to_owned(),
                    id: 3,
                    row: 1,
                    rows: 3
                })
            );
        }
    }

    #[test]
    fn features_outside_the_table_are_refused() {
        let features = [Feature {
            name: "item".to_owned(),
            column: 0,
            start: 1,
            rows: 2,
        }];
        let error = lookup(&[0.0; 2], 1, (&[0], 1), &features, &mut [0], &mut [0.0]);
        assert!(matches!(error, Err(Error::Feature { .. })));
    }

    #[test]
    fn first_values_have_the_mean_and_deviation_asked_for() {
        let mut values = vec![9.0; 200_000];
        fill_bell(&mut values, 0.5, 3).unwrap();
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 0.005, "{mean}");
        assert!((variance.sqrt() - 0.5).abs() < 0.005, "{variance}");
        assert!(values.iter().all(|v| v.abs() < 0.5 * 3.47));
        let mut shorter = vec![9.0; 100];
        fill_bell(&mut shorter, 0.5, 3).unwrap();
        assert_eq!(shorter, values[..100]);
        fill_bell(&mut shorter, 0.0, 3).unwrap();
        assert_eq!(shorter, [0.0; 100]);
    }
}
