//! Core errors as the classes of `recfm.errors`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use recfm_core::{Error, ErrorKind, Result};

/// Runs `work` with the interpreter released and raises what it reports.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| raised(py, &error))
}

/// The Python exception for a core error.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match class(py, error.kind()) {
        Ok(class) => PyErr::from_type(class.clone(), error.to_string()),
        Err(import_failed) => import_failed,
    }
}

fn class(py: Python<'_>, kind: ErrorKind) -> PyResult<&Bound<'_, PyType>> {
    static SCHEMA: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static DATA: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static METRIC: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static STORAGE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static CONFIG: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (cell, name) = match kind {
        ErrorKind::Schema => (&SCHEMA, "SchemaError"),
        ErrorKind::Data => (&DATA, "DataError"),
        ErrorKind::Metric => (&METRIC, "MetricError"),
        ErrorKind::Storage => (&STORAGE, "StorageError"),
        ErrorKind::Config => (&CONFIG, "ConfigError"),
    };
    cell.import(py, "recfm.errors", name)
}
