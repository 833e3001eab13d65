//! Hashed ids and keys.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use recfm_core::encode::Encoding;
use recfm_core::hash;

use crate::array::readonly;
use crate::column::Column;
use crate::encode::{Lists, lists};
use crate::error::{detached, raised};

/// Hashes the values of one feature to ids.
#[pyclass(frozen, module = "recfm._core")]
pub struct Hasher(pub hash::Hasher);

#[pymethods]
impl Hasher {
    #[new]
    #[pyo3(signature = (*, name, buckets))]
    fn new(py: Python<'_>, name: &str, buckets: i64) -> PyResult<Self> {
        hash::Hasher::new(name, buckets)
            .map(Self)
            .map_err(|error| raised(py, &error))
    }

    /// The id of every row; 1 for null.
    fn encode<'py>(&self, column: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let py = column.py();
        let column = Column::read(column, self.0.name())?;
        let encoding = Encoding::Hash(&self.0);
        let ids = detached(py, || {
            recfm_core::encode::encode(encoding, &column.chunks()?)
        })?;
        Ok(ids.into_pyarray(py))
    }

    /// The ids of every list's elements, and the offsets of the lists in them.
    #[pyo3(signature = (column, *, max_length = None))]
    fn encode_lists<'py>(
        &self,
        column: &Bound<'py, PyAny>,
        max_length: Option<usize>,
    ) -> PyResult<Lists<'py>> {
        lists(column, Encoding::Hash(&self.0), self.0.name(), max_length)
    }

    fn __len__(&self) -> usize {
        self.0.rows()
    }

    fn __repr__(&self) -> String {
        format!(
            "Hasher(name='{}', buckets={})",
            self.0.name(),
            self.0.rows()
        )
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }
}

/// Hash seed of a feature.
#[pyfunction]
pub fn seed_of(name: &str) -> u64 {
    hash::seed_of(name)
}

/// 64-bit keys of users or items.
#[pyfunction]
#[pyo3(signature = (column, *, name))]
pub fn hash_keys<'py>(
    column: &Bound<'py, PyAny>,
    name: &str,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let py = column.py();
    let column = Column::read(column, name)?;
    Ok(detached(py, || hash::hash_keys(&column.chunks()?, name))?.into_pyarray(py))
}

/// XXH3 of an array's bytes.
#[pyfunction]
pub fn checksum(bytes: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = bytes.py();
    let bytes = readonly::<u8>(bytes, "bytes", 1)?;
    let bytes = bytes.as_slice()?;
    detached(py, || Ok(hash::checksum(bytes)))
}
