//! A hidden layer's batch norm, `ReLU` and dropout in one pass over memory, forward and backward.
//!
//! Forward, per value x of column j: `y = keep * max(0, (x - mean_j) * gain_j / std_j + shift_j) / (1 - rate)`.
//! Without a norm it is `keep * max(0, x) / (1 - rate)`. Backward needs no mask: a value was kept and above 0 just
//! where y is above 0. Sums over rows are taken per block of rows and then over the blocks in order.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::{Result, pool};

/// Rows whose sums are taken together; they stay in the cache between two looks.
const BLOCK: usize = 64;

/// Dropout whose mask is a function of (seed, row, column).
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    seed: u64,
    /// A value is dropped where its 32 random bits are below this.
    below: u32,
    scale: f32,
}

impl Dropout {
    /// Drops a share `rate` of the values, at least 0 and below 1.
    pub fn new(rate: f64, seed: u64) -> Self {
        Self {
            seed,
            below: (rate * 4_294_967_296.0) as u32,
            scale: (1.0 / (1.0 - rate)) as f32,
        }
    }

    /// Two keys for the random bits of a row.
    fn keys(self, row: usize) -> [u32; 2] {
        let mut z = self
            .seed
            .wrapping_add((row as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        [z as u32, (z >> 32) as u32]
    }
}

/// Random bits of a column under the keys of its row: the mix of `lowbias32`, with a key before each round.
#[inline]
fn bits(column: u32, keys: [u32; 2]) -> u32 {
    let mut x = column.wrapping_mul(0x9e37_79b9) ^ keys[0];
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x ^= keys[1];
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// What a batch norm learns, one value per column each, and its epsilon.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Factor on the normalised value.
    pub gain: &'a [f32],
    /// Added to it.
    pub shift: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

/// Mean and (biased) variance of each column over the rows of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: Vec<f32>,
    /// Sum of squared differences from the mean, over the number of rows.
    pub variance: Vec<f32>,
}

impl Moments {
    /// Of `x`, rows of `width` values one behind the other.
    pub fn of(x: &[f32], width: usize) -> Result<Self> {
        let blocks: Vec<_> = pool::install(|| {
            x.par_chunks(BLOCK * width)
                .map(|block| block_moments(block, width))
                .collect()
        })?;
        let (mut rows, mut mean, mut square) = (0.0, vec![0.0; width], vec![0.0; width]);
        for (block, chunk) in blocks.iter().zip(x.chunks(BLOCK * width)) {
            let more = (chunk.len() / width) as f64;
            let both = rows + more;
            for j in 0..width {
                let apart = f64::from(block.mean[j]) - mean[j];
                mean[j] += apart * more / both;
                square[j] += f64::from(block.variance[j]) + apart * apart * rows * more / both;
            }
            rows = both;
        }
        Ok(Self {
            mean: mean.iter().map(|&mean| mean as f32).collect(),
            variance: square.iter().map(|square| (square / rows) as f32).collect(),
        })
    }

    fn inverse_std(&self, eps: f32) -> Vec<f32> {
        let inverse = |&v: &f32| (1.0 / (f64::from(v) + f64::from(eps)).sqrt()) as f32;
        self.variance.iter().map(inverse).collect()
    }
}

/// Mean of each column, and its sum of squared differences in `variance`.
#[multiversion(targets("x86_64+avx2+fma"))]
fn block_moments(block: &[f32], width: usize) -> Moments {
    let mut mean = vec![0.0; width];
    for row in block.chunks_exact(width) {
        for (sum, x) in mean.iter_mut().zip(row) {
            *sum += x;
        }
    }
    let rows = (block.len() / width) as f32;
    for sum in &mut mean {
        *sum /= rows;
    }
    let mut variance = vec![0.0; width];
    for row in block.chunks_exact(width) {
        for ((square, x), mean) in variance.iter_mut().zip(row).zip(&mean) {
            *square += (x - mean) * (x - mean);
        }
    }
    Moments { mean, variance }
}

/// Writes y; the moments that it was normalised with, where there is a norm.
pub fn forward(
    x: &[f32],
    width: usize,
    norm: Option<Affine<'_>>,
    dropout: Option<Dropout>,
    y: &mut [f32],
) -> Result<Option<Moments>> {
    let moments = norm.map(|_| Moments::of(x, width)).transpose()?;
    let line = norm.zip(moments.as_ref()).map(|(norm, moments)| {
        let mut factor = moments.inverse_std(norm.eps);
        for (factor, gain) in factor.iter_mut().zip(norm.gain) {
            *factor *= gain;
        }
        let terms = norm.shift.iter().zip(&moments.mean).zip(&factor);
        let term = terms.map(|((shift, mean), factor)| shift - mean * factor);
        let term: Vec<f32> = term.collect();
        (factor, term)
    });
    let line = line.as_ref().map(|(factor, term)| (&factor[..], &term[..]));
    pool::install(|| {
        let blocks = x
            .par_chunks(BLOCK * width)
            .zip(y.par_chunks_mut(BLOCK * width));
        blocks.enumerate().for_each(|(block, (x, y))| {
            fill_block(x, width, line, dropout, block * BLOCK, y);
        });
    })?;
    Ok(moments)
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn fill_block(
    x: &[f32],
    width: usize,
    line: Option<(&[f32], &[f32])>,
    dropout: Option<Dropout>,
    first: usize,
    y: &mut [f32],
) {
    for (row, (x, y)) in x
        .chunks_exact(width)
        .zip(y.chunks_exact_mut(width))
        .enumerate()
    {
        if let Some((factor, term)) = line {
            for (((y, x), factor), term) in y.iter_mut().zip(x).zip(factor).zip(term) {
                *y = relu(x * factor + term);
            }
        } else {
            for (y, x) in y.iter_mut().zip(x) {
                *y = relu(*x);
            }
        }
        if let Some(dropout) = dropout {
            let keys = dropout.keys(first + row);
            for (column, y) in (0..width as u32).zip(y) {
                let factor = if bits(column, keys) >= dropout.below {
                    dropout.scale
                } else {
                    0.0
                };
                *y *= factor;
            }
        }
    }
}

/// NaN stays NaN, as in torch: a broken step must be seen.
#[inline]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// What went forward, for the way back.
#[derive(Debug, Clone, Copy)]
pub struct Passed<'a> {
    /// Input.
    pub x: &'a [f32],
    /// Output.
    pub y: &'a [f32],
    /// Columns.
    pub width: usize,
    /// Share that was dropped.
    pub rate: f64,
}

/// Gradients of a norm's gain and shift.
pub type AffineGradient = (Vec<f32>, Vec<f32>);

/// Writes the gradient of x from that of y; the gradients of gain and shift, where there is a norm (gain, eps, moments).
pub fn backward(
    passed: Passed<'_>,
    norm: Option<(&[f32], f32, &Moments)>,
    grad_y: &[f32],
    grad_x: &mut [f32],
) -> Result<Option<AffineGradient>> {
    let Passed { x, y, width, rate } = passed;
    let (scale, size) = ((1.0 / (1.0 - rate)) as f32, BLOCK * width);
    let Some((gain, eps, moments)) = norm else {
        pool::install(|| {
            let blocks = y.par_chunks(size).zip(grad_y.par_chunks(size));
            blocks
                .zip(grad_x.par_chunks_mut(size))
                .for_each(|((y, grad_y), grad_x)| plain_block(y, scale, grad_y, grad_x));
        })?;
        return Ok(None);
    };
    let sums: Vec<_> = pool::install(|| {
        let blocks = x.par_chunks(size).zip(y.par_chunks(size));
        blocks
            .zip(grad_y.par_chunks(size))
            .map(|((x, y), grad_y)| block_sums(x, y, &moments.mean, grad_y))
            .collect()
    })?;
    let mut total = vec![[0.0_f64; 2]; width];
    for (plain, apart) in &sums {
        for ((total, plain), apart) in total.iter_mut().zip(plain).zip(apart) {
            total[0] += f64::from(*plain);
            total[1] += f64::from(*apart);
        }
    }
    let (rows, inverse) = ((x.len() / width) as f64, moments.inverse_std(eps));
    let mut gradient = (Vec::with_capacity(width), Vec::with_capacity(width));
    let mut lines = Lines::default();
    for j in 0..width {
        let (inverse, factor) = (f64::from(inverse[j]), f64::from(inverse[j] * gain[j]));
        let [plain, apart] = total[j].map(|sum| sum * f64::from(scale));
        gradient.0.push((apart * inverse) as f32);
        gradient.1.push(plain as f32);
        lines.of_grad.push((factor * f64::from(scale)) as f32);
        lines
            .of_x
            .push((-factor * inverse * inverse * apart / rows) as f32);
        lines.term.push((-factor * plain / rows) as f32);
    }
    pool::install(|| {
        let blocks = x
            .par_chunks(size)
            .zip(y.par_chunks(size))
            .zip(grad_y.par_chunks(size));
        blocks
            .zip(grad_x.par_chunks_mut(size))
            .for_each(|(((x, y), grad_y), grad_x)| {
                norm_block([x, y, grad_y], &moments.mean, &lines, grad_x);
            });
    })?;
    Ok(Some(gradient))
}

/// Per column: `grad_x = of_grad * grad_y * [y > 0] + of_x * (x - mean) + term`.
#[derive(Debug, Default)]
struct Lines {
    of_grad: Vec<f32>,
    of_x: Vec<f32>,
    term: Vec<f32>,
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn plain_block(y: &[f32], scale: f32, grad_y: &[f32], grad_x: &mut [f32]) {
    for ((out, y), grad) in grad_x.iter_mut().zip(y).zip(grad_y) {
        *out = passes(*y, *grad) * scale;
    }
}

/// Sums over a block's rows of the gradient that passes, and of that times the distance of x from its mean.
#[multiversion(targets("x86_64+avx2+fma"))]
fn block_sums(x: &[f32], y: &[f32], mean: &[f32], grad_y: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let width = mean.len();
    let (mut plain, mut apart) = (vec![0.0; width], vec![0.0; width]);
    let rows = x.chunks_exact(width).zip(y.chunks_exact(width));
    for ((x, y), grad) in rows.zip(grad_y.chunks_exact(width)) {
        let sums = plain.iter_mut().zip(&mut apart).zip(mean);
        for (((sums, x), y), grad) in sums.zip(x).zip(y).zip(grad) {
            let ((plain, apart), mean) = sums;
            let grad = passes(*y, *grad);
            *plain += grad;
            *apart += grad * (x - mean);
        }
    }
    (plain, apart)
}

#[multiversion(targets("x86_64+avx2+fma"))]
fn norm_block([x, y, grad_y]: [&[f32]; 3], mean: &[f32], lines: &Lines, grad_x: &mut [f32]) {
    let width = mean.len();
    let (of_grad, of_x, term) = (
        &lines.of_grad[..width],
        &lines.of_x[..width],
        &lines.term[..width],
    );
    let rows = x
        .chunks_exact(width)
        .zip(y.chunks_exact(width))
        .zip(grad_y.chunks_exact(width));
    for (((x, y), grad), out) in rows.zip(grad_x.chunks_exact_mut(width)) {
        for j in 0..width {
            out[j] = of_grad[j] * passes(y[j], grad[j]) + of_x[j] * (x[j] - mean[j]) + term[j];
        }
    }
}

/// The gradient where the value was above 0 and kept.
#[inline]
fn passes(y: f32, grad: f32) -> f32 {
    if y <= 0.0 { 0.0 } else { grad }
}

#[cfg(test)]
mod tests;
