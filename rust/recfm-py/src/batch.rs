//! Batches: which rows, and their copies.

use numpy::{
    Element, IntoPyArray, PyArray1, PyReadonlyArrayDyn, PyReadwriteArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use recfm_core::batch::{self, Column, Epoch, Table};
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

/// Fills the row numbers and every column of some batches.
#[pyfunction]
#[pyo3(signature = (n, ranges, rows, columns, *, served, offset, seed, epoch, shuffle))]
#[allow(clippy::too_many_arguments, clippy::needless_pass_by_value)] // keywords in Python, extracted values
pub fn fill_rows(
    py: Python<'_>,
    n: i64,
    ranges: Vec<(i64, i64)>,
    rows: &Bound<'_, PyAny>,
    columns: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    served: Option<Bound<'_, PyAny>>,
    offset: i64,
    seed: i64,
    epoch: i64,
    shuffle: bool,
) -> PyResult<()> {
    let served = served
        .map(|served| readonly::<i64>(&served, "served", 1))
        .transpose()?;
    let mut rows = writable::<i64>(rows, "rows", 1)?;
    let mut held = columns
        .iter()
        .map(|(src, out)| Held::new(src, out))
        .collect::<PyResult<Vec<_>>>()?;
    let columns = held
        .iter_mut()
        .map(Held::column)
        .collect::<PyResult<Vec<_>>>()?;
    let epoch = Epoch {
        n,
        served: served
            .as_ref()
            .map(|served| served.as_slice())
            .transpose()?,
        offset,
        seed: seed as u64,
        epoch: epoch as u64,
        shuffle,
    };
    let rows = rows.as_slice_mut()?;
    detached(py, || batch::fill(epoch, &ranges, rows, columns))
}

/// A table and its output, borrowed for a call.
struct Pair<'py, T: Element> {
    src: PyReadonlyArrayDyn<'py, T>,
    out: PyReadwriteArrayDyn<'py, T>,
}

enum Held<'py> {
    I32(Pair<'py, i32>),
    F32(Pair<'py, f32>),
    I64(Pair<'py, i64>),
}

impl<'py> Held<'py> {
    fn new(src: &Bound<'py, PyAny>, out: &Bound<'py, PyAny>) -> PyResult<Self> {
        if holds::<i32>(src) {
            Pair::new(src, out).map(Self::I32)
        } else if holds::<f32>(src) {
            Pair::new(src, out).map(Self::F32)
        } else if holds::<i64>(src) {
            Pair::new(src, out).map(Self::I64)
        } else {
            Err(mismatch(src, "src", TABLE))
        }
    }

    fn column(&mut self) -> PyResult<Column<'_>> {
        Ok(match self {
            Self::I32(pair) => Column::I32(pair.table()?),
            Self::F32(pair) => Column::F32(pair.table()?),
            Self::I64(pair) => Column::I64(pair.table()?),
        })
    }
}

impl<'py, T: Element> Pair<'py, T> {
    fn new(src: &Bound<'py, PyAny>, out: &Bound<'py, PyAny>) -> PyResult<Self> {
        let ndim = ndim(src).clamp(1, 2);
        let pair = Self {
            src: readonly::<T>(src, "src", ndim)?,
            out: writable::<T>(out, "out", ndim)?,
        };
        if pair.out.shape()[1..] != pair.src.shape()[1..] {
            let width = &pair.src.shape()[1..];
            return Err(mismatch(out, "out", &format!("rows of shape {width:?}")));
        }
        Ok(pair)
    }

    fn table(&mut self) -> PyResult<Table<'_, T>> {
        Ok(Table {
            width: self.src.shape()[1..].iter().product(),
            src: self.src.as_slice()?,
            out: self.out.as_slice_mut()?,
        })
    }
}

const TABLE: &str = "an int32, float32 or int64 array with 1 or 2 dimensions";

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
        Err(mismatch(src, "src", TABLE))
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
