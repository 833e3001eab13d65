//! Building a history index, finding windows and gathering them.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{log, picks, settings};
use recfm_core::gather::{Store, gather};
use recfm_core::history::HistoryIndex;

const EVENTS: usize = 500_000;
const USERS: u64 = 20_000;
const BATCH: usize = 4096;
const LENGTH: usize = 50;
const DIM: usize = 32;

fn build(c: &mut Criterion) {
    let log = log(EVENTS, USERS);
    let mut group = c.benchmark_group("history");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("build", |b| {
        b.iter(|| HistoryIndex::new(&log.user, &log.time).unwrap());
    });
}

fn read(c: &mut Criterion) {
    let log = log(EVENTS, USERS);
    let index = HistoryIndex::new(&log.user, &log.time).unwrap();
    let rows = picks(BATCH, EVENTS as u64);
    let user: Vec<i64> = rows.iter().map(|&row| log.user[row as usize]).collect();
    let time: Vec<i64> = rows.iter().map(|&row| log.time[row as usize]).collect();
    let (start, stop) = index.window(&user, &time, LENGTH as i64, 0).unwrap();
    let values = vec![1.0_f32; EVENTS * DIM];
    let mut out = vec![0.0_f32; BATCH * LENGTH * DIM];

    let mut group = c.benchmark_group("history");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("window", |b| {
        b.iter(|| index.window(&user, &time, LENGTH as i64, 0).unwrap());
    });
    group.throughput(Throughput::Bytes((out.len() * size_of::<f32>()) as u64));
    group.bench_function("gather", |b| {
        let store = Store {
            values: &values,
            dim: DIM,
        };
        b.iter(|| gather(&index, &start, &stop, store, &mut out, LENGTH).unwrap());
    });
}

criterion_group! {
    name = benches;
    config = settings();
    targets = build, read
}
criterion_main!(benches);
