//! Core errors as the classes of `recfm.errors`.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use recfm_core::stop::Stop;
use recfm_core::{Error, ErrorKind, Result};

/// Runs `work` with the interpreter released and raises what it reports.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| raised(py, &error))
}

/// Rows from which work gets a thread of its own, so that this one can listen.
const LONG: usize = 1 << 18;
/// How often a waiting thread looks for Ctrl-C.
const LISTEN: Duration = Duration::from_millis(50);

/// [`detached`] work over `rows` rows that Ctrl-C ends.
pub fn interruptible<T: Send>(
    py: Python<'_>,
    rows: usize,
    work: impl FnOnce(&Stop) -> Result<T> + Send,
) -> PyResult<T> {
    let stop = Stop::new();
    if rows < LONG {
        return detached(py, || work(&stop));
    }
    let (sender, mut receiver) = sync_channel(1);
    let mut signal = None;
    let done = thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            // The receiver waits until it has this, whatever signals come.
            let _ = sender.send(work(stop));
        });
        loop {
            let answer;
            (receiver, answer) = py.detach(move || {
                let answer = receiver.recv_timeout(LISTEN);
                (receiver, answer)
            });
            match answer {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(raised) = py.check_signals() {
                        stop.set();
                        signal = Some(raised);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None, // it panicked, and the scope says so
            }
        }
    });
    match (signal, done) {
        (Some(signal), _) => Err(signal),
        (None, Some(result)) => result.map_err(|error| raised(py, &error)),
        (None, None) => Err(raised(py, &Error::Interrupted)),
    }
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
    static CONFIG: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static STORAGE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (cell, name) = match kind {
        ErrorKind::Schema => (&SCHEMA, "SchemaError"),
        ErrorKind::Data => (&DATA, "DataError"),
        ErrorKind::Metric => (&METRIC, "MetricError"),
        ErrorKind::Config => (&CONFIG, "ConfigError"),
        ErrorKind::Storage => (&STORAGE, "StorageError"),
    };
    cell.import(py, "recfm.errors", name)
}
