//! AUC, group AUC and normalized entropy.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{log, scored, settings};
use recfm_core::metrics::{Weighting, auc, gauc, normalized_entropy};

const ROWS: usize = 500_000;
const USERS: u64 = 20_000;

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
}

criterion_group! {
    name = benches;
    config = settings();
    targets = metrics
}
criterion_main!(benches);
