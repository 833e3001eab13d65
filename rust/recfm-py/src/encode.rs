//! Many columns to one matrix of ids.

use numpy::{IntoPyArray, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::Result;
use recfm_core::encode::{self, Encoding, encode_columns, keep_newest};

use crate::array::{mismatch, writable};
use crate::column::Column;
use crate::error::detached;
use crate::hash::Hasher;
use crate::vocab::Vocab;

/// Jagged ids: values, and offsets with one entry more than rows.
pub type Lists<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i64>>);

#[derive(FromPyObject)]
pub enum Encoder<'py> {
    Vocab(PyRef<'py, Vocab>),
    Hash(PyRef<'py, Hasher>),
}

impl Encoder<'_> {
    fn encoding(&self) -> Encoding<'_> {
        match self {
            Self::Vocab(vocab) => Encoding::Vocab(&vocab.0),
            Self::Hash(hasher) => Encoding::Hash(&hasher.0),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Vocab(vocab) => vocab.0.name(),
            Self::Hash(hasher) => hasher.0.name(),
        }
    }
}

/// Fills `out [n, columns]` with the ids of the columns.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "pyo3 extracts lists as vectors"
)]
pub fn encode_ids(
    columns: Vec<Bound<'_, PyAny>>,
    encoders: Vec<Encoder<'_>>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut target = writable::<i32>(out, "out", 2)?;
    if encoders.len() != columns.len() || target.shape()[1] != columns.len() {
        let wanted = format!("of {} columns, with an encoder for each", columns.len());
        return Err(mismatch(out, "out", &wanted));
    }
    let read = columns.iter().zip(&encoders);
    let columns = read
        .map(|(column, encoder)| Column::read(column, encoder.name()))
        .collect::<PyResult<Vec<_>>>()?;
    let encodings: Vec<_> = encoders.iter().map(Encoder::encoding).collect();
    let target = target.as_slice_mut()?;
    detached(out.py(), || {
        let chunks: Vec<_> = columns.iter().map(Column::chunks).collect::<Result<_>>()?;
        let pairs = encodings.iter().zip(&chunks);
        let columns: Vec<_> = pairs
            .map(|(&encoding, chunks)| encode::Column::new(encoding, chunks))
            .collect::<Result<_>>()?;
        encode_columns(&columns, target)
    })
}

/// The ids of every list's elements, of each list the newest `max_length`.
pub fn lists<'py>(
    column: &Bound<'py, PyAny>,
    encoding: Encoding<'_>,
    name: &str,
    max_length: Option<usize>,
) -> PyResult<Lists<'py>> {
    let py = column.py();
    let column = Column::read(column, name)?;
    let (ids, offsets) = detached(py, || {
        let (elements, offsets) = column.elements()?;
        let ids = encode::encode(encoding, &elements.chunks()?)?;
        Ok(match max_length {
            Some(length) => keep_newest(&ids, &offsets, length),
            None => (ids, offsets),
        })
    })?;
    Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
}
