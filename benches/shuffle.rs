//! One shuffled batch: which rows, and their copies.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::settings;
use recfm_core::shuffle::{BatchAt, batch_rows};
use recfm_core::take::take_rows;

const ROWS: usize = 1_000_000;
const BATCH: usize = 8192;
const FEATURES: usize = 26;

fn shuffle(c: &mut Criterion) {
    let at = BatchAt {
        n: ROWS as i64,
        batch_size: BATCH as i64,
        seed: 1,
        epoch: 0,
        index: 7,
        shuffle: true,
    };
    let rows = batch_rows(at).unwrap();
    let ids = vec![1_i32; ROWS * FEATURES];
    let mut out = vec![0_i32; BATCH * FEATURES];

    let mut group = c.benchmark_group("shuffle");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("batch_rows", |b| b.iter(|| batch_rows(at).unwrap()));
    group.bench_function("take_rows", |b| {
        b.iter(|| take_rows(&ids, FEATURES, &rows, &mut out).unwrap());
    });
}

criterion_group! {
    name = benches;
    config = settings();
    targets = shuffle
}
criterion_main!(benches);
