//! Layer norm over short rows, eight rows side by side, so that vectors fill however short a row is.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::{Result, pool};

/// Longest row.
pub const MAX_WIDTH: usize = 64;
const LANES: usize = 8;
/// Rows whose gradients are summed together.
const BLOCK: usize = 1024;

type Lane = [f32; LANES];
type Tile = [Lane; MAX_WIDTH];

/// Writes `(x - mean) / sqrt(variance + eps) * gain + shift` of each row of `gain.len()` values.
pub fn forward(x: &[f32], gain: &[f32], shift: &[f32], eps: f32, y: &mut [f32]) -> Result<()> {
    let size = BLOCK * gain.len();
    pool::install(|| {
        x.par_chunks(size)
            .zip(y.par_chunks_mut(size))
            .for_each(|(x, y)| forward_block(x, gain, shift, eps, y));
    })
}

/// Writes the gradient of x; the gradients of gain and shift.
pub fn backward(
    x: &[f32],
    gain: &[f32],
    eps: f32,
    grad_y: &[f32],
    grad_x: &mut [f32],
) -> Result<(Vec<f32>, Vec<f32>)> {
    let size = BLOCK * gain.len();
    let sums: Vec<_> = pool::install(|| {
        let blocks = x.par_chunks(size).zip(grad_y.par_chunks(size));
        blocks
            .zip(grad_x.par_chunks_mut(size))
            .map(|((x, grad_y), grad_x)| backward_block(x, gain, eps, grad_y, grad_x))
            .collect()
    })?;
    let mut total = vec![[0.0_f64; 2]; gain.len()];
    for (of_gain, of_shift) in &sums {
        for ((total, of_gain), of_shift) in total.iter_mut().zip(of_gain).zip(of_shift) {
            total[0] += f64::from(*of_gain);
            total[1] += f64::from(*of_shift);
        }
    }
    let [of_gain, of_shift] = [0, 1].map(|i| total.iter().map(|sums| sums[i] as f32).collect());
    Ok((of_gain, of_shift))
}

/// Rows into columns of lanes; lanes without a row are 0.
#[inline]
fn load(rows: &[f32], width: usize, tile: &mut Tile) {
    if rows.len() < LANES * width {
        *tile = [[0.0; LANES]; MAX_WIDTH];
    }
    for (lane, row) in rows.chunks_exact(width).enumerate().take(LANES) {
        for (values, value) in tile.iter_mut().zip(row) {
            values[lane] = *value;
        }
    }
}

#[inline]
fn store(tile: &Tile, width: usize, rows: &mut [f32]) {
    for (lane, row) in rows.chunks_exact_mut(width).enumerate().take(LANES) {
        for (values, value) in tile.iter().zip(row) {
            *value = values[lane];
        }
    }
}

/// Each lane's values less their mean, over their standard deviation, in place; one over that deviation.
#[inline]
fn standardise(tile: &mut [Lane], eps: f32) -> Lane {
    let share = 1.0 / tile.len() as f32;
    let mut mean = [0.0; LANES];
    for values in &*tile {
        for l in 0..LANES {
            mean[l] += values[l] * share;
        }
    }
    let mut variance = [0.0; LANES];
    for values in &mut *tile {
        for l in 0..LANES {
            values[l] -= mean[l];
            variance[l] += values[l] * values[l] * share;
        }
    }
    let inverse = variance.map(|variance| 1.0 / (variance + eps).sqrt());
    for values in tile {
        for l in 0..LANES {
            values[l] *= inverse[l];
        }
    }
    inverse
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn forward_block(x: &[f32], gain: &[f32], shift: &[f32], eps: f32, y: &mut [f32]) {
    let width = gain.len();
    let mut tile = [[0.0; LANES]; MAX_WIDTH];
    for (x, y) in x.chunks(LANES * width).zip(y.chunks_mut(LANES * width)) {
        load(x, width, &mut tile);
        standardise(&mut tile[..width], eps);
        for ((values, gain), shift) in tile.iter_mut().zip(gain).zip(shift) {
            for value in values {
                *value = *value * gain + shift;
            }
        }
        store(&tile, width, y);
    }
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn backward_block(
    x: &[f32],
    gain: &[f32],
    eps: f32,
    grad_y: &[f32],
    grad_x: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let width = gain.len();
    let share = 1.0 / width as f32;
    let (mut normal, mut grad) = ([[0.0; LANES]; MAX_WIDTH], [[0.0; LANES]; MAX_WIDTH]);
    let (mut of_gain, mut of_shift) = ([[0.0; LANES]; MAX_WIDTH], [[0.0; LANES]; MAX_WIDTH]);
    let tiles = x.chunks(LANES * width).zip(grad_y.chunks(LANES * width));
    for ((x, grad_y), grad_x) in tiles.zip(grad_x.chunks_mut(LANES * width)) {
        load(x, width, &mut normal);
        load(grad_y, width, &mut grad);
        let inverse = standardise(&mut normal[..width], eps);
        let (mut plain, mut along) = ([0.0; LANES], [0.0; LANES]);
        for j in 0..width {
            for l in 0..LANES {
                of_gain[j][l] += grad[j][l] * normal[j][l];
                of_shift[j][l] += grad[j][l];
                grad[j][l] *= gain[j];
                plain[l] += grad[j][l] * share;
                along[l] += grad[j][l] * normal[j][l] * share;
            }
        }
        for j in 0..width {
            for l in 0..LANES {
                grad[j][l] = (grad[j][l] - plain[l] - normal[j][l] * along[l]) * inverse[l];
            }
        }
        store(&grad, width, grad_x);
    }
    let sum = |tile: &Tile| {
        tile[..width]
            .iter()
            .map(|lanes| lanes.iter().sum())
            .collect()
    };
    (sum(&of_gain), sum(&of_shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPS: f32 = 1e-5;

    /// Numbers from -2 to 3, the same on every run.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| {
                let mixed = (i + 1)
                    .wrapping_mul(seed.wrapping_mul(0x9e37_79b9) | 1)
                    .wrapping_mul(0x85eb_ca6b);
                (f64::from(mixed ^ (mixed >> 15)) / 4_294_967_296.0 * 5.0 - 2.0) as f32
            })
            .collect()
    }

    fn assert_near(found: &[f32], expected: &[f64]) {
        let largest = expected.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let apart = (f64::from(*found) - expected).abs();
            assert!(apart < 1e-3 * largest, "{i}: {found} is not {expected}");
        }
    }

    /// A row less its mean, over its standard deviation; one over that deviation.
    fn standard(row: &[f32]) -> (Vec<f64>, f64) {
        let share = 1.0 / row.len() as f64;
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() * share;
        let apart: Vec<_> = row.iter().map(|&x| f64::from(x) - mean).collect();
        let variance = apart.iter().map(|x| x * x).sum::<f64>() * share;
        let inverse = 1.0 / (variance + f64::from(EPS)).sqrt();
        (apart.iter().map(|x| x * inverse).collect(), inverse)
    }

    #[test]
    fn both_ways_are_those_of_plain_loops() {
        for rows in [1, 7, 8, 9, BLOCK - 1, BLOCK + 1, 2 * BLOCK + 5] {
            for width in [2, 10, MAX_WIDTH] {
                let (x, grad_y) = (numbers(rows * width, 1), numbers(rows * width, 2));
                let (gain, shift) = (numbers(width, 3), numbers(width, 4));
                let (mut y, mut grad_x) = (vec![9.0; x.len()], vec![9.0; x.len()]);
                forward(&x, &gain, &shift, EPS, &mut y).unwrap();
                let (of_gain, of_shift) = backward(&x, &gain, EPS, &grad_y, &mut grad_x).unwrap();

                let (mut sums, mut expected) = (vec![[0.0; 2]; width], [vec![], vec![]]);
                for (x, grad_y) in x.chunks(width).zip(grad_y.chunks(width)) {
                    let (normal, inverse) = standard(x);
                    let (mut plain, mut along) = (0.0, 0.0);
                    for j in 0..width {
                        let (gain, grad) = (f64::from(gain[j]), f64::from(grad_y[j]));
                        expected[0].push(normal[j] * gain + f64::from(shift[j]));
                        sums[j][0] += grad * normal[j];
                        sums[j][1] += grad;
                        plain += grad * gain / width as f64;
                        along += grad * gain * normal[j] / width as f64;
                    }
                    for j in 0..width {
                        let grad = f64::from(grad_y[j]) * f64::from(gain[j]);
                        expected[1].push((grad - plain - normal[j] * along) * inverse);
                    }
                }
                assert_near(&y, &expected[0]);
                assert_near(&grad_x, &expected[1]);
                let [gains, shifts] =
                    [0, 1].map(|i| sums.iter().map(|sum| sum[i]).collect::<Vec<_>>());
                assert_near(&of_gain, &gains);
                assert_near(&of_shift, &shifts);
            }
        }
    }

    #[test]
    fn a_row_of_one_value_is_its_shift() {
        let (x, shift) = (vec![3.0; 5 * 4], [1.0, 2.0, 3.0, 4.0]);
        let mut y = vec![9.0; x.len()];
        forward(&x, &[2.0; 4], &shift, EPS, &mut y).unwrap();
        assert!(y.chunks(4).all(|row| row == shift));
    }

    #[test]
    fn nan_stays_in_its_row() {
        let mut x = numbers(20 * 3, 1);
        x[10 * 3 + 1] = f32::NAN;
        let mut y = vec![0.0; x.len()];
        forward(&x, &[1.0; 3], &[0.0; 3], EPS, &mut y).unwrap();
        let broken: Vec<_> = (0..y.len()).filter(|&i| y[i].is_nan()).collect();
        assert_eq!(broken, [30, 31, 32]);
    }
}
