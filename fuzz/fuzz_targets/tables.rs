//! Any vocabulary, offsets, windows and predictions: an error or a result, never a panic.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run tables`

#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use recfm_core::column::{Bits, Chunk, Strs, Values};
use recfm_core::encode::{Encoding, encode};
use recfm_core::gather::{Store, gather};
use recfm_core::history::{HistoryIndex, Horizon};
use recfm_core::metrics::{self, Weighting};
use recfm_core::stop::Stop;
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
    let (mut bytes, mut ends, mut bits) =
        (vec![], vec![0_i64], vec![0_u8; input.strings.len() / 8 + 1]);
    for (row, string) in input.strings.iter().enumerate() {
        bytes.extend(string.as_deref().unwrap_or_default().as_bytes());
        ends.push(bytes.len() as i64);
        bits[row / 8] |= u8::from(string.is_some()) << (row % 8);
    }
    let strings = Values::Strs {
        strs: Strs::Offsets64(&ends, &bytes),
        valid: Some(Bits {
            bytes: &bits,
            offset: 0,
        }),
    };
    for (values, n) in [(ints, input.ints.len()), (strings, input.strings.len())] {
        let keys = input.keys.iter().map(|&key| u32::from(key));
        let keys: Vec<_> = keys
            .map(|key| if (key as usize) < n { key } else { u32::MAX })
            .collect();
        let chunks = [Chunk::new(values.clone()), Chunk::new(values).select(keys)];
        if let Ok(vocab) = Vocab::from_values(&chunks[..1], &input.counts, "x") {
            let ids = encode(Encoding::Vocab(&vocab), &chunks)
                .expect("a vocabulary encodes its own kind");
            assert!(
                ids[..n]
                    .iter()
                    .enumerate()
                    .all(|(i, &id)| id as usize == i + 2)
            );
        }
        let fitted = Vocab::fit(&chunks, "x", 1).expect("any column can be fitted");
        encode(Encoding::Vocab(&fitted), &chunks).expect("a vocabulary encodes its own column");
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

    let never = Stop::new();
    if let Ok(index) = HistoryIndex::new(&rows, &wide(&input.times), None, &never) {
        let length = i64::from(input.length % 9);
        let horizon = Horizon {
            length,
            delay: input.delay,
            max_age: None,
        };
        let (part, times) = (index.part(), wide(&input.times));
        if let Ok((start, stop)) = part.window(&rows, &times, horizon, &never) {
            let values: Vec<_> = (0..part.len()).map(|i| i as f32).collect();
            let store = Store {
                values: values.as_slice().into(),
                dim: 1,
                pairs: &[],
            };
            let shape = (length as usize, 1);
            let mut out = vec![0.0_f32; start.len() * length as usize];
            gather(&[part], &[store], &start, &stop, &mut out, shape).expect("windows fit");
            let mut wild = vec![0.0_f32; rows.len()];
            let _ = gather(&[part], &[store], &rows, &times, &mut wild, (1, 1));
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
