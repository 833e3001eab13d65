//! Both ways against plain loops in f64.

use super::*;

const EPS: f32 = 1e-5;
/// Rows around a block's edges.
const ROWS: [usize; 5] = [2, 63, 64, 65, 300];

/// Numbers from -2 to 3, the same on every run.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let dropout = Dropout::new(0.5, seed);
    (0..count)
        .map(|i| (f64::from(bits(1, dropout.keys(i))) / 4_294_967_296.0 * 5.0 - 2.0) as f32)
        .collect()
}

fn assert_near(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1.0, |a: f64, b| a.max(b.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*found) - expected).abs();
        assert!(apart < 1e-4 * largest, "{i}: {found} is not {expected}");
    }
}

fn column(x: &[f32], width: usize, j: usize) -> Vec<f64> {
    x.iter()
        .skip(j)
        .step_by(width)
        .map(|&x| f64::from(x))
        .collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// A column less its mean, and one over its standard deviation.
fn standard(x: &[f64]) -> (Vec<f64>, f64) {
    let middle = mean(x);
    let apart: Vec<_> = x.iter().map(|x| x - middle).collect();
    let variance = mean(&apart.iter().map(|x| x * x).collect::<Vec<_>>());
    (apart, 1.0 / (variance + f64::from(EPS)).sqrt())
}

#[test]
fn forward_is_that_of_plain_loops() {
    for rows in ROWS {
        for width in [1, 3, 17] {
            let (x, gain) = (numbers(rows * width, 1), numbers(width, 2));
            let shift = numbers(width, 3);
            let norm = Affine {
                gain: &gain,
                shift: &shift,
                eps: EPS,
            };
            let mut y = vec![9.0; x.len()];
            let moments = forward(&x, width, Some(norm), None, &mut y).unwrap();
            let moments = moments.unwrap();
            for j in 0..width {
                let x = column(&x, width, j);
                let (apart, inverse) = standard(&x);
                let (gain, shift) = (f64::from(gain[j]), f64::from(shift[j]));
                let expected = apart.iter().map(|x| (x * inverse * gain + shift).max(0.0));
                let found: Vec<_> = y.iter().skip(j).step_by(width).copied().collect();
                assert_near(&found, &expected.collect::<Vec<_>>());
                let variance = 1.0 / (inverse * inverse) - f64::from(EPS);
                assert_near(
                    &[moments.mean[j], moments.variance[j]],
                    &[mean(&x), variance],
                );
            }
        }
    }
}

#[test]
fn backward_is_that_of_plain_loops() {
    for rows in ROWS {
        let (width, rate) = (5, 0.25);
        let (x, grad_y) = (numbers(rows * width, 1), numbers(rows * width, 4));
        let (gain, shift) = (numbers(width, 2), numbers(width, 3));
        let norm = Affine {
            gain: &gain,
            shift: &shift,
            eps: EPS,
        };
        let (mut y, mut grad_x) = (vec![9.0; x.len()], vec![9.0; x.len()]);
        let dropout = Some(Dropout::new(rate, 7));
        let moments = forward(&x, width, Some(norm), dropout, &mut y).unwrap();
        let passed = Passed {
            x: &x,
            y: &y,
            width,
            rate,
        };
        let norm = Some((&gain[..], EPS, moments.as_ref().unwrap()));
        let found = backward(passed, norm, &grad_y, &mut grad_x).unwrap();
        let (of_gain, of_shift) = found.unwrap();
        for j in 0..width {
            let (apart, inverse) = standard(&column(&x, width, j));
            let passing: Vec<_> = column(&grad_y, width, j)
                .iter()
                .zip(column(&y, width, j))
                .map(|(grad, y)| if y > 0.0 { grad / (1.0 - rate) } else { 0.0 })
                .collect();
            let normal: Vec<_> = apart.iter().map(|x| x * inverse).collect();
            let along: Vec<_> = passing.iter().zip(&normal).map(|(g, n)| g * n).collect();
            let factor = f64::from(gain[j]) * inverse;
            let expected = passing
                .iter()
                .zip(&normal)
                .map(|(grad, normal)| factor * (grad - mean(&passing) - normal * mean(&along)));
            let found: Vec<_> = grad_x.iter().skip(j).step_by(width).copied().collect();
            assert_near(&found, &expected.collect::<Vec<_>>());
            assert_near(&of_gain[j..=j], &[along.iter().sum()]);
            assert_near(&of_shift[j..=j], &[passing.iter().sum()]);
        }
    }
}

#[test]
fn without_a_norm_values_and_gradients_pass_where_they_were_above_zero_and_kept() {
    let (rows, width, rate) = (130, 3, 0.5);
    let (x, grad_y) = (numbers(rows * width, 1), numbers(rows * width, 4));
    let (mut y, mut grad_x) = (vec![9.0; x.len()], vec![9.0; x.len()]);
    let dropout = Dropout::new(rate, 3);
    let moments = forward(&x, width, None, Some(dropout), &mut y).unwrap();
    let passed = Passed {
        x: &x,
        y: &y,
        width,
        rate,
    };
    let gradient = backward(passed, None, &grad_y, &mut grad_x).unwrap();
    assert_eq!((moments, gradient), (None, None));
    for i in 0..x.len() {
        let kept = bits((i % width) as u32, dropout.keys(i / width)) >= dropout.below;
        let factor = if kept && x[i] > 0.0 { 2.0 } else { 0.0 };
        let expected = [f64::from(x[i]) * factor, f64::from(grad_y[i]) * factor];
        assert_near(&[y[i], grad_x[i]], &expected);
    }
}

#[test]
fn a_mask_drops_its_share_of_every_row_and_column() {
    let (rows, width) = (400, 400);
    let x = vec![1.0; rows * width];
    for rate in [0.1, 0.5, 0.9] {
        let mut y = vec![0.0; x.len()];
        forward(&x, width, None, Some(Dropout::new(rate, 11)), &mut y).unwrap();
        let share = |values: &[f64]| {
            values.iter().filter(|value| **value > 0.0).count() as f64 / values.len() as f64
        };
        let all = share(&column(&y, 1, 0));
        assert!((all - (1.0 - rate)).abs() < 0.005, "{rate}: {all}");
        for j in 0..width {
            // Five standard deviations of a share of 400 draws.
            let bound = 5.0 * (rate * (1.0 - rate) / 400.0).sqrt();
            let row: Vec<_> = y[j * width..(j + 1) * width]
                .iter()
                .map(|&y| f64::from(y))
                .collect();
            assert!((share(&column(&y, width, j)) - (1.0 - rate)).abs() < bound);
            assert!((share(&row) - (1.0 - rate)).abs() < bound);
        }
    }
}

#[test]
fn moments_far_from_zero_keep_their_digits() {
    let x: Vec<f32> = numbers(1000, 5).iter().map(|x| x + 10_000.0).collect();
    let moments = Moments::of(&x, 1).unwrap();
    let (apart, _) = standard(&column(&x, 1, 0));
    let variance = mean(&apart.iter().map(|x| x * x).collect::<Vec<_>>());
    assert!((f64::from(moments.variance[0]) / variance - 1.0).abs() < 1e-3);
}

#[test]
fn nan_stays() {
    let (mut x, mut y) = (numbers(200, 1), vec![0.0; 200]);
    x[150] = f32::NAN;
    forward(&x, 2, None, Some(Dropout::new(0.9, 1)), &mut y).unwrap();
    assert!(y[150].is_nan() && y.iter().filter(|y| y.is_nan()).count() == 1);
    let norm = Affine {
        gain: &[1.0; 2],
        shift: &[0.0; 2],
        eps: EPS,
    };
    forward(&x, 2, Some(norm), None, &mut y).unwrap();
    assert!(y.iter().step_by(2).all(|y| y.is_nan()));
    assert!(!y.iter().skip(1).step_by(2).any(|y| y.is_nan()));
}
