//! Fitting vocabularies, and a table of integers and strings to ids.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use recfm_benches::{picks, settings};
use recfm_core::column::{Chunk, Strs, Values};
use recfm_core::encode::{Column, Encoding, encode_columns};
use recfm_core::hash::Hasher;
use recfm_core::vocab::Vocab;

const ROWS: usize = 200_000;
const VALUES: u64 = 100_000;
const BUCKETS: i64 = 1 << 20;

/// A column of integers and one of their 8 hexadecimal digits.
struct Data {
    numbers: Vec<i64>,
    bytes: Vec<u8>,
    offsets: Vec<i64>,
}

impl Data {
    fn new() -> Self {
        // Spread out, so that they are no dense range.
        let picked = picks(ROWS, VALUES).into_iter();
        let numbers: Vec<i64> = picked.map(|i| i * 1_000_003).collect();
        let texts = numbers.iter().map(|i| format!("{i:08x}"));
        let bytes = texts
            .flat_map(|text| text.as_bytes()[..8].to_vec())
            .collect();
        let offsets = (0..=ROWS as i64).map(|row| row * 8).collect();
        Self {
            numbers,
            bytes,
            offsets,
        }
    }

    fn columns(&self) -> [(&'static str, [Chunk<'_>; 1]); 2] {
        let values = (&self.numbers[..]).into();
        let strs = Strs::Offsets64(&self.offsets, &self.bytes);
        [
            (
                "int",
                [Chunk::new(Values::Ints {
                    values,
                    valid: None,
                })],
            ),
            ("str", [Chunk::new(Values::Strs { strs, valid: None })]),
        ]
    }
}

fn encode(c: &mut Criterion) {
    let data = Data::new();
    let mut out = vec![0; ROWS];
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (kind, chunks) in &data.columns() {
        let hasher = Hasher::new(kind, BUCKETS).unwrap();
        let column = [Column::new(Encoding::Hash(&hasher), chunks).unwrap()];
        group.bench_function(format!("hash-{kind}"), |b| {
            b.iter(|| encode_columns(&column, &mut out).unwrap());
        });
        group.bench_function(format!("vocab-fit-{kind}"), |b| {
            b.iter(|| Vocab::fit(chunks, kind, 1).unwrap());
        });
        let vocab = Vocab::fit(chunks, kind, 1).unwrap();
        let column = [Column::new(Encoding::Vocab(&vocab), chunks).unwrap()];
        group.bench_function(format!("vocab-encode-{kind}"), |b| {
            b.iter(|| encode_columns(&column, &mut out).unwrap());
        });
    }
}

criterion_group! {
    name = benches;
    config = settings();
    targets = encode
}
criterion_main!(benches);
