//! Windows and gathers over the parts of a history index.

use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use numpy::{
    Element, IntoPyArray, PyArray2, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use recfm_core::Error;
use recfm_core::blocks::Column;
use recfm_core::gather::{self, Store, Stored};
use recfm_core::history::{self, Horizon};
use recfm_core::quantize::pairs_of;

use crate::array::{holds, mismatch, readonly, writable};
use crate::error::{detached, interruptible, raised};
use crate::history::{Held, HistoryIndex};
use crate::stored::{Blocks, Reading, codebook_of};

/// Starts and stops of windows, a column for each part.
type ManyWindows<'py> = (Bound<'py, PyArray2<i64>>, Bound<'py, PyArray2<i64>>);

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
pub struct Gather<'a, 'py> {
    pub start: &'a Bound<'py, PyAny>,
    pub stop: &'a Bound<'py, PyAny>,
    pub out: &'a Bound<'py, PyAny>,
    pub ndim: usize,
    pub codebook: Option<&'a Bound<'py, PyAny>>,
}

impl<'py> Gather<'_, 'py> {
    /// Reads the stores as what their dtypes say.
    pub fn dispatch(
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
