//! Building a history index, finding windows and gathering them.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{log, picks, settings};
use recfm_core::gather::{Store, Stored, gather};
use recfm_core::history::{HistoryIndex, Horizon};
use recfm_core::quantize::{pairs_of, to_bf16, to_int4, to_int8, uniform_codebook};
use recfm_core::stop::Stop;

const EVENTS: usize = 500_000;
const USERS: u64 = 20_000;
const BATCH: usize = 4096;
const LENGTH: usize = 50;
const DIM: usize = 32;
const HORIZON: Horizon = Horizon {
    length: LENGTH as i64,
    delay: 0,
    max_age: None,
};

fn index() -> HistoryIndex {
    let log = log(EVENTS, USERS);
    HistoryIndex::new(&log.user, &log.time, None, &Stop::new()).unwrap()
}

fn build(c: &mut Criterion) {
    let log = log(EVENTS, USERS);
    let mut group = c.benchmark_group("history");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("build", |b| {
        b.iter(|| HistoryIndex::new(&log.user, &log.time, None, &Stop::new()).unwrap());
    });
    let index = index();
    group.bench_function("windows_of_events", |b| {
        b.iter(|| {
            index
                .part()
                .windows_of_events(HORIZON, &Stop::new())
                .unwrap()
        });
    });
}

/// Starts and stops of the windows of a batch.
fn windows(index: &HistoryIndex) -> (Vec<i64>, Vec<i64>) {
    let (log, rows) = (log(EVENTS, USERS), picks(BATCH, EVENTS as u64));
    let user: Vec<i64> = rows.iter().map(|&row| log.user[row as usize]).collect();
    let time: Vec<i64> = rows.iter().map(|&row| log.time[row as usize]).collect();
    index
        .part()
        .window(&user, &time, HORIZON, &Stop::new())
        .unwrap()
}

fn window(c: &mut Criterion) {
    let (log, rows, index) = (log(EVENTS, USERS), picks(BATCH, EVENTS as u64), index());
    let user: Vec<i64> = rows.iter().map(|&row| log.user[row as usize]).collect();
    let time: Vec<i64> = rows.iter().map(|&row| log.time[row as usize]).collect();
    let mut group = c.benchmark_group("history");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("window", |b| {
        b.iter(|| {
            index
                .part()
                .window(&user, &time, HORIZON, &Stop::new())
                .unwrap()
        });
    });
}

fn fill<T: Stored<f32>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    values: &[T],
    index: &HistoryIndex,
) {
    let (start, stop) = windows(index);
    let pairs = pairs_of(&uniform_codebook());
    let store = Store {
        values: values.into(),
        dim: DIM,
        pairs: &pairs,
    };
    let mut out = vec![0.0_f32; BATCH * LENGTH * DIM];
    group.throughput(Throughput::Bytes((out.len() * size_of::<f32>()) as u64));
    group.bench_function(name, |b| {
        b.iter(|| {
            gather(
                &[index.part()],
                &[store],
                &start,
                &stop,
                &mut out,
                (LENGTH, DIM),
            )
            .unwrap();
        });
    });
}

fn gathers(c: &mut Criterion) {
    let index = index();
    let plain: Vec<f32> = (0..EVENTS * DIM)
        .map(|i| (i % 201) as f32 / 100.0 - 1.0)
        .collect();
    let half: Vec<half::f16> = plain
        .iter()
        .map(|&value| half::f16::from_f32(value))
        .collect();
    let brain: Vec<half::bf16> = to_bf16(&plain)
        .unwrap()
        .into_iter()
        .map(half::bf16::from_bits)
        .collect();
    let mut group = c.benchmark_group("history/gather");
    fill(&mut group, "f32", &plain, &index);
    fill(&mut group, "f16", &half, &index);
    fill(&mut group, "bf16", &brain, &index);
    fill(&mut group, "int8", &to_int8(&plain).unwrap(), &index);
    fill(
        &mut group,
        "int4",
        &to_int4(&plain, DIM, &uniform_codebook()).unwrap(),
        &index,
    );
}

criterion_group! {
    name = benches;
    config = settings();
    targets = build, window, gathers
}
criterion_main!(benches);
