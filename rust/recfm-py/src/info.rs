//! What was built and how it runs.

use std::collections::BTreeMap;

use pyo3::prelude::*;

use crate::error::detached;

/// Version, profile, target and threads of this build.
#[pyfunction]
pub fn build_info(py: Python<'_>) -> PyResult<BTreeMap<&'static str, String>> {
    Ok(BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "profile",
            if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            }
            .to_owned(),
        ),
        ("target", env!("RECFM_TARGET").to_owned()),
        ("threads", num_threads(py)?.to_string()),
    ]))
}

/// Number of threads in the pool of this process.
#[pyfunction]
pub fn num_threads(py: Python<'_>) -> PyResult<usize> {
    detached(py, recfm_core::pool::num_threads)
}
