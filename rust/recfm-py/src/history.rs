//! `recfm._core.HistoryIndex`.

use half::f16;
use half::slice::HalfBitsSliceExt;
use numpy::{Element, IntoPyArray, PyArray1, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::gather::{Store, Stored, gather};
use recfm_core::history::HistoryIndex as CoreIndex;

use crate::array::{holds, mismatch, readonly, writable};
use crate::error::detached;

/// Per user, the events in time order.
#[pyclass(frozen, module = "recfm._core")]
pub struct HistoryIndex(CoreIndex);

/// Starts and stops of windows.
type Windows<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

#[pymethods]
impl HistoryIndex {
    #[new]
    fn new(user: &Bound<'_, PyAny>, time: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = user.py();
        let user = readonly::<i64>(user, "user", 1)?;
        let time = readonly::<i64>(time, "time", 1)?;
        let (user, time) = (user.as_slice()?, time.as_slice()?);
        detached(py, || CoreIndex::new(user, time)).map(Self)
    }

    /// The newest `length` events of each user strictly before `time - delay`, as ranges in `rows()`.
    #[pyo3(signature = (user, time, *, length, delay))]
    fn window<'py>(
        &self,
        user: &Bound<'py, PyAny>,
        time: &Bound<'py, PyAny>,
        length: i64,
        delay: i64,
    ) -> PyResult<Windows<'py>> {
        let py = user.py();
        let user = readonly::<i64>(user, "user", 1)?;
        let time = readonly::<i64>(time, "time", 1)?;
        let (user, time) = (user.as_slice()?, time.as_slice()?);
        let (start, stop) = detached(py, || self.0.window(user, time, length, delay))?;
        Ok((start.into_pyarray(py), stop.into_pyarray(py)))
    }

    /// Fills `out` with the stored rows of each window, newest first, and zeros behind them.
    fn gather(
        &self,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        store: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if holds::<f32>(store) {
            self.fill::<f32, f32, f32>(start, stop, store, out, |values| values)
        } else if holds::<i32>(store) {
            self.fill::<i32, i32, i32>(start, stop, store, out, |values| values)
        } else if holds::<f16>(store) {
            self.fill::<f16, f16, f32>(start, stop, store, out, |values| values)
        } else if holds::<u16>(store) {
            self.fill::<u16, f16, f32>(start, stop, store, out, HalfBitsSliceExt::reinterpret_cast)
        } else {
            Err(mismatch(
                store,
                "store",
                "a float32, int32, float16 or uint16 (float16 bits) array",
            ))
        }
    }

    /// Positions of the events, as given, ordered by (user, time, position).
    fn rows<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_slice(py, self.0.rows())
    }

    #[getter]
    fn num_users(&self) -> usize {
        self.0.num_users()
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!(
            "HistoryIndex(events={}, users={})",
            self.0.len(),
            self.0.num_users()
        )
    }
}

impl HistoryIndex {
    /// `view` reads the store's elements as what they stand for.
    fn fill<In: Element + Sync, As: Stored<Out>, Out: Element + Default + Copy>(
        &self,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        store: &Bound<'_, PyAny>,
        target: &Bound<'_, PyAny>,
        view: fn(&[In]) -> &[As],
    ) -> PyResult<()> {
        let start = readonly::<i64>(start, "start", 1)?;
        let stop = readonly::<i64>(stop, "stop", 1)?;
        let store = readonly::<In>(store, "store", 2)?;
        let mut out = writable::<Out>(target, "out", 3)?;
        let (dim, length) = (store.shape()[1], out.shape()[1]);
        let expected = [start.len(), length, dim];
        if out.shape() != expected {
            return Err(mismatch(
                target,
                "out",
                &format!("of shape {expected:?} (windows, length, stored dim)"),
            ));
        }
        let start = start.as_slice()?;
        let stop = stop.as_slice()?;
        let store = store.as_slice()?;
        let out = out.as_slice_mut()?;
        let store = Store {
            values: view(store),
            dim,
        };
        detached(target.py(), || {
            gather(&self.0, start, stop, store, out, length)
        })
    }
}
