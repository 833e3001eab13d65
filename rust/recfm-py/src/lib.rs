//! The extension module `recfm._core`: extract, detach, call `recfm-core`, wrap.
//!
//! Its documentation for users is the stub, `python/recfm/_core.pyi`.

mod array;
mod arrow;
mod batch;
mod blocks;
mod column;
mod encode;
mod error;
mod exact;
mod export;
mod hash;
mod history;
mod info;
mod keys;
mod layers;
mod metrics;
mod parts;
mod stored;
mod tables;
mod vocab;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::batch::{batch_rows, fill_rows, take_lists, take_rows};
    #[pymodule_export]
    use crate::blocks::{BlockWriter, read_regions};
    #[pymodule_export]
    use crate::encode::encode_ids;
    #[pymodule_export]
    use crate::exact::ExactMoments;
    #[pymodule_export]
    use crate::export::{ArrowArray, ArrowChunks};
    #[pymodule_export]
    use crate::hash::{Hasher, checksum, hash_keys, seed_of};
    #[pymodule_export]
    use crate::history::{HistoryIndex, fill_slots};
    #[pymodule_export]
    use crate::info::{build_info, num_threads};
    #[pymodule_export]
    use crate::keys::KeyIndex;
    #[pymodule_export]
    use crate::layers::{hidden_backward, hidden_forward, small_norm_backward, small_norm_forward};
    #[pymodule_export]
    use crate::metrics::{Predictions, auc, calibration, gauc, logloss, normalized_entropy};
    #[pymodule_export]
    use crate::parts::{gather_parts, window_of_parts};
    #[pymodule_export]
    use crate::stored::{Blocks, block_sums, joint_key, quantize_rows, uniform_codebook};
    #[pymodule_export]
    use crate::tables::{adam_rows, fill_bell, lookup_rows, rowwise_adagrad};
    #[pymodule_export]
    use crate::vocab::{Vocab, VocabBuilder};
}
