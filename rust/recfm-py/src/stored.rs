//! `recfm._core.Blocks` and vectors in fewer bits.

use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::Error;
use recfm_core::blocks::{self, Seen};
use recfm_core::hash;
use recfm_core::quantize::{self, CODES};

use crate::array::readonly;
use crate::error::{detached, raised};

/// A file in memory whose blocks are verified where they are first touched.
#[pyclass(frozen, module = "recfm._core")]
pub struct Blocks {
    name: String,
    file: Py<PyAny>,
    sums: Vec<u64>,
    seen: Seen,
}

/// A [`Blocks`] that is being read.
pub struct Reading<'a, 'py> {
    blocks: &'a Blocks,
    file: PyReadonlyArrayDyn<'py, u8>,
}

impl Reading<'_, '_> {
    pub fn blocks(&self) -> PyResult<blocks::Blocks<'_>> {
        Ok(blocks::Blocks {
            file: &self.blocks.name,
            bytes: self.file.as_slice()?,
            sums: &self.blocks.sums,
            seen: &self.blocks.seen,
        })
    }
}

impl Blocks {
    pub fn reading<'a, 'py>(&'a self, py: Python<'py>) -> PyResult<Reading<'a, 'py>> {
        Ok(Reading {
            blocks: self,
            file: readonly::<u8>(self.file.bind(py), "file", 1)?,
        })
    }
}

#[pymethods]
impl Blocks {
    #[new]
    fn new(file: &Bound<'_, PyAny>, sums: &Bound<'_, PyAny>, name: String) -> PyResult<Self> {
        readonly::<u8>(file, "file", 1)?;
        let sums = readonly::<u64>(sums, "sums", 1)?.as_slice()?.to_vec();
        Ok(Self {
            name,
            file: file.clone().unbind(),
            seen: Seen::new(sums.len()),
            sums,
        })
    }

    /// Verifies the blocks of `length` bytes from `start`.
    fn check(&self, py: Python<'_>, start: usize, length: usize) -> PyResult<()> {
        let reading = self.reading(py)?;
        let blocks = reading.blocks()?;
        detached(py, || blocks.check_range(start, length))
    }

    /// Verifies the blocks that an array, a view of the file, lies in.
    fn check_array(&self, values: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = values.py();
        let reading = self.reading(py)?;
        let blocks = reading.blocks()?;
        let data = values
            .getattr("__array_interface__")?
            .get_item("data")?
            .get_item(0)?;
        let start = data
            .extract::<usize>()?
            .wrapping_sub(blocks.bytes.as_ptr() as usize);
        let length = values.getattr("nbytes")?.extract()?;
        detached(py, || blocks.check_range(start, length))
    }
}

/// XXH3 of each block of 256 KiB.
#[pyfunction]
pub fn block_sums<'py>(bytes: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<u64>>> {
    let py = bytes.py();
    let bytes = readonly::<u8>(bytes, "bytes", 1)?;
    let bytes = bytes.as_slice()?;
    Ok(py.detach(|| blocks::block_sums(bytes)).into_pyarray(py))
}

/// One key for each row of several int64 columns.
#[pyfunction]
#[expect(
    clippy::needless_pass_by_value,
    reason = "a list is extracted as its own"
)]
#[pyo3(signature = (*columns))]
pub fn joint_key<'py>(
    py: Python<'py>,
    columns: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let columns: Vec<_> = columns
        .iter()
        .map(|column| readonly::<i64>(column, "columns", 1))
        .collect::<PyResult<_>>()?;
    let columns: Vec<_> = columns
        .iter()
        .map(|column| Ok(column.as_slice()?))
        .collect::<PyResult<_>>()?;
    Ok(detached(py, || hash::joint_keys(&columns))?.into_pyarray(py))
}

/// Sixteen values evenly over [-1, 1].
#[pyfunction]
pub fn uniform_codebook(py: Python<'_>) -> Bound<'_, PyArray1<f32>> {
    PyArray1::from_slice(py, &quantize::uniform_codebook())
}

/// The int4 codebook that was given, or the uniform one.
pub fn codebook_of(codebook: Option<&Bound<'_, PyAny>>) -> PyResult<[f32; CODES]> {
    let Some(object) = codebook else {
        return Ok(quantize::uniform_codebook());
    };
    let codebook = readonly::<f32>(object, "codebook", 1)?;
    let codebook = codebook.as_slice()?;
    quantize::checked_codebook(codebook)
        .copied()
        .map_err(|error| raised(object.py(), &error))
}

/// Vectors [n, d] in [-1, 1] as bf16 bits, int8, or int4 codes two to a byte.
#[pyfunction]
#[pyo3(signature = (values, *, dtype, codebook=None))]
pub fn quantize_rows<'py>(
    values: &Bound<'py, PyAny>,
    dtype: &str,
    codebook: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = values.py();
    let codebook = codebook_of(codebook)?;
    let values = readonly::<f32>(values, "values", 2)?;
    let (n, dim) = (values.shape()[0], values.shape()[1]);
    let values = values.as_slice()?;
    Ok(match dtype {
        "bf16" => detached(py, || quantize::to_bf16(values))?
            .into_pyarray(py)
            .reshape([n, dim])?
            .into_any(),
        "int8" => detached(py, || quantize::to_int8(values))?
            .into_pyarray(py)
            .reshape([n, dim])?
            .into_any(),
        "int4" => detached(py, || quantize::to_int4(values, dim, &codebook))?
            .into_pyarray(py)
            .reshape([n, dim.div_ceil(2)])?
            .into_any(),
        _ => return Err(raised(py, &Error::StoredKind(dtype.to_owned()))),
    })
}
