//! Optimiser steps that touch only the rows of a table that a batch used.
//!
//! The gradient comes as a row of values for each use of a table row. Uses of the same row are summed in their
//! order, then the row is updated once. Uses are sorted by row, so each thread has a stretch of the table to itself
//! and every row sees the same operations in the same order whatever the number of threads.

use rayon::prelude::*;

use crate::history::same_length;
use crate::memory::prefetch;
use crate::sort::sort_by_code;
use crate::take::check_rows;
use crate::{Error, Result, pool};

/// Uses that one task works off, a few more where a row's uses would be torn apart.
const TASK: usize = 2048;

/// How many uses ahead memory is asked for.
const AHEAD: usize = 12;

/// The low half of a key is the position of the use, the high half the row.
const POSITION_BITS: u32 = 32;

/// What a batch gave: for each use of a table row, the row and the gradient of what was looked up.
#[derive(Debug, Clone, Copy)]
pub struct Gradient<'a> {
    /// Row of each use, `[m]`.
    pub rows: &'a [i64],
    /// Gradient of each use, `[m, dim]` flat.
    pub values: &'a [f32],
}

/// Row-wise `AdaGrad`: one accumulator for each row, as FBGEMM has it.
///
/// `g = sum of the row's gradients + l2 * w`, `state += mean(g^2)`, `w -= lr * g / (sqrt(state) + eps)`.
#[derive(Debug, Clone, Copy)]
pub struct AdaGrad {
    /// Learning rate.
    pub lr: f32,
    /// Added to the root.
    pub eps: f32,
    /// Coupled L2 of the touched rows.
    pub l2: f32,
}

/// Adam on the touched rows only ("lazy"); the bias correction counts all steps, as `torch.optim.SparseAdam` does.
///
/// `g = sum of the row's gradients + l2 * w`, `m += (1 - beta1) (g - m)`, `v += (1 - beta2) (g^2 - v)`,
/// `w -= lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)`.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f32,
    /// Coupled L2 of the touched rows.
    pub l2: f32,
    /// Number t of this step, from 1.
    pub step: u32,
}

/// One step of row-wise `AdaGrad` on `weight [n, dim]` with `state [n]`.
pub fn adagrad(
    weight: &mut [f32],
    state: &mut [f32],
    dim: usize,
    gradient: Gradient<'_>,
    rule: AdaGrad,
) -> Result<()> {
    let AdaGrad { lr, eps, l2 } = rule;
    let share = 1.0 / dim as f32;
    let tables = [(weight, dim), (state, 1)];
    update(tables, gradient, |[weight, state], gradient| {
        decay(gradient, weight, l2);
        state[0] += sum_of_squares(gradient) * share;
        let rate = lr / (state[0].sqrt() + eps);
        for (w, &g) in weight.iter_mut().zip(&*gradient) {
            *w -= rate * g;
        }
    })
}

/// One step of lazy Adam on `weight [n, dim]` with the moments `first` and `second`, both `[n, dim]`.
pub fn adam(
    weight: &mut [f32],
    (first, second): (&mut [f32], &mut [f32]),
    dim: usize,
    gradient: Gradient<'_>,
    rule: Adam,
) -> Result<()> {
    let Adam { lr, eps, l2, .. } = rule;
    let step = f64::from(rule.step);
    let correction = (1.0 - rule.beta2.powf(step)).sqrt() / (1.0 - rule.beta1.powf(step));
    let rate = (f64::from(lr) * correction) as f32;
    let (keep1, keep2) = ((1.0 - rule.beta1) as f32, (1.0 - rule.beta2) as f32);
    let tables = [(weight, dim), (first, dim), (second, dim)];
    update(tables, gradient, |[weight, first, second], gradient| {
        decay(gradient, weight, l2);
        let moments = first.iter_mut().zip(second);
        for ((w, (m, v)), &g) in weight.iter_mut().zip(moments).zip(&*gradient) {
            *m += keep1 * (g - *m);
            *v += keep2 * (g * g - *v);
            *w -= rate * *m / (v.sqrt() + eps);
        }
    })
}

fn decay(gradient: &mut [f32], weight: &[f32], l2: f32) {
    if l2 != 0.0 {
        for (g, &w) in gradient.iter_mut().zip(weight) {
            *g += l2 * w;
        }
    }
}

/// In eight sums side by side, always the same ones, so that the compiler may use vectors.
fn sum_of_squares(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<8>();
    let mut sums = [0.0_f32; 8];
    for block in blocks {
        for (sum, value) in sums.iter_mut().zip(block) {
            *sum += value * value;
        }
    }
    let rest: f32 = rest.iter().map(|value| value * value).sum();
    sums.iter().sum::<f32>() + rest
}

/// Some tables with a row each for the same things: values and row width. The first is the one that is trained.
type Tables<'a, const T: usize> = [(&'a mut [f32], usize); T];

/// A stretch of the sorted uses and the rows of the tables that it alone touches, from row `first` on.
struct Task<'a, const T: usize> {
    keys: &'a [u64],
    first: usize,
    tables: Tables<'a, T>,
}

/// Calls `apply` once for each row that is used, with its row of every table and the sum of its gradients.
fn update<const T: usize>(
    tables: Tables<'_, T>,
    gradient: Gradient<'_>,
    apply: impl Fn([&mut [f32]; T], &mut [f32]) + Sync,
) -> Result<()> {
    let (dim, uses) = (tables[0].1, gradient.rows.len());
    let Some(n) = tables[0].0.len().checked_div(dim) else {
        return Ok(());
    };
    for (values, width) in &tables {
        same_length("state", values.len() / width, "weight", n)?;
    }
    same_length("grads", gradient.values.len() / dim, "rows", uses)?;
    if n.max(uses) > 1 << POSITION_BITS {
        return Err(Error::TableSize { rows: n, uses });
    }
    check_rows(gradient.rows, n)?;
    pool::install(|| {
        let keys = gradient.rows.iter().enumerate();
        let keys: Vec<u64> = keys
            .map(|(position, &row)| (row as u64) << POSITION_BITS | position as u64)
            .collect();
        let bits = u64::BITS - (n as u64 - 1).leading_zeros();
        let keys = sort_by_code(keys, bits, |key| key >> POSITION_BITS);
        tasks(&keys, tables)
            .into_par_iter()
            .for_each(|task| work(task, gradient.values, &apply));
    })
}

/// Cuts the sorted uses, and with them the tables, where the row changes.
fn tasks<'a, const T: usize>(mut keys: &'a [u64], tables: Tables<'a, T>) -> Vec<Task<'a, T>> {
    let mut tasks = Vec::with_capacity(keys.len() / TASK + 1);
    let (mut first, mut rest) = (0, tables);
    while let Some(&last) = keys.get(TASK - 1).or(keys.last()) {
        let last = row_of(last);
        let (now, later) = keys.split_at(keys.partition_point(|&key| row_of(key) <= last));
        let tables = rest.each_mut().map(|(values, width)| {
            let (head, tail) = std::mem::take(values).split_at_mut((last + 1 - first) * *width);
            *values = tail;
            (head, *width)
        });
        tasks.push(Task {
            keys: now,
            first,
            tables,
        });
        (first, keys) = (last + 1, later);
    }
    tasks
}

fn work<const T: usize>(
    task: Task<'_, T>,
    gradients: &[f32],
    apply: &impl Fn([&mut [f32]; T], &mut [f32]),
) {
    let Task {
        keys,
        first,
        mut tables,
    } = task;
    let dim = tables[0].1;
    let gradient_of = |key: u64| {
        let position = key as u32 as usize;
        &gradients[position * dim..(position + 1) * dim]
    };
    let mut sum = vec![0.0; dim];
    let mut at = 0;
    while at < keys.len() {
        let row = row_of(keys[at]);
        sum.copy_from_slice(gradient_of(keys[at]));
        loop {
            if let Some(&ahead) = keys.get(at + AHEAD) {
                prefetch(gradient_of(ahead));
                // Behind the first of a row's uses its table rows are on their way already.
                if row_of(ahead) != row_of(keys[at + AHEAD - 1]) {
                    let ahead = row_of(ahead) - first;
                    for (values, width) in &tables {
                        prefetch(&values[ahead * width..(ahead + 1) * width]);
                    }
                }
            }
            at += 1;
            match keys.get(at) {
                Some(&key) if row_of(key) == row => {
                    for (sum, value) in sum.iter_mut().zip(gradient_of(key)) {
                        *sum += value;
                    }
                }
                _ => break,
            }
        }
        let row = row - first;
        let rows = tables
            .each_mut()
            .map(|(values, width)| &mut values[row * *width..(row + 1) * *width]);
        apply(rows, &mut sum);
    }
}

fn row_of(key: u64) -> usize {
    (key >> POSITION_BITS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: AdaGrad = AdaGrad {
        lr: 0.5,
        eps: 0.0,
        l2: 0.0,
    };

    #[test]
    fn uses_of_a_row_are_summed_before_its_one_update() {
        let (mut weight, mut state) = (vec![1.0_f32; 6], vec![0.0_f32; 3]);
        let gradient = Gradient {
            rows: &[2, 0, 2],
            values: &[1.0, 1.0, 3.0, 4.0, 2.0, 3.0],
        };
        adagrad(&mut weight, &mut state, 2, gradient, PLAIN).unwrap();
        assert_eq!(state, [12.5, 0.0, 12.5]);
        let root = 12.5_f32.sqrt();
        let expected = [1.0 - 1.5 / root, 1.0 - 2.0 / root];
        for row in [&weight[..2], &weight[4..]] {
            for (found, expected) in row.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6);
            }
        }
        assert_eq!(weight[2..4], [1.0, 1.0]);
    }

    #[test]
    fn the_first_adam_step_has_the_size_of_the_learning_rate() {
        let mut tables = [vec![0.0_f32; 4], vec![0.0; 4], vec![0.0; 4]];
        let [weight, first, second] = &mut tables;
        let gradient = Gradient {
            rows: &[1],
            values: &[7.0, -0.01],
        };
        let rule = Adam {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 0.0,
            l2: 0.0,
            step: 1,
        };
        adam(weight, (first, second), 2, gradient, rule).unwrap();
        assert_eq!(weight[..2], [0.0, 0.0]);
        assert!((weight[2] + 0.1).abs() < 1e-6 && (weight[3] - 0.1).abs() < 1e-6);
    }

    #[test]
    fn many_tasks_give_what_one_row_at_a_time_gives() {
        let (n, dim, uses) = (700, 3, 5 * TASK + 13);
        let rows: Vec<i64> = (0..uses).map(|i| (i * i % 701 % n) as i64).collect();
        let values: Vec<f32> = (0..uses * dim).map(|i| (i % 97) as f32 - 48.0).collect();
        let (mut weight, mut state) = (vec![0.1_f32; n * dim], vec![0.0_f32; n]);
        let (mut alone, mut alone_state) = (weight.clone(), state.clone());
        let gradient = Gradient {
            rows: &rows,
            values: &values,
        };
        adagrad(&mut weight, &mut state, dim, gradient, PLAIN).unwrap();
        for row in 0..n as i64 {
            let uses = rows.iter().enumerate().filter(|&(_, &r)| r == row);
            let values: Vec<f32> = uses
                .clone()
                .flat_map(|(i, _)| &values[i * dim..(i + 1) * dim])
                .copied()
                .collect();
            let gradient = Gradient {
                rows: &vec![row; uses.count()],
                values: &values,
            };
            adagrad(&mut alone, &mut alone_state, dim, gradient, PLAIN).unwrap();
        }
        assert_eq!((weight, state), (alone, alone_state));
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let mut weight = [0.0; 4];
        let mut run = |state: &mut [f32], rows: &[i64], values: &[f32]| {
            adagrad(&mut weight, state, 2, Gradient { rows, values }, PLAIN)
        };
        assert_eq!(
            run(&mut [0.0; 2], &[0, 2], &[0.0; 4]),
            Err(Error::RowRange {
                position: 1,
                row: 2,
                n: 2
            })
        );
        assert!(run(&mut [0.0; 3], &[0], &[0.0; 2]).is_err());
        assert!(run(&mut [0.0; 2], &[0], &[0.0; 4]).is_err());
        assert_eq!(run(&mut [0.0; 2], &[], &[]), Ok(()));
    }
}
