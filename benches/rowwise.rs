//! A step of an embedding table: the lookup of a batch and its row-wise updates.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{ids, settings};
use recfm_core::lookup::{Feature, fill_bell, lookup};
use recfm_core::rowwise::{AdaGrad, Adam, Gradient, adagrad, adam};

const ROWS: usize = 1_000_000;
const DIM: usize = 16;
const EXAMPLES: usize = 4096;
const FEATURES: usize = 26;

fn rowwise(c: &mut Criterion) {
    let each = ROWS / FEATURES;
    let ids = ids(EXAMPLES * FEATURES, each as u64);
    let features: Vec<Feature> = (0..FEATURES)
        .map(|column| Feature {
            name: format!("f{column}"),
            column,
            start: column * each,
            rows: each,
        })
        .collect();
    let mut weight = vec![0.0; ROWS * DIM];
    let (mut rows, mut out) = (vec![0; ids.len()], vec![0.0; ids.len() * DIM]);

    let mut group = c.benchmark_group("rowwise");
    group.throughput(Throughput::Elements(weight.len() as u64));
    group.bench_function("fill_bell", |b| {
        b.iter(|| fill_bell(&mut weight, 0.02, 1).unwrap());
    });
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function("lookup", |b| {
        b.iter(|| {
            lookup(
                &weight,
                DIM,
                (&ids, FEATURES),
                &features,
                &mut rows,
                &mut out,
            )
            .unwrap();
        });
    });
    let gradient = Gradient {
        rows: &rows,
        values: &out,
    };
    let (lr, eps, l2) = (1e-3, 1e-8, 0.0);
    group.bench_function("adagrad", |b| {
        let mut state = vec![0.0; ROWS];
        let rule = AdaGrad { lr, eps, l2 };
        b.iter(|| adagrad(&mut weight, &mut state, DIM, gradient, rule).unwrap());
    });
    group.bench_function("adam", |b| {
        let (mut first, mut second) = (vec![0.0; ROWS * DIM], vec![0.0; ROWS * DIM]);
        let rule = Adam {
            lr,
            beta1: 0.9,
            beta2: 0.999,
            eps,
            l2,
            step: 7,
        };
        b.iter(|| {
            adam(&mut weight, (&mut first, &mut second), DIM, gradient, rule).unwrap();
        });
    });
}

criterion_group! {
    name = benches;
    config = settings();
    targets = rowwise
}
criterion_main!(benches);
