//! AUC, group AUC, normalized entropy, streamed predictions, and exact sums and moments.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{log, scored, settings};
use recfm_core::exact::{ExactMoments, ExactSum};
use recfm_core::metrics::{Predictions, Weighting, auc, gauc, normalized_entropy};

const ROWS: usize = 500_000;
const USERS: u64 = 20_000;
const BATCH: usize = 4096;

fn metrics(c: &mut Criterion) {
    let (label, score) = scored(ROWS);
    let user = log(ROWS, USERS).user;
    let mut group = c.benchmark_group("metrics");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("auc", |b| b.iter(|| auc(&label, &score).unwrap()));
    group.bench_function("gauc", |b| {
        b.iter(|| gauc(&user, &label, &score, Weighting::Impressions).unwrap());
    });
    group.bench_function("normalized_entropy", |b| {
        b.iter(|| normalized_entropy(&label, &score).unwrap());
    });
    let streamed = || {
        let mut rows = Predictions::default();
        let batches = label.chunks(BATCH).zip(score.chunks(BATCH));
        for ((label, score), user) in batches.zip(user.chunks(BATCH)) {
            rows.update(label, score, Some(user)).unwrap();
        }
        rows
    };
    group.bench_function("update", |b| b.iter(streamed));
    let rows = streamed();
    group.bench_function("merge", |b| {
        let setup = || (rows.clone(), rows.clone());
        let merged = |(mut one, other): (Predictions, Predictions)| {
            one.merge(other).unwrap();
            one
        };
        b.iter_batched(setup, merged, BatchSize::LargeInput);
    });
    group.bench_function("streamed_gauc", |b| {
        b.iter(|| rows.gauc(Weighting::Impressions).unwrap());
    });
}

fn exact(c: &mut Criterion) {
    let values = scored(ROWS).1;
    let mut group = c.benchmark_group("exact");
    group.throughput(Throughput::Elements(ROWS as u64));
    let mut sum = ExactSum::default();
    group.bench_function("sum", |b| b.iter(|| sum.add(&values).unwrap()));
    let mut moments = ExactMoments::default();
    group.bench_function("moments", |b| b.iter(|| moments.update(&values).unwrap()));
    group.bench_function("value", |b| b.iter(|| (sum.value(), moments.std())));
}

criterion_group! {
    name = benches;
    config = settings();
    targets = metrics, exact
}
criterion_main!(benches);
