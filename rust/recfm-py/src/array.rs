//! Array arguments: the dtype, shape and layout asked for, or a `DataError` that says what was found.

use numpy::{
    BorrowError, Element, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn,
    PyReadwriteArrayDyn, PyUntypedArray, PyUntypedArrayMethods, dtype,
};
use pyo3::prelude::*;
use recfm_core::Error;

use crate::error::raised;

/// Whether `object` is an array of `T`.
pub fn holds<T: Element>(object: &Bound<'_, PyAny>) -> bool {
    let wanted = dtype::<T>(object.py());
    object
        .cast::<PyUntypedArray>()
        .is_ok_and(|array| array.dtype().is_equiv_to(&wanted))
}

/// Dimensions of `object`, or 1 where it is no array, for `readonly` to refuse.
pub fn ndim(object: &Bound<'_, PyAny>) -> usize {
    object
        .cast::<PyUntypedArray>()
        .map_or(1, PyUntypedArrayMethods::ndim)
}

/// An array of `T` with `ndim` dimensions in C order, to read.
pub fn readonly<'py, T: Element>(
    object: &Bound<'py, PyAny>,
    argument: &str,
    ndim: usize,
) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let Some(array) = in_c_order::<T>(object, ndim) else {
        return Err(mismatch(
            object,
            argument,
            &layout::<T>(object.py(), ndim, "a"),
        ));
    };
    array.try_readonly().map_err(|_| {
        mismatch(
            object,
            argument,
            "left alone while it is read, not written by another call",
        )
    })
}

/// An array of `T` with `ndim` dimensions in C order, to write.
pub fn writable<'py, T: Element>(
    object: &Bound<'py, PyAny>,
    argument: &str,
    ndim: usize,
) -> PyResult<PyReadwriteArrayDyn<'py, T>> {
    let wrong = || {
        mismatch(
            object,
            argument,
            &layout::<T>(object.py(), ndim, "a writable"),
        )
    };
    in_c_order::<T>(object, ndim)
        .ok_or_else(wrong)?
        .try_readwrite()
        .map_err(|error| match error {
            BorrowError::NotWriteable => wrong(),
            _ => mismatch(
                object,
                argument,
                "memory that no other argument or call uses",
            ),
        })
}

/// The error for an argument that is not `expected`.
pub fn mismatch(object: &Bound<'_, PyAny>, argument: &str, expected: &str) -> PyErr {
    let (argument, expected) = (argument.to_owned(), expected.to_owned());
    raised(
        object.py(),
        &Error::Array {
            argument,
            expected,
            found: describe(object),
        },
    )
}

fn in_c_order<'a, 'py, T: Element>(
    object: &'a Bound<'py, PyAny>,
    ndim: usize,
) -> Option<&'a Bound<'py, PyArrayDyn<T>>> {
    let array = object.cast::<PyArrayDyn<T>>().ok()?;
    (array.ndim() == ndim && array.is_c_contiguous() && array.is_aligned()).then_some(array)
}

fn layout<T: Element>(py: Python<'_>, ndim: usize, article: &str) -> String {
    format!(
        "{article} C-contiguous {} array with {ndim} dimension(s)",
        dtype::<T>(py)
    )
}

fn describe(object: &Bound<'_, PyAny>) -> String {
    let Ok(array) = object.cast::<PyUntypedArray>() else {
        let name = object.get_type().name();
        return format!(
            "a {}",
            name.map_or_else(|_| "nameless type".to_owned(), |name| name.to_string())
        );
    };
    let mut text = format!("{} of shape {:?}", array.dtype(), array.shape());
    if !array.is_c_contiguous() {
        text.push_str(", not C-contiguous");
    }
    if !array.is_aligned() {
        text.push_str(", not aligned");
    }
    let writeable = array
        .getattr("flags")
        .and_then(|flags| flags.getattr("writeable"));
    if writeable.is_ok_and(|flag| flag.is_truthy().is_ok_and(|writeable| !writeable)) {
        text.push_str(", read-only");
    }
    text
}
