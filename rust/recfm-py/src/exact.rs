//! `recfm._core.ExactMoments`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use recfm_core::Result;
use recfm_core::exact::ExactMoments as CoreMoments;

use crate::array::readonly;
use crate::error::{detached, raised};

/// Count, mean, standard deviation and range, exact until they are read.
#[pyclass(frozen, module = "recfm._core")]
#[derive(Default)]
pub struct ExactMoments(Mutex<CoreMoments>);

impl ExactMoments {
    /// No update leaves moments half done, so those that a panic poisoned are as good as any.
    fn inner(&self) -> MutexGuard<'_, CoreMoments> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, py: Python<'_>, moment: fn(&CoreMoments) -> Result<f64>) -> PyResult<f64> {
        detached(py, || moment(&self.inner()))
    }
}

#[pymethods]
impl ExactMoments {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes values in.
    fn update(&self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = values.py();
        let values = readonly::<f64>(values, "values", 1)?;
        let values = values.as_slice()?;
        detached(py, || self.inner().update(values))
    }

    /// Takes in what other moments were made of.
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        detached(py, || {
            let other = other.inner().clone(); // never two locks at once: both could be the same
            self.inner().merge(&other)
        })
    }

    #[getter]
    fn count(&self, py: Python<'_>) -> u64 {
        py.detach(|| self.inner().count())
    }

    #[getter]
    fn min(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CoreMoments::min)
    }

    #[getter]
    fn max(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CoreMoments::max)
    }

    /// Mean, rounded once.
    fn mean(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CoreMoments::mean)
    }

    /// Standard deviation of the population, rounded once.
    fn std(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CoreMoments::std)
    }

    /// The moments as bytes.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.inner().to_bytes()))
    }

    /// Reads what `to_bytes` wrote.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let moments = CoreMoments::from_bytes(data).map_err(|error| raised(py, &error))?;
        Ok(Self(Mutex::new(moments)))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let restore = py.get_type::<Self>().getattr("from_bytes")?;
        Ok((restore, (self.to_bytes(py),)))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("ExactMoments(count={})", self.count(py))
    }
}
