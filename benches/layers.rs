//! A hidden layer's norm, `ReLU` and dropout, and layer norm over short rows, both ways.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{bell, settings};
use recfm_core::hidden::{self, Affine, Dropout, Passed};
use recfm_core::small_norm;

const ROWS: usize = 4096;
const WIDTH: usize = 400;
const SHORT_ROWS: usize = 4096 * 32;
const SHORT: usize = 16;
const EPS: f32 = 1e-5;
const RATE: f64 = 0.2;

fn hidden(c: &mut Criterion) {
    let (x, grad_y) = (bell(ROWS * WIDTH), bell(ROWS * WIDTH));
    let (gain, shift) = (vec![1.0; WIDTH], vec![0.0; WIDTH]);
    let (mut y, mut grad_x) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let affine = Affine {
        gain: &gain,
        shift: &shift,
        eps: EPS,
    };
    let mut group = c.benchmark_group("hidden");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("copy", |b| {
        b.iter(|| y.copy_from_slice(black_box(&x)));
    });
    for (name, affine) in [("norm", Some(affine)), ("plain", None)] {
        let dropout = Some(Dropout::new(RATE, 1));
        let mut moments = None;
        group.bench_function(format!("forward_{name}"), |b| {
            b.iter(|| moments = hidden::forward(&x, WIDTH, affine, dropout, &mut y).unwrap());
        });
        if moments.is_none() {
            // The bench was filtered out, or there is no norm.
            moments = hidden::forward(&x, WIDTH, affine, dropout, &mut y).unwrap();
        }
        let passed = Passed {
            x: &x,
            y: &y,
            width: WIDTH,
            rate: RATE,
        };
        let norm = moments.as_ref().map(|moments| (&gain[..], EPS, moments));
        group.bench_function(format!("backward_{name}"), |b| {
            b.iter(|| hidden::backward(passed, norm, &grad_y, &mut grad_x).unwrap());
        });
    }
    group.finish();
}

fn short_rows(c: &mut Criterion) {
    let (x, grad_y) = (bell(SHORT_ROWS * SHORT), bell(SHORT_ROWS * SHORT));
    let (gain, shift) = (vec![1.0; SHORT], vec![0.0; SHORT]);
    let mut out = vec![0.0; x.len()];
    let mut group = c.benchmark_group("small_norm");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("forward", |b| {
        b.iter(|| small_norm::forward(&x, &gain, &shift, EPS, &mut out).unwrap());
    });
    group.bench_function("backward", |b| {
        b.iter(|| small_norm::backward(&x, &gain, EPS, &grad_y, &mut out).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = settings();
    targets = hidden, short_rows
}
criterion_main!(benches);
