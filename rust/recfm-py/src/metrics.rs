//! Metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use recfm_core::Result;
use recfm_core::metrics::{self, Bins, Gauc, Predictions as CorePredictions, Weighting};

use crate::array::readonly;
use crate::error::{detached, raised};

/// Area under the ROC curve; ties count half.
#[pyfunction]
pub fn auc(label: &Bound<'_, PyAny>, score: &Bound<'_, PyAny>) -> PyResult<f64> {
    let py = label.py();
    let label = readonly::<f32>(label, "label", 1)?;
    let score = readonly::<f64>(score, "score", 1)?;
    let (label, score) = (label.as_slice()?, score.as_slice()?);
    detached(py, || metrics::auc(label, score))
}

/// Weighted mean AUC of the groups, groups used, groups dropped.
#[pyfunction]
#[pyo3(signature = (group, label, score, weighting = "impressions"))]
pub fn gauc(
    group: &Bound<'_, PyAny>,
    label: &Bound<'_, PyAny>,
    score: &Bound<'_, PyAny>,
    weighting: &str,
) -> PyResult<GroupAuc> {
    let py = group.py();
    let group = readonly::<i64>(group, "group", 1)?;
    let label = readonly::<f32>(label, "label", 1)?;
    let score = readonly::<f64>(score, "score", 1)?;
    let (group, label, score) = (group.as_slice()?, label.as_slice()?, score.as_slice()?);
    detached(py, || {
        metrics::gauc(group, label, score, Weighting::named(weighting)?).map(told)
    })
}

/// Value, groups used, groups dropped.
type GroupAuc = (f64, usize, usize);

fn told(gauc: Gauc) -> GroupAuc {
    (gauc.value, gauc.used, gauc.dropped)
}

/// Mean negative log-likelihood in nats.
#[pyfunction]
pub fn logloss(label: &Bound<'_, PyAny>, probability: &Bound<'_, PyAny>) -> PyResult<f64> {
    let py = label.py();
    let label = readonly::<f32>(label, "label", 1)?;
    let probability = readonly::<f64>(probability, "probability", 1)?;
    let (label, probability) = (label.as_slice()?, probability.as_slice()?);
    detached(py, || metrics::logloss(label, probability))
}

/// Log loss over the entropy of the base rate.
#[pyfunction]
pub fn normalized_entropy(
    label: &Bound<'_, PyAny>,
    probability: &Bound<'_, PyAny>,
) -> PyResult<f64> {
    let py = label.py();
    let label = readonly::<f32>(label, "label", 1)?;
    let probability = readonly::<f64>(probability, "probability", 1)?;
    let (label, probability) = (label.as_slice()?, probability.as_slice()?);
    detached(py, || metrics::normalized_entropy(label, probability))
}

/// Mean prediction over mean label.
#[pyfunction]
pub fn calibration(label: &Bound<'_, PyAny>, probability: &Bound<'_, PyAny>) -> PyResult<f64> {
    let py = label.py();
    let label = readonly::<f32>(label, "label", 1)?;
    let probability = readonly::<f64>(probability, "probability", 1)?;
    let (label, probability) = (label.as_slice()?, probability.as_slice()?);
    detached(py, || metrics::calibration(label, probability))
}

/// Predictions that arrive in parts.
#[pyclass(frozen, module = "recfm._core")]
#[derive(Default)]
pub struct Predictions(Mutex<CorePredictions>);

impl Predictions {
    /// No update leaves rows half added, so those that a panic poisoned are as good as any.
    fn inner(&self) -> MutexGuard<'_, CorePredictions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: Send>(
        &self,
        py: Python<'_>,
        metric: impl FnOnce(&CorePredictions) -> Result<T> + Send,
    ) -> PyResult<T> {
        detached(py, || metric(&self.inner()))
    }
}

#[pymethods]
impl Predictions {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Takes rows in.
    #[pyo3(signature = (label, probability, user = None))]
    fn update(
        &self,
        label: &Bound<'_, PyAny>,
        probability: &Bound<'_, PyAny>,
        user: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = label.py();
        let label = readonly::<f32>(label, "label", 1)?;
        let probability = readonly::<f64>(probability, "probability", 1)?;
        let user = user.map(|user| readonly::<i64>(user, "user", 1));
        let user = user.transpose()?;
        let (label, probability) = (label.as_slice()?, probability.as_slice()?);
        let user = user.as_ref().map(|user| user.as_slice()).transpose()?;
        detached(py, || self.inner().update(label, probability, user))
    }

    /// Takes in the rows of another.
    fn merge(&self, py: Python<'_>, other: &Self) -> PyResult<()> {
        detached(py, || {
            let other = other.inner().clone(); // never two locks at once: both could be the same
            self.inner().merge(other)
        })
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.inner().len())
    }

    #[getter]
    fn nbytes(&self, py: Python<'_>) -> usize {
        py.detach(|| self.inner().nbytes())
    }

    #[getter]
    fn has_users(&self, py: Python<'_>) -> bool {
        py.detach(|| self.inner().has_users())
    }

    /// Area under the ROC curve.
    fn auc(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CorePredictions::auc)
    }

    /// Weighted mean AUC of the users, users used, users dropped.
    #[pyo3(signature = (weighting = "impressions"))]
    fn gauc(&self, py: Python<'_>, weighting: &str) -> PyResult<GroupAuc> {
        self.read(py, |rows| rows.gauc(Weighting::named(weighting)?).map(told))
    }

    /// Mean negative log-likelihood in nats.
    fn logloss(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CorePredictions::logloss)
    }

    /// Log loss over the entropy of the base rate.
    fn normalized_entropy(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CorePredictions::normalized_entropy)
    }

    /// Mean prediction over mean label.
    fn calibration(&self, py: Python<'_>) -> PyResult<f64> {
        self.read(py, CorePredictions::calibration)
    }

    /// Bins of probability, and the expected calibration error.
    #[pyo3(signature = (bins = 10, by = "width"))]
    fn reliability<'py>(&self, py: Python<'py>, bins: i64, by: &str) -> PyResult<Table<'py>> {
        let found = self.read(py, |rows| rows.reliability(Bins::named(by)?, bins))?;
        let (bins, error) = (found.bins, found.error);
        let whole = |number: fn(&metrics::Bin) -> usize| -> Vec<i64> {
            bins.iter().map(|bin| number(bin) as i64).collect()
        };
        let probability: Vec<_> = bins.iter().map(|bin| bin.probability).collect();
        Ok((
            whole(|bin| bin.bin).into_pyarray(py),
            whole(|bin| bin.rows).into_pyarray(py),
            whole(|bin| bin.positives).into_pyarray(py),
            probability.into_pyarray(py),
            error,
        ))
    }

    /// The rows as bytes.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &py.detach(|| self.inner().to_bytes()))
    }

    /// Reads what `to_bytes` wrote.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let rows = CorePredictions::from_bytes(data).map_err(|error| raised(py, &error))?;
        Ok(Self(Mutex::new(rows)))
    }

    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let restore = py.get_type::<Self>().getattr("from_bytes")?;
        Ok((restore, (self.to_bytes(py),)))
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!("Predictions(rows={})", self.__len__(py))
    }
}

/// Bin, rows, positives, mean probability; expected calibration error.
type Table<'py> = (
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<i64>>,
    Bound<'py, PyArray1<f64>>,
    f64,
);
