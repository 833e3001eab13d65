//! `recfm._core.HistoryIndex`: one part of a history, in memory or mapped.

use numpy::{
    Element, IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recfm_core::blocks::Column;
use recfm_core::history::{self, Horizon, Part, same_length};

use crate::array::{readonly, writable};
use crate::error::{detached, interruptible, raised};
use crate::parts::Gather;
use crate::stored::{Blocks, Reading};

/// Per user, the events in time order.
#[pyclass(frozen, module = "recfm._core")]
pub struct HistoryIndex {
    rows: Py<PyArray1<u32>>,
    times: Py<PyArray1<i64>>,
    users: Py<PyArray1<i64>>,
    offsets: Py<PyArray1<u32>>,
    slots: Py<PyArray1<u32>>,
    table: usize,
    blocks: Option<Py<Blocks>>,
}

/// Starts and stops of windows.
type Windows<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i64>>);

/// A [`HistoryIndex`] whose arrays are being read.
pub struct Held<'a, 'py> {
    rows: PyReadonlyArray1<'py, u32>,
    times: PyReadonlyArray1<'py, i64>,
    users: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, u32>,
    slots: PyReadonlyArray1<'py, u32>,
    table: usize,
    file: Option<Reading<'a, 'py>>,
}

impl Held<'_, '_> {
    pub fn part(&self) -> PyResult<Part<'_>> {
        let file = self.file.as_ref().map(Reading::blocks).transpose()?;
        Ok(Part {
            rows: Column::new(self.rows.as_slice()?, file),
            times: Column::new(self.times.as_slice()?, file),
            users: Column::new(self.users.as_slice()?, file),
            offsets: Column::new(self.offsets.as_slice()?, file),
            slots: Column::new(self.slots.as_slice()?, file),
            table: self.table,
        })
    }
}

/// Moves a column to an array, where nobody may write it.
fn column<T: Element>(py: Python<'_>, values: Vec<T>) -> PyResult<Py<PyArray1<T>>> {
    let array = values.into_pyarray(py);
    array.getattr("flags")?.setattr("writeable", false)?;
    Ok(array.unbind())
}

fn mapped<T: Element>(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Py<PyArray1<T>>> {
    readonly::<T>(object, name, 1)?;
    Ok(object.cast::<PyArray1<T>>()?.clone().unbind())
}

#[pymethods]
impl HistoryIndex {
    #[new]
    #[pyo3(signature = (user, time, keep=None))]
    fn new(
        user: &Bound<'_, PyAny>,
        time: &Bound<'_, PyAny>,
        keep: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let py = user.py();
        let user = readonly::<i64>(user, "user", 1)?;
        let time = readonly::<i64>(time, "time", 1)?;
        let keep = keep
            .map(|keep| readonly::<bool>(keep, "keep", 1))
            .transpose()?;
        let (user, time) = (user.as_slice()?, time.as_slice()?);
        let keep = keep
            .as_ref()
            .map(PyReadonlyArrayDyn::as_slice)
            .transpose()?;
        let built = interruptible(py, user.len(), |stop| {
            history::HistoryIndex::new(user, time, keep, stop)
        })?;
        Ok(Self {
            rows: column(py, built.rows)?,
            times: column(py, built.times)?,
            users: column(py, built.users)?,
            offsets: column(py, built.offsets)?,
            slots: column(py, built.slots)?,
            table: built.table,
            blocks: None,
        })
    }

    /// An index over columns that were saved before.
    #[staticmethod]
    #[pyo3(signature = (*, rows, times, users, offsets, slots, table, blocks))]
    fn mapped(
        rows: &Bound<'_, PyAny>,
        times: &Bound<'_, PyAny>,
        users: &Bound<'_, PyAny>,
        offsets: &Bound<'_, PyAny>,
        slots: &Bound<'_, PyAny>,
        table: usize,
        blocks: Option<Py<Blocks>>,
    ) -> PyResult<Self> {
        Ok(Self {
            rows: mapped(rows, "rows")?,
            times: mapped(times, "times")?,
            users: mapped(users, "users")?,
            offsets: mapped(offsets, "offsets")?,
            slots: mapped(slots, "slots")?,
            table,
            blocks,
        })
    }

    /// The newest `length` events of each user strictly before `time - delay`, as ranges in `rows()`.
    #[pyo3(signature = (user, time, *, length, delay, max_age=None))]
    fn window<'py>(
        &self,
        user: &Bound<'py, PyAny>,
        time: &Bound<'py, PyAny>,
        length: i64,
        delay: i64,
        max_age: Option<i64>,
    ) -> PyResult<Windows<'py>> {
        let py = user.py();
        let user = readonly::<i64>(user, "user", 1)?;
        let time = readonly::<i64>(time, "time", 1)?;
        let (user, time) = (user.as_slice()?, time.as_slice()?);
        let horizon = Horizon {
            length,
            delay,
            max_age,
        };
        let held = self.held(py)?;
        let part = held.part()?;
        let (start, stop) = interruptible(py, user.len(), |stop| {
            part.window(user, time, horizon, stop)
        })?;
        Ok((start.into_pyarray(py), stop.into_pyarray(py)))
    }

    /// What `window` returns for the indexed events themselves.
    #[pyo3(signature = (*, length, delay, max_age=None))]
    fn windows_of_events<'py>(
        &self,
        py: Python<'py>,
        length: i64,
        delay: i64,
        max_age: Option<i64>,
    ) -> PyResult<Windows<'py>> {
        let horizon = Horizon {
            length,
            delay,
            max_age,
        };
        let held = self.held(py)?;
        let part = held.part()?;
        let (start, stop) =
            interruptible(py, part.len(), |stop| part.windows_of_events(horizon, stop))?;
        Ok((start.into_pyarray(py), stop.into_pyarray(py)))
    }

    /// Fills `out` with the stored rows of each window, newest first, and zeros behind them.
    #[pyo3(signature = (start, stop, store, out, *, dtype=None, codebook=None))]
    fn gather(
        &self,
        start: &Bound<'_, PyAny>,
        stop: &Bound<'_, PyAny>,
        store: &Bound<'_, PyAny>,
        out: &Bound<'_, PyAny>,
        dtype: Option<&str>,
        codebook: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let windows = Gather {
            start,
            stop,
            out,
            ndim: 1,
            codebook,
        };
        windows.dispatch(&[self], std::slice::from_ref(store), &[None], dtype)
    }

    /// Positions of the events, as given, ordered by (user, time, position).
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let held = self.held(py)?;
        let part = held.part()?;
        let rows = part.rows.all().map_err(|error| raised(py, &error))?;
        Ok(PyArray1::from_iter(
            py,
            rows.iter().map(|&row| i64::from(row)),
        ))
    }

    /// The arrays that the index is made of, not copied.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let columns = PyDict::new(py);
        columns.set_item("times", &self.times)?;
        columns.set_item("rows", &self.rows)?;
        columns.set_item("users", &self.users)?;
        columns.set_item("offsets", &self.offsets)?;
        columns.set_item("slots", &self.slots)?;
        Ok(columns)
    }

    /// `columns`, every block of their file verified first.
    fn verified<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let held = self.held(py)?;
        if let Some(file) = &held.file {
            let blocks = file.blocks()?;
            detached(py, || blocks.check_range(0, blocks.bytes.len()))?;
        }
        self.columns(py)
    }

    #[getter]
    fn num_users(&self, py: Python<'_>) -> usize {
        self.users.bind(py).len()
    }

    #[getter]
    fn table(&self) -> usize {
        self.table
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        self.rows.bind(py).len()
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "HistoryIndex(events={}, users={})",
            self.rows.bind(py).len(),
            self.users.bind(py).len()
        )
    }
}

impl HistoryIndex {
    pub fn held<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Held<'a, 'py>> {
        Ok(Held {
            rows: self.rows.bind(py).readonly(),
            times: self.times.bind(py).readonly(),
            users: self.users.bind(py).readonly(),
            offsets: self.offsets.bind(py).readonly(),
            slots: self.slots.bind(py).readonly(),
            table: self.table,
            file: self
                .blocks
                .as_ref()
                .map(|blocks| blocks.get().reading(py))
                .transpose()?,
        })
    }
}

/// Enters some of a file's users into its table of slots, all 2^32 - 1 at first, two for each user.
#[pyfunction]
pub fn fill_slots(
    users: &Bound<'_, PyAny>,
    first: usize,
    last: usize,
    slots: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = users.py();
    let users = readonly::<i64>(users, "users", 1)?;
    let mut slots = writable::<u32>(slots, "slots", 1)?;
    let (users, slots) = (users.as_slice()?, slots.as_slice_mut()?);
    detached(py, || {
        same_length(
            "slots",
            slots.len(),
            "twice the users",
            history::slot_count(users.len()),
        )?;
        history::fill_slots(users, first, last, slots);
        Ok(())
    })
}
