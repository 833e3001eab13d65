//! Arrow arrays from any producer, through the `PyCapsule` protocol.

use std::ffi::{CStr, c_int, c_void};

use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::{ArrayRef, make_array};
use arrow_schema::{ArrowError, DataType, Field};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

/// The chunks of an Arrow object and their common type, or `None` for an object that is not Arrow.
pub fn read(object: &Bound<'_, PyAny>) -> PyResult<Option<(Vec<ArrayRef>, DataType)>> {
    if let Some(method) = object.getattr_opt("__arrow_c_stream__")? {
        return read_stream(&method).map(Some);
    }
    if let Some(method) = object.getattr_opt("__arrow_c_array__")? {
        return read_array(&method).map(Some);
    }
    Ok(None)
}

fn read_stream(method: &Bound<'_, PyAny>) -> PyResult<(Vec<ArrayRef>, DataType)> {
    let mut stream = Stream::open(method)?;
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next()? {
        chunks.push(chunk);
    }
    Ok((chunks, stream.field.data_type().clone()))
}

/// A producer's stream, by hand where `ArrayStreamReader` would do, but for what `import` repairs.
pub struct Stream {
    stream: FFI_ArrowArrayStream,
    /// What the chunks are.
    pub field: Field,
}

impl Stream {
    /// Calls a producer's `__arrow_c_stream__`.
    pub fn open(method: &Bound<'_, PyAny>) -> PyResult<Self> {
        let capsule = method.call0()?;
        let stream = pointer::<FFI_ArrowArrayStream>(&capsule, c"arrow_array_stream")?;
        // SAFETY: the protocol says that a capsule of this name holds a valid stream. `from_raw` moves it out and
        // leaves a released one behind, which the capsule's destructor accepts.
        let mut stream = unsafe { FFI_ArrowArrayStream::from_raw(stream) };
        let Some(get_schema) = stream.get_schema() else {
            return Err(PyValueError::new_err("the stream was read before"));
        };
        let mut schema = FFI_ArrowSchema::empty();
        // SAFETY: the callback is this stream's own, and the stream is not released.
        let status = unsafe { get_schema(&raw mut stream, &raw mut schema) };
        check(&mut stream, status)?;
        let field = Field::try_from(&schema).map_err(unreadable)?;
        Ok(Self { stream, field })
    }

    /// The next chunk, or `None` at the end.
    pub fn next(&mut self) -> PyResult<Option<ArrayRef>> {
        let Some(get_next) = self.stream.get_next() else {
            return Err(PyValueError::new_err("the stream was read before"));
        };
        let mut chunk = FFI_ArrowArray::empty();
        // SAFETY: the callback is this stream's own, and the stream is not released.
        let status = unsafe { get_next(&raw mut self.stream, &raw mut chunk) };
        check(&mut self.stream, status)?;
        if chunk.is_released() {
            return Ok(None);
        }
        import(chunk, self.field.data_type()).map(Some)
    }
}

fn read_array(method: &Bound<'_, PyAny>) -> PyResult<(Vec<ArrayRef>, DataType)> {
    let capsules = method.call0()?.cast_into::<PyTuple>()?;
    let (schema, array) = (capsules.get_item(0)?, capsules.get_item(1)?);
    let schema = pointer::<FFI_ArrowSchema>(&schema, c"arrow_schema")?;
    let array = pointer::<FFI_ArrowArray>(&array, c"arrow_array")?;
    // SAFETY: as for a stream; the schema stays in its capsule, which `capsules` keeps alive.
    let (schema, array) = unsafe { (&*schema, FFI_ArrowArray::from_raw(array)) };
    let dtype = DataType::try_from(schema).map_err(unreadable)?;
    Ok((vec![import(array, &dtype)?], dtype))
}

fn pointer<T>(capsule: &Bound<'_, PyAny>, name: &CStr) -> PyResult<*mut T> {
    Ok(capsule
        .cast::<PyCapsule>()?
        .pointer_checked(Some(name))?
        .as_ptr()
        .cast())
}

fn check(stream: &mut FFI_ArrowArrayStream, status: c_int) -> PyResult<()> {
    if status == 0 {
        return Ok(());
    }
    let message = stream.get_last_error().map(|get_last_error| {
        // SAFETY: the callback is this stream's own and the last call on it failed; what it returns is null or a
        // string that lives until the next call.
        unsafe {
            get_last_error(stream)
                .as_ref()
                .map(|text| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    });
    Err(PyValueError::new_err(message.flatten().unwrap_or_else(
        || format!("the producer reports error {status}"),
    )))
}

fn import(mut array: FFI_ArrowArray, dtype: &DataType) -> PyResult<ArrayRef> {
    // SAFETY: the producer vouches that the array is a valid one of this type.
    let data = unsafe {
        disown_null_buffers((&raw mut array).cast(), dtype);
        from_ffi_and_data_type(array, dtype.clone())
    };
    Ok(make_array(data.map_err(unreadable)?))
}

/// The head of the C struct `ArrowArray`, as the Arrow C data interface lays it down.
#[repr(C)]
struct ArrowArrayHead {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut Self,
}

/// Polars gives null arrays a buffer, which the format says they do not have and arrow-rs refuses
/// (pola-rs/polars issue 22934). The producer still frees it.
///
/// # Safety
/// `array` must be a valid array of type `dtype`.
unsafe fn disown_null_buffers(array: *mut ArrowArrayHead, dtype: &DataType) {
    // SAFETY: a valid array of a nested type has as many children as the type has fields.
    unsafe {
        match dtype {
            DataType::Null => (*array).n_buffers = 0,
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _) => {
                disown_null_buffers(*(*array).children, field.data_type());
            }
            DataType::Struct(fields) => {
                for (i, field) in fields.iter().enumerate() {
                    disown_null_buffers(*(*array).children.add(i), field.data_type());
                }
            }
            _ => {}
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of map_err")]
fn unreadable(error: ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}
