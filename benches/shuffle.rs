//! One shuffled batch: which rows, their copies, and both in one pass over every column.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::settings;
use recfm_core::batch::{Column, Epoch, Table, fill};
use recfm_core::keys::KeyIndex;
use recfm_core::shuffle::{BatchAt, batch_rows};
use recfm_core::take::take_rows;

const ROWS: usize = 1_000_000;
const BATCH: usize = 8192;
const FEATURES: usize = 27;

fn shuffle(c: &mut Criterion) {
    let at = BatchAt {
        n: ROWS as i64,
        batch_size: BATCH as i64,
        seed: 1,
        epoch: 0,
        index: 7,
        shuffle: true,
    };
    let mut rows = batch_rows(at).unwrap();
    let ids = vec![1_i32; ROWS * FEATURES];
    let mut out = vec![0_i32; BATCH * FEATURES];
    let keys: Vec<i64> = (0..ROWS as i64).collect();
    let index = KeyIndex::new(&keys, "user").unwrap();
    let mut found = vec![0_i64; BATCH];

    let mut group = c.benchmark_group("shuffle");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("batch_rows", |b| b.iter(|| batch_rows(at).unwrap()));
    group.bench_function("take_rows", |b| {
        b.iter(|| take_rows(&ids, FEATURES, &rows, &mut out).unwrap());
    });
    group.bench_function("side_rows", |b| {
        b.iter(|| index.rows(&rows, &mut found).unwrap());
    });
    group.bench_function("fill", |b| {
        let (label, user) = (vec![0.0_f32; ROWS], vec![0_i64; ROWS]);
        let (mut labels, mut users) = (vec![0.0; BATCH], vec![0; BATCH]);
        let epoch = Epoch {
            n: at.n,
            served: None,
            offset: 0,
            seed: at.seed,
            epoch: at.epoch,
            shuffle: true,
        };
        b.iter(|| {
            let columns = vec![
                Column::I32(table(&ids, FEATURES, &mut out)),
                Column::F32(table(&label, 1, &mut labels)),
                Column::I64(table(&user, 1, &mut users)),
            ];
            let range = (at.index * at.batch_size, at.batch_size);
            fill(epoch, &[range], &mut rows, columns).unwrap();
        });
    });
}

fn table<'a, T>(src: &'a [T], width: usize, out: &'a mut [T]) -> Table<'a, T> {
    Table { src, width, out }
}

criterion_group! {
    name = benches;
    config = settings();
    targets = shuffle
}
criterion_main!(benches);
