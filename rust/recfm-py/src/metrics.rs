//! Metrics.

use pyo3::prelude::*;
use recfm_core::metrics;

use crate::array::readonly;
use crate::error::detached;

/// Area under the ROC curve; ties count half.
#[pyfunction]
pub fn auc(label: &Bound<'_, PyAny>, score: &Bound<'_, PyAny>) -> PyResult<f64> {
    let py = label.py();
    let label = readonly::<f32>(label, "label", 1)?;
    let score = readonly::<f64>(score, "score", 1)?;
    let (label, score) = (label.as_slice()?, score.as_slice()?);
    detached(py, || metrics::auc(label, score))
}

/// Mean AUC of the groups weighted by their rows, groups used, groups dropped.
#[pyfunction]
pub fn gauc(
    group: &Bound<'_, PyAny>,
    label: &Bound<'_, PyAny>,
    score: &Bound<'_, PyAny>,
) -> PyResult<(f64, usize, usize)> {
    let py = group.py();
    let group = readonly::<i64>(group, "group", 1)?;
    let label = readonly::<f32>(label, "label", 1)?;
    let score = readonly::<f64>(score, "score", 1)?;
    let (group, label, score) = (group.as_slice()?, label.as_slice()?, score.as_slice()?);
    let gauc = detached(py, || metrics::gauc(group, label, score))?;
    Ok((gauc.value, gauc.used, gauc.dropped))
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
