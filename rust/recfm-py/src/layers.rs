//! Layers of a network whose plain torch form spends its time moving memory.

use numpy::{IntoPyArray, PyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::hidden::{self, Affine, Dropout, Moments, Passed};
use recfm_core::small_norm::{self, MAX_WIDTH};

use crate::array::{mismatch, readonly, writable};
use crate::error::detached;

/// Two arrays, one value per column each.
type Columns<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>);
type Pair = (Vec<f32>, Vec<f32>);
type Array<'py> = PyReadonlyArrayDyn<'py, f32>;

/// Gain, shift, epsilon.
#[derive(FromPyObject)]
pub struct Learned<'py>(Bound<'py, PyAny>, Bound<'py, PyAny>, f32);

/// Gain, mean, variance, epsilon.
#[derive(FromPyObject)]
pub struct Normed<'py>(Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>, f32);

/// Batch norm, `ReLU` and dropout; mean and variance of the columns, with a norm of (gain, shift, eps).
#[pyfunction]
#[pyo3(signature = (x, y, *, norm, rate, seed))]
pub fn hidden_forward<'py>(
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    norm: Option<Learned<'py>>,
    rate: f64,
    seed: u64,
) -> PyResult<Option<Columns<'py>>> {
    let py = x.py();
    let (from, shape) = rows(x, "x", None)?;
    let mut to = writable::<f32>(y, "y", 2)?;
    same_shape(y, "y", to.shape(), &shape)?;
    let learned = |Learned(gain, shift, eps)| {
        PyResult::Ok((
            per_column([(&gain, "gain"), (&shift, "shift")], shape[1])?,
            eps,
        ))
    };
    let norm = norm.map(learned).transpose()?;
    let norm = match &norm {
        Some(([gain, shift], eps)) => Some(Affine {
            gain: gain.as_slice()?,
            shift: shift.as_slice()?,
            eps: *eps,
        }),
        None => None,
    };
    let dropout = (rate > 0.0).then(|| Dropout::new(rate, seed));
    let (from, to) = (from.as_slice()?, to.as_slice_mut()?);
    let moments = detached(py, || hidden::forward(from, shape[1], norm, dropout, to))?;
    Ok(moments.map(|moments| wrapped(py, (moments.mean, moments.variance))))
}

/// The gradient of x; those of gain and shift, with a norm of (gain, mean, variance, eps).
#[pyfunction]
#[pyo3(signature = (x, y, grad_y, grad_x, *, norm, rate))]
pub fn hidden_backward<'py>(
    x: &Bound<'py, PyAny>,
    y: &Bound<'py, PyAny>,
    grad_y: &Bound<'py, PyAny>,
    grad_x: &Bound<'py, PyAny>,
    norm: Option<Normed<'py>>,
    rate: f64,
) -> PyResult<Option<Columns<'py>>> {
    let py = x.py();
    let (x, shape) = rows(x, "x", None)?;
    let (y, _) = rows(y, "y", Some(&shape))?;
    let (from, _) = rows(grad_y, "grad_y", Some(&shape))?;
    let mut to = writable::<f32>(grad_x, "grad_x", 2)?;
    same_shape(grad_x, "grad_x", to.shape(), &shape)?;
    let normed = |Normed(gain, mean, variance, eps)| {
        let named = [(&gain, "gain"), (&mean, "mean"), (&variance, "variance")];
        let [gain, mean, variance] = per_column(named, shape[1])?;
        let (mean, variance) = (mean.as_slice()?.to_vec(), variance.as_slice()?.to_vec());
        PyResult::Ok((gain, eps, Moments { mean, variance }))
    };
    let norm = norm.map(normed).transpose()?;
    let norm = match &norm {
        Some((gain, eps, moments)) => Some((gain.as_slice()?, *eps, moments)),
        None => None,
    };
    let (x, y) = (x.as_slice()?, y.as_slice()?);
    let passed = Passed {
        x,
        y,
        width: shape[1],
        rate,
    };
    let (from, to) = (from.as_slice()?, to.as_slice_mut()?);
    let gradient = detached(py, || hidden::backward(passed, norm, from, to))?;
    Ok(gradient.map(|gradient| wrapped(py, gradient)))
}

/// Layer norm of short rows.
#[pyfunction]
#[pyo3(signature = (x, y, *, gain, shift, eps))]
pub fn small_norm_forward(
    x: &Bound<'_, PyAny>,
    y: &Bound<'_, PyAny>,
    gain: &Bound<'_, PyAny>,
    shift: &Bound<'_, PyAny>,
    eps: f32,
) -> PyResult<()> {
    let (from, shape) = short_rows(x)?;
    let mut to = writable::<f32>(y, "y", 2)?;
    same_shape(y, "y", to.shape(), &shape)?;
    let [gain, shift] = per_column([(gain, "gain"), (shift, "shift")], shape[1])?;
    let (gain, shift) = (gain.as_slice()?, shift.as_slice()?);
    let (from, to) = (from.as_slice()?, to.as_slice_mut()?);
    detached(x.py(), || small_norm::forward(from, gain, shift, eps, to))
}

/// The gradient of x; those of gain and shift.
#[pyfunction]
#[pyo3(signature = (x, grad_y, grad_x, *, gain, eps))]
pub fn small_norm_backward<'py>(
    x: &Bound<'py, PyAny>,
    grad_y: &Bound<'py, PyAny>,
    grad_x: &Bound<'py, PyAny>,
    gain: &Bound<'py, PyAny>,
    eps: f32,
) -> PyResult<Columns<'py>> {
    let py = x.py();
    let (x, shape) = short_rows(x)?;
    let (from, _) = rows(grad_y, "grad_y", Some(&shape))?;
    let mut to = writable::<f32>(grad_x, "grad_x", 2)?;
    same_shape(grad_x, "grad_x", to.shape(), &shape)?;
    let [gain] = per_column([(gain, "gain")], shape[1])?;
    let (x, gain) = (x.as_slice()?, gain.as_slice()?);
    let (from, to) = (from.as_slice()?, to.as_slice_mut()?);
    let gradient = detached(py, || small_norm::backward(x, gain, eps, from, to))?;
    Ok(wrapped(py, gradient))
}

fn wrapped(py: Python<'_>, (first, second): Pair) -> Columns<'_> {
    (first.into_pyarray(py), second.into_pyarray(py))
}

/// Rows of at least one column, of a given shape if there is one.
fn rows<'py>(
    object: &Bound<'py, PyAny>,
    argument: &str,
    shape: Option<&[usize]>,
) -> PyResult<(Array<'py>, Vec<usize>)> {
    let array = readonly::<f32>(object, argument, 2)?;
    let found = array.shape().to_vec();
    if found.contains(&0) {
        return Err(mismatch(
            object,
            argument,
            "of at least one row and one column",
        ));
    }
    same_shape(object, argument, &found, shape.unwrap_or(&found))?;
    Ok((array, found))
}

fn short_rows<'py>(x: &Bound<'py, PyAny>) -> PyResult<(Array<'py>, Vec<usize>)> {
    let (array, shape) = rows(x, "x", None)?;
    if shape[1] > MAX_WIDTH {
        return Err(mismatch(x, "x", &format!("of at most {MAX_WIDTH} columns")));
    }
    Ok((array, shape))
}

fn same_shape(
    object: &Bound<'_, PyAny>,
    argument: &str,
    found: &[usize],
    wanted: &[usize],
) -> PyResult<()> {
    if found == wanted {
        return Ok(());
    }
    Err(mismatch(object, argument, &format!("of shape {wanted:?}")))
}

/// Arrays of one value for each column.
fn per_column<'py, const N: usize>(
    named: [(&Bound<'py, PyAny>, &str); N],
    width: usize,
) -> PyResult<[Array<'py>; N]> {
    let arrays = named.map(|(object, argument)| {
        let array = readonly::<f32>(object, argument, 1)?;
        same_shape(object, argument, array.shape(), &[width])?;
        Ok(array)
    });
    let arrays: Vec<_> = arrays.into_iter().collect::<PyResult<_>>()?;
    arrays
        .try_into()
        .map_err(|_| unreachable!("as many as were named"))
}
