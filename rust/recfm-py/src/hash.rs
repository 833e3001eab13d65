//! Hashed ids and keys.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use recfm_core::hash;

use crate::column::Column;
use crate::error::detached;
use crate::vocab::Lists;

/// Hash seed of a feature.
#[pyfunction]
pub fn seed_of(name: &str) -> u64 {
    hash::seed_of(name)
}

/// Each value as one of `buckets` ids; 1 for null.
#[pyfunction]
#[pyo3(signature = (column, *, name, buckets))]
pub fn hash_ids<'py>(
    column: &Bound<'py, PyAny>,
    name: &str,
    buckets: i64,
) -> PyResult<Bound<'py, PyArray1<i32>>> {
    let py = column.py();
    let column = Column::read(column, name)?;
    Ok(detached(py, || hash::hash_ids(&column.chunks()?, name, buckets))?.into_pyarray(py))
}

/// Each list's elements as ids, and the offsets of the lists in them.
#[pyfunction]
#[pyo3(signature = (column, *, name, buckets))]
pub fn hash_lists<'py>(
    column: &Bound<'py, PyAny>,
    name: &str,
    buckets: i64,
) -> PyResult<Lists<'py>> {
    let py = column.py();
    let column = Column::read(column, name)?;
    let (ids, offsets) = detached(py, || {
        let (elements, offsets) = column.elements()?;
        Ok((hash::hash_ids(&elements.chunks()?, name, buckets)?, offsets))
    })?;
    Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
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
