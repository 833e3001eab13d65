//! The extension module `recfm._core`: extract, detach, call `recfm-core`, wrap.
//!
//! Its documentation for users is the stub, `python/recfm/_core.pyi`.

mod array;
mod arrow;
mod batch;
mod column;
mod error;
mod hash;
mod history;
mod info;
mod metrics;
mod stored;
mod vocab;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::batch::{batch_rows, take_lists, take_rows};
    #[pymodule_export]
    use crate::hash::{hash_ids, hash_keys, hash_lists, seed_of};
    #[pymodule_export]
    use crate::history::{HistoryIndex, fill_slots, gather_parts, window_of_parts};
    #[pymodule_export]
    use crate::info::{build_info, num_threads};
    #[pymodule_export]
    use crate::metrics::{auc, gauc, logloss, normalized_entropy};
    #[pymodule_export]
    use crate::stored::{Blocks, block_sums, joint_key, quantize_rows, uniform_codebook};
    #[pymodule_export]
    use crate::vocab::Vocab;
}
