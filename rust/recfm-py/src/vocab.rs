//! `recfm._core.Vocab`.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyList;
use recfm_core::vocab::{Vocab as CoreVocab, VocabValues};

use crate::array::readonly;
use crate::column::Column;
use crate::error::{detached, raised};

/// The distinct values of a training column as dense ids.
#[pyclass(frozen, module = "recfm._core")]
pub struct Vocab(CoreVocab);

#[pymethods]
impl Vocab {
    /// Fits a vocabulary on a column, or on the elements of a list column.
    #[staticmethod]
    #[pyo3(signature = (column, *, name, min_count = 1))]
    fn fit(column: &Bound<'_, PyAny>, name: &str, min_count: i64) -> PyResult<Self> {
        let py = column.py();
        let column = Column::read(column, name)?
            .flat()
            .map_err(|error| raised(py, &error))?;
        detached(py, || CoreVocab::fit(&column.chunks()?, name, min_count)).map(Self)
    }

    /// Restores a vocabulary from its values in id order and their counts.
    #[staticmethod]
    #[pyo3(signature = (values, counts, *, name))]
    fn from_values(
        values: &Bound<'_, PyAny>,
        counts: &Bound<'_, PyAny>,
        name: &str,
    ) -> PyResult<Self> {
        let py = values.py();
        let values = Column::read(values, name)?;
        let counts = readonly::<i64>(counts, "counts", 1)?;
        let counts = counts.as_slice()?;
        detached(py, || {
            CoreVocab::from_values(&values.chunks()?, counts, name)
        })
        .map(Self)
    }

    /// The id of every row; 1 for null and for unseen values.
    fn encode<'py>(&self, column: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let py = column.py();
        let column = Column::read(column, self.0.name())?;
        Ok(detached(py, || self.0.encode(&column.chunks()?))?.into_pyarray(py))
    }

    /// The ids of every list's elements, and the offsets of the lists in them.
    fn encode_lists<'py>(&self, column: &Bound<'py, PyAny>) -> PyResult<Lists<'py>> {
        let py = column.py();
        let column = Column::read(column, self.0.name())?;
        let (ids, offsets) = detached(py, || {
            let (elements, offsets) = column.elements()?;
            Ok((self.0.encode(&elements.chunks()?)?, offsets))
        })?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    fn __len__(&self) -> usize {
        self.0.rows()
    }

    fn __repr__(&self) -> String {
        format!(
            "Vocab(name='{}', kind='{}', rows={})",
            self.0.name(),
            self.0.kind(),
            self.0.rows()
        )
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn kind(&self) -> String {
        self.0.kind().to_string()
    }

    /// The values in id order, the first of them id 2.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match self.0.values() {
            VocabValues::Int(values) => PyList::new(py, values),
            VocabValues::Str(values) => PyList::new(py, values.iter().map(|value| &**value)),
        }
    }

    /// How often each value occurred in the fit, in id order.
    fn counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_slice(py, self.0.counts())
    }
}

/// Jagged ids: values, and offsets with one entry more than rows.
pub type Lists<'py> = (Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<i64>>);
