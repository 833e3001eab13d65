//! Arrow out: arrays of the core for any consumer, and a producer's stream piece by piece.

use std::sync::{Arc, Mutex};

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray};
use arrow_buffer::{Buffer, OffsetBuffer};
use arrow_schema::Field;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::arrow::Stream;

/// An array that any Arrow consumer can read without a copy.
#[pyclass(frozen, module = "recfm._core")]
pub struct ArrowArray {
    field: Field,
    array: ArrayRef,
}

impl ArrowArray {
    /// An array of integers.
    pub fn ints(values: &[i64]) -> Self {
        Self::of(Arc::new(Int64Array::from(values.to_vec())))
    }

    /// An array of UTF-8 strings end to end.
    pub fn strings(bytes: &[u8], offsets: &[i64]) -> PyResult<Self> {
        let bounds = OffsetBuffer::new(offsets.to_vec().into());
        let array = LargeStringArray::try_new(bounds, Buffer::from(bytes), None)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self::of(Arc::new(array)))
    }

    fn of(array: ArrayRef) -> Self {
        let field = Field::new("", array.data_type().clone(), true);
        Self { field, array }
    }
}

#[pymethods]
impl ArrowArray {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // The protocol lets a producer ignore the wish.
        let _ = requested_schema;
        let schema = FFI_ArrowSchema::try_from(&self.field)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let array = FFI_ArrowArray::new(&self.array.to_data());
        Ok((
            PyCapsule::new_with_value(py, schema, c"arrow_schema")?,
            PyCapsule::new_with_value(py, array, c"arrow_array")?,
        ))
    }

    fn __len__(&self) -> usize {
        self.array.len()
    }
}

/// The chunks of a producer's stream, one at a time.
#[pyclass(module = "recfm._core")]
pub struct ArrowChunks(Mutex<Stream>);

#[pymethods]
impl ArrowChunks {
    #[new]
    fn new(producer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let method = producer.getattr("__arrow_c_stream__")?;
        Ok(Self(Mutex::new(Stream::open(&method)?)))
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&mut self) -> PyResult<Option<ArrowArray>> {
        let stream = self
            .0
            .get_mut()
            .map_err(|_| PyValueError::new_err("the stream broke off"))?;
        Ok(stream.next()?.map(|array| ArrowArray {
            field: stream.field.clone(),
            array,
        }))
    }
}
