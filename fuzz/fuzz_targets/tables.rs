//! Any vocabulary, offsets, windows and predictions: an error or a result, never a panic.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run tables`

#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use recfm_core::column::{Chunk, Values};
use recfm_core::gather::{Store, gather};
use recfm_core::history::HistoryIndex;
use recfm_core::metrics::{self, Weighting};
use recfm_core::take::{take_lists, take_rows};
use recfm_core::vocab::Vocab;

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    ints: Vec<i64>,
    strings: Vec<Option<String>>,
    counts: Vec<i64>,
    keys: Vec<u8>,
    values: Vec<i32>,
    offsets: Vec<i16>,
    rows: Vec<i8>,
    times: Vec<i8>,
    length: u8,
    delay: i64,
    scores: Vec<f64>,
    labels: Vec<bool>,
}

fuzz_target!(|input: Input| {
    let ints = Values::Ints {
        values: input.ints.as_slice().into(),
        valid: None,
    };
    let strings = Values::Strs(input.strings.iter().map(Option::as_deref).collect());
    for values in [ints, strings] {
        let n = match &values {
            Values::Strs(values) => values.len(),
            _ => input.ints.len(),
        };
        let keys = input.keys.iter().map(|&key| u32::from(key));
        let keys: Vec<_> = keys
            .map(|key| if (key as usize) < n { key } else { u32::MAX })
            .collect();
        let chunks = [Chunk::new(values.clone()), Chunk::new(values).select(keys)];
        if let Ok(vocab) = Vocab::from_values(&chunks[..1], &input.counts, "x") {
            let ids = vocab
                .encode(&chunks)
                .expect("a vocabulary encodes its own kind");
            assert!(
                ids[..n]
                    .iter()
                    .enumerate()
                    .all(|(i, &id)| id as usize == i + 2)
            );
        }
        let fitted = Vocab::fit(&chunks, "x", 1).expect("any column can be fitted");
        fitted
            .encode(&chunks)
            .expect("a vocabulary encodes its own column");
    }

    let wide = |numbers: &[i8]| -> Vec<i64> { numbers.iter().map(|&x| i64::from(x)).collect() };
    let offsets: Vec<_> = input.offsets.iter().map(|&x| i64::from(x)).collect();
    let rows = wide(&input.rows);
    if let Ok((taken, places)) = take_lists(&input.values, &offsets, &rows) {
        assert_eq!(
            (places.len(), places[rows.len()]),
            (rows.len() + 1, taken.len() as i64)
        );
    }
    let width = usize::from(input.length % 5);
    let _ = take_rows(
        &input.values,
        width,
        &rows,
        &mut vec![0; rows.len() * width],
    );

    if let Ok(index) = HistoryIndex::new(&rows, &wide(&input.times)) {
        let length = i64::from(input.length % 9);
        if let Ok((start, stop)) = index.window(&rows, &wide(&input.times), length, input.delay) {
            let values: Vec<_> = (0..index.len()).map(|i| i as f32).collect();
            let mut out = vec![0.0_f32; start.len() * length as usize];
            let store = Store {
                values: &values,
                dim: 1,
            };
            gather(&index, &start, &stop, store, &mut out, length as usize).expect("windows fit");
            let (rows, mut wild) = (&rows[..], vec![0.0_f32; rows.len()]);
            let _ = gather(&index, rows, &wide(&input.times), store, &mut wild, 1);
        }
    }

    let label: Vec<_> = input
        .labels
        .iter()
        .map(|&label| f32::from(u8::from(label)))
        .collect();
    let n = label.len().min(input.scores.len()).min(input.ints.len());
    let (label, score, group) = (&label[..n], &input.scores[..n], &input.ints[..n]);
    if let Ok(value) = metrics::auc(label, score) {
        assert!((0.0..=1.0).contains(&value));
    }
    for weighting in [
        Weighting::Impressions,
        Weighting::Positives,
        Weighting::Uniform,
    ] {
        if let Ok(found) = metrics::gauc(group, label, score, weighting) {
            assert!((0.0..=1.0).contains(&found.value));
        }
    }
    let _ = (
        metrics::normalized_entropy(label, score),
        metrics::calibration(label, score),
    );
});
