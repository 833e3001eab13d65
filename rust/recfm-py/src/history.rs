//! `recfm._core.HistoryIndex`: one part of a history, in memory or mapped.

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use numpy::{
    Element, IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn,
    PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use recfm_core::Error;
use recfm_core::blocks::Column;
use recfm_core::gather::{self, Store, Stored};
use recfm_core::history::{self, Horizon, Part, same_length};
use recfm_core::quantize::pairs_of;

use crate::array::{holds, mismatch, readonly, writable};
use crate::error::{detached, interruptible, raised};
use crate::stored::{Blocks, Reading, codebook_of};

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
type ManyWindows<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<i64>>);

/// A [`HistoryIndex`] whose arrays are being read.
struct Held<'a, 'py> {
    rows: PyReadonlyArray1<'py, u32>,
    times: PyReadonlyArray1<'py, i64>,
    users: PyReadonlyArray1<'py, i64>,
    offsets: PyReadonlyArray1<'py, u32>,
    slots: PyReadonlyArray1<'py, u32>,
    table: usize,
    file: Option<Reading<'a, 'py>>,
}

impl Held<'_, '_> {
    fn part(&self) -> PyResult<Part<'_>> {
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
    fn held<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Held<'a, 'py>> {
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

/// One window in each part for each query: together the newest `length` events, `[B, P]`.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a list is extracted as its own"
)]
#[pyo3(signature = (parts, user, time, *, length, delay, max_age=None))]
pub fn window_of_parts<'py>(
    parts: Vec<Py<HistoryIndex>>,
    user: &Bound<'py, PyAny>,
    time: &Bound<'py, PyAny>,
    length: i64,
    delay: i64,
    max_age: Option<i64>,
) -> PyResult<ManyWindows<'py>> {
    let py = user.py();
    let user = readonly::<i64>(user, "user", 1)?;
    let time = readonly::<i64>(time, "time", 1)?;
    let (user, time) = (user.as_slice()?, time.as_slice()?);
    let horizon = Horizon {
        length,
        delay,
        max_age,
    };
    let held: Vec<_> = parts
        .iter()
        .map(|part| part.get().held(py))
        .collect::<PyResult<_>>()?;
    let views: Vec<_> = held.iter().map(Held::part).collect::<PyResult<_>>()?;
    let (start, stop) = interruptible(py, user.len() * views.len(), |stop| {
        history::window_of_parts(&views, user, time, horizon, stop)
    })?;
    let shape = [user.len(), views.len()];
    Ok((
        start.into_pyarray(py).reshape(shape)?,
        stop.into_pyarray(py).reshape(shape)?,
    ))
}

/// Fills `out` with the stored rows of the windows of all parts, merged newest first.
#[pyfunction]
#[pyo3(signature = (parts, start, stop, stores, out, *, blocks, dtype=None, codebook=None))]
#[expect(
    clippy::needless_pass_by_value,
    reason = "lists are extracted as their own"
)]
#[expect(
    clippy::too_many_arguments,
    reason = "all of them are the caller's, by name"
)]
pub fn gather_parts(
    parts: Vec<Py<HistoryIndex>>,
    start: &Bound<'_, PyAny>,
    stop: &Bound<'_, PyAny>,
    stores: Vec<Bound<'_, PyAny>>,
    out: &Bound<'_, PyAny>,
    blocks: Vec<Option<Py<Blocks>>>,
    dtype: Option<&str>,
    codebook: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let parts: Vec<_> = parts.iter().map(Py::get).collect();
    let blocks: Vec<_> = blocks
        .iter()
        .map(|blocks| blocks.as_ref().map(Py::get))
        .collect();
    let windows = Gather {
        start,
        stop,
        out,
        ndim: start.cast::<PyUntypedArray>()?.ndim(),
        codebook,
    };
    windows.dispatch(&parts, &stores, &blocks, dtype)
}

/// The arguments of a gather.
struct Gather<'a, 'py> {
    start: &'a Bound<'py, PyAny>,
    stop: &'a Bound<'py, PyAny>,
    out: &'a Bound<'py, PyAny>,
    ndim: usize,
    codebook: Option<&'a Bound<'py, PyAny>>,
}

impl<'py> Gather<'_, 'py> {
    /// Reads the stores as what their dtypes say.
    fn dispatch(
        &self,
        parts: &[&HistoryIndex],
        stores: &[Bound<'py, PyAny>],
        blocks: &[Option<&Blocks>],
        dtype: Option<&str>,
    ) -> PyResult<()> {
        let Some(first) = stores.first() else {
            return self.fill::<f32, f32, f32>(parts, stores, blocks, |values| values);
        };
        match dtype {
            Some("bf16") => self.fill::<u16, bf16, f32>(
                parts,
                stores,
                blocks,
                HalfBitsSliceExt::reinterpret_cast,
            ),
            _ if holds::<f32>(first) => {
                self.fill::<f32, f32, f32>(parts, stores, blocks, |values| values)
            }
            _ if holds::<i32>(first) => {
                self.fill::<i32, i32, i32>(parts, stores, blocks, |values| values)
            }
            _ if holds::<f16>(first) => {
                self.fill::<f16, f16, f32>(parts, stores, blocks, |values| values)
            }
            _ if holds::<u16>(first) => self.fill::<u16, f16, f32>(
                parts,
                stores,
                blocks,
                HalfBitsSliceExt::reinterpret_cast,
            ),
            _ if holds::<i8>(first) => {
                self.fill::<i8, i8, f32>(parts, stores, blocks, |values| values)
            }
            _ if holds::<u8>(first) => {
                self.fill::<u8, u8, f32>(parts, stores, blocks, |values| values)
            }
            _ => Err(mismatch(
                first,
                "store",
                "a float32, int32, float16 (or its bits as uint16), int8 or uint8 (int4 codes) array",
            )),
        }
    }

    /// `view` reads a store's elements as what they stand for.
    fn fill<In: Element + Copy + Sync, As: Stored<Out>, Out: Element + Default + Copy>(
        &self,
        parts: &[&HistoryIndex],
        stores: &[Bound<'py, PyAny>],
        blocks: &[Option<&Blocks>],
        view: fn(&[In]) -> &[As],
    ) -> PyResult<()> {
        let py = self.out.py();
        let start = readonly::<i64>(self.start, "start", self.ndim)?;
        let stop = readonly::<i64>(self.stop, "stop", self.ndim)?;
        let arrays: Vec<_> = stores
            .iter()
            .map(|store| readonly::<In>(store, "store", 2))
            .collect::<PyResult<_>>()?;
        let mut out = writable::<Out>(self.out, "out", 3)?;
        let (length, mut dim) = (out.shape()[1], out.shape()[2]);
        if arrays
            .iter()
            .any(|array| array.shape()[1] != As::width(dim))
        {
            dim = arrays[0].shape()[1] * if As::width(2) == 1 { 2 } else { 1 };
        }
        let expected = [start.shape()[0], length, dim];
        if out.shape() != expected {
            return Err(mismatch(
                self.out,
                "out",
                &format!("of shape {expected:?} (windows, length, stored dim)"),
            ));
        }
        let wrong = |what| mismatch(self.start, "start", what);
        if self.ndim > 1 && start.shape() != [expected[0], parts.len()] {
            return Err(wrong(&format!(
                "of shape [{}, {}] (windows, parts)",
                expected[0],
                parts.len()
            )));
        }
        if stores.len() != blocks.len() {
            return Err(raised(
                py,
                &Error::Length {
                    left: "blocks",
                    left_len: blocks.len(),
                    right: "stores",
                    right_len: stores.len(),
                },
            ));
        }
        let pairs = pairs_of(&codebook_of(self.codebook)?);
        let files: Vec<_> = blocks
            .iter()
            .map(|b| b.map(|b| b.reading(py)).transpose())
            .collect::<PyResult<_>>()?;
        let stores: Vec<_> = arrays
            .iter()
            .zip(&files)
            .map(|(array, file): (_, &Option<Reading<'_, '_>>)| {
                let file = file.as_ref().map(Reading::blocks).transpose()?;
                Ok(Store {
                    values: Column::new(view(array.as_slice()?), file),
                    dim,
                    pairs: &pairs,
                })
            })
            .collect::<PyResult<_>>()?;
        let held: Vec<_> = parts
            .iter()
            .map(|part| part.held(py))
            .collect::<PyResult<_>>()?;
        let views: Vec<_> = held.iter().map(Held::part).collect::<PyResult<_>>()?;
        let (start, stop, out) = (start.as_slice()?, stop.as_slice()?, out.as_slice_mut()?);
        detached(py, || {
            gather::gather::<As, Out>(&views, &stores, start, stop, out, (length, dim))
        })
    }
}
