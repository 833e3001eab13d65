//! Saved states from anywhere: refused, or read without a panic and written back as the same bytes.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run states`. The checksum is made right, or nothing behind it would be reached.

#![no_main]

use libfuzzer_sys::fuzz_target;
use recfm_core::exact::ExactMoments;
use recfm_core::metrics::{Bins, Predictions, Weighting};
use xxhash_rust::xxh3::xxh3_64;

const MOMENTS_BYTES: usize = 848;

fuzz_target!(|data: &[u8]| {
    let mut moments = b"recfmEM1".to_vec();
    moments.extend(data);
    moments.resize(MOMENTS_BYTES - 8, 0);
    if let Ok(read) = ExactMoments::from_bytes(&stamped(moments.clone())) {
        assert_eq!(read.to_bytes(), stamped(moments));
        let mut twice = read.clone();
        let _ = twice.merge(&read);
        let _ = (read.mean(), read.std(), read.min(), twice.std());
    }
    let mut rows = b"recfmPR1".to_vec();
    rows.extend(data);
    if let Ok(mut read) = Predictions::from_bytes(&stamped(rows.clone())) {
        assert_eq!(read.to_bytes(), stamped(rows));
        let _ = (read.auc(), read.gauc(Weighting::Positives), read.logloss());
        let _ = (read.normalized_entropy(), read.calibration());
        let _ = (
            read.reliability(Bins::Count, 7),
            read.reliability(Bins::Width, 7),
        );
        let before = read.len();
        read.merge(read.clone())
            .expect("rows merge with themselves");
        assert_eq!(read.len(), 2 * before);
    }
    let _ = (
        ExactMoments::from_bytes(data),
        Predictions::from_bytes(data),
    );
});

fn stamped(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}
