//! `recfm._core.KeyIndex`.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use recfm_core::keys::KeyIndex as CoreIndex;

use crate::array::readonly;
use crate::error::detached;

/// From a key to the row of a side table that holds it.
#[pyclass(frozen, module = "recfm._core")]
pub struct KeyIndex(CoreIndex);

#[pymethods]
impl KeyIndex {
    #[new]
    #[pyo3(signature = (keys, *, name))]
    fn new(keys: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let py = keys.py();
        let keys = readonly::<i64>(keys, "keys", 1)?;
        let keys = keys.as_slice()?;
        detached(py, || CoreIndex::new(keys, name)).map(Self)
    }

    /// The number of each key, from 1; 0 for a stranger.
    fn rows<'py>(&self, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let py = keys.py();
        let keys = readonly::<i64>(keys, "keys", 1)?;
        let keys = keys.as_slice()?;
        let mut rows = vec![0; keys.len()];
        detached(py, || self.0.rows(keys, &mut rows))?;
        Ok(rows.into_pyarray(py))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }
}
