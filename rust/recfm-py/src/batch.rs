//! Batches: which rows, and their copies.

use numpy::{Element, IntoPyArray, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::shuffle::{self, BatchAt};
use recfm_core::take;

use crate::array::{holds, mismatch, ndim, readonly, writable};
use crate::encode::Lists;
use crate::error::detached;

/// The rows of one batch of an epoch.
#[pyfunction]
#[pyo3(signature = (n, batch_size, *, seed, epoch, index, shuffle))]
pub fn batch_rows(
    py: Python<'_>,
    n: i64,
    batch_size: i64,
    seed: i64,
    epoch: i64,
    index: i64,
    shuffle: bool,
) -> PyResult<Bound<'_, PyArray1<i64>>> {
    let at = BatchAt {
        n,
        batch_size,
        seed: seed as u64,
        epoch: epoch as u64,
        index,
        shuffle,
    };
    Ok(detached(py, || shuffle::batch_rows(at))?.into_pyarray(py))
}

/// Copies `src[rows]` to `out`.
#[pyfunction]
pub fn take_rows(
    src: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if holds::<i32>(src) {
        take_rows_of::<i32>(src, rows, out)
    } else if holds::<f32>(src) {
        take_rows_of::<f32>(src, rows, out)
    } else if holds::<i64>(src) {
        take_rows_of::<i64>(src, rows, out)
    } else {
        Err(mismatch(
            src,
            "src",
            "an int32, float32 or int64 array with 1 or 2 dimensions",
        ))
    }
}

fn take_rows_of<T: Element + Copy>(
    src: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let ndim = ndim(src).clamp(1, 2);
    let source = readonly::<T>(src, "src", ndim)?;
    let rows = readonly::<i64>(rows, "rows", 1)?;
    let mut target = writable::<T>(out, "out", ndim)?;
    let width = source.shape()[1..].iter().product();
    let expected: Vec<_> = std::iter::once(rows.len())
        .chain(source.shape()[1..].iter().copied())
        .collect();
    if target.shape() != expected {
        return Err(mismatch(out, "out", &format!("of shape {expected:?}")));
    }
    let (source, rows, target) = (source.as_slice()?, rows.as_slice()?, target.as_slice_mut()?);
    detached(src.py(), || take::take_rows(source, width, rows, target))
}

/// The lists `rows` of a jagged table.
#[pyfunction]
pub fn take_lists<'py>(
    values: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    rows: &Bound<'py, PyAny>,
) -> PyResult<Lists<'py>> {
    let py = values.py();
    let values = readonly::<i32>(values, "values", 1)?;
    let offsets = readonly::<i64>(offsets, "offsets", 1)?;
    let rows = readonly::<i64>(rows, "rows", 1)?;
    let (values, offsets, rows) = (values.as_slice()?, offsets.as_slice()?, rows.as_slice()?);
    let (values, offsets) = detached(py, || take::take_lists(values, offsets, rows))?;
    Ok((values.into_pyarray(py), offsets.into_pyarray(py)))
}
