//! `recfm._core.Vocab`.

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyList;
use recfm_core::encode::{Encoding, encode};
use recfm_core::vocab::{Vocab as CoreVocab, VocabBuilder as CoreBuilder, VocabValues};

use crate::array::readonly;
use crate::column::Column;
use crate::encode::{Lists, lists};
use crate::error::{detached, raised};
use crate::export::ArrowArray;

/// The distinct values of a training column as dense ids.
#[pyclass(frozen, module = "recfm._core")]
pub struct Vocab(pub CoreVocab);

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
        let encoding = Encoding::Vocab(&self.0);
        Ok(detached(py, || encode(encoding, &column.chunks()?))?.into_pyarray(py))
    }

    /// The ids of every list's elements, and the offsets of the lists in them.
    #[pyo3(signature = (column, *, max_length = None))]
    fn encode_lists<'py>(
        &self,
        column: &Bound<'py, PyAny>,
        max_length: Option<usize>,
    ) -> PyResult<Lists<'py>> {
        lists(column, Encoding::Vocab(&self.0), self.0.name(), max_length)
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
            VocabValues::Str(texts) => {
                let texts: Vec<_> = texts.iter().map(String::from_utf8_lossy).collect();
                PyList::new(py, texts)
            }
        }
    }

    /// The same as an Arrow array of int64 or large strings.
    fn arrow_values(&self) -> PyResult<ArrowArray> {
        match self.0.values() {
            VocabValues::Int(values) => Ok(ArrowArray::ints(values)),
            VocabValues::Str(texts) => {
                let (bytes, offsets) = texts.parts();
                ArrowArray::strings(bytes, offsets)
            }
        }
    }

    /// How often each value occurred in the fit, in id order.
    fn counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_slice(py, self.0.counts())
    }
}

/// A vocabulary in the making.
#[pyclass(module = "recfm._core")]
pub struct VocabBuilder {
    name: String,
    builder: CoreBuilder,
}

#[pymethods]
impl VocabBuilder {
    #[new]
    #[pyo3(signature = (*, name))]
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            builder: CoreBuilder::new(name),
        }
    }

    /// Counts these rows too, or the elements of these lists; row `i` counts `counts[i]` times where given.
    #[pyo3(signature = (column, counts = None))]
    fn add(
        &mut self,
        column: &Bound<'_, PyAny>,
        counts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = column.py();
        let column = Column::read(column, &self.name)?
            .flat()
            .map_err(|error| raised(py, &error))?;
        let counts = counts
            .map(|counts| readonly::<i64>(counts, "counts", 1))
            .transpose()?;
        let counts = counts
            .as_ref()
            .map(|counts| counts.as_slice())
            .transpose()?;
        detached(py, || self.builder.add(&column.chunks()?, counts))
    }

    /// The vocabulary of the values that came at least `min_count` times.
    #[pyo3(signature = (*, min_count = 1))]
    fn finish(&self, py: Python<'_>, min_count: i64) -> PyResult<Vocab> {
        detached(py, || self.builder.finish(min_count)).map(Vocab)
    }

    fn __len__(&self) -> usize {
        self.builder.len()
    }

    #[getter]
    fn kind(&self) -> Option<String> {
        self.builder.kind().map(|kind| kind.to_string())
    }

    /// Bytes that the counts take.
    #[getter]
    fn nbytes(&self) -> usize {
        self.builder.nbytes()
    }
}
