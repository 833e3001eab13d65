//! Embedding tables: lookups, row-wise optimiser steps and first values, in place.

use numpy::{PyReadwriteArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::lookup::{self, Feature};
use recfm_core::rowwise::{self, AdaGrad, Adam, Gradient};

use crate::array::{mismatch, readonly, writable};
use crate::error::detached;

/// Rows of a fused table for a batch of ids.
#[pyfunction]
pub fn lookup_rows(
    weight: &Bound<'_, PyAny>,
    ids: &Bound<'_, PyAny>,
    features: Vec<(String, usize, usize, usize)>,
    rows: &Bound<'_, PyAny>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let table = readonly::<f32>(weight, "weight", 2)?;
    let ids = readonly::<i32>(ids, "ids", 2)?;
    let (dim, columns) = (table.shape()[1], ids.shape()[1]);
    let expected = [ids.shape()[0], features.len()];
    let mut found = writable::<i64>(rows, "rows", 2)?;
    if found.shape() != expected {
        return Err(mismatch(rows, "rows", &format!("of shape {expected:?}")));
    }
    let mut values = writable::<f32>(out, "out", 3)?;
    if values.shape() != [expected[0], expected[1], dim] {
        let expected = format!("of shape {:?}", [expected[0], expected[1], dim]);
        return Err(mismatch(out, "out", &expected));
    }
    let named = |(name, column, start, rows)| Feature {
        name,
        column,
        start,
        rows,
    };
    let features: Vec<_> = features.into_iter().map(named).collect();
    let (table, ids) = (table.as_slice()?, ids.as_slice()?);
    let (found, values) = (found.as_slice_mut()?, values.as_slice_mut()?);
    detached(weight.py(), || {
        lookup::lookup(table, dim, (ids, columns), &features, found, values)
    })
}

/// One step of row-wise `AdaGrad`.
#[pyfunction]
#[pyo3(signature = (weight, state, rows, grads, *, lr, eps, l2))]
#[allow(clippy::too_many_arguments)] // keywords in Python
pub fn rowwise_adagrad(
    weight: &Bound<'_, PyAny>,
    state: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyAny>,
    grads: &Bound<'_, PyAny>,
    lr: f32,
    eps: f32,
    l2: f32,
) -> PyResult<()> {
    let mut table = writable::<f32>(weight, "weight", 2)?;
    let mut sums = writable::<f32>(state, "state", 1)?;
    let (n, dim) = (table.shape()[0], table.shape()[1]);
    same_shape(&sums, state, "state", &[n])?;
    let rows = readonly::<i64>(rows, "rows", 1)?;
    let values = readonly::<f32>(grads, "grads", 2)?;
    if values.shape() != [rows.len(), dim] {
        let expected = format!("of shape {:?}", [rows.len(), dim]);
        return Err(mismatch(grads, "grads", &expected));
    }
    let gradient = Gradient {
        rows: rows.as_slice()?,
        values: values.as_slice()?,
    };
    let (table, sums) = (table.as_slice_mut()?, sums.as_slice_mut()?);
    let rule = AdaGrad { lr, eps, l2 };
    detached(weight.py(), || {
        rowwise::adagrad(table, sums, dim, gradient, rule)
    })
}

/// One step of Adam on the rows of a batch.
#[pyfunction]
#[pyo3(signature = (weight, first, second, rows, grads, *, lr, betas, eps, l2, step))]
#[allow(clippy::too_many_arguments)] // keywords in Python
pub fn adam_rows(
    weight: &Bound<'_, PyAny>,
    first: &Bound<'_, PyAny>,
    second: &Bound<'_, PyAny>,
    rows: &Bound<'_, PyAny>,
    grads: &Bound<'_, PyAny>,
    lr: f32,
    betas: (f64, f64),
    eps: f32,
    l2: f32,
    step: u32,
) -> PyResult<()> {
    let mut table = writable::<f32>(weight, "weight", 2)?;
    let mut mean = writable::<f32>(first, "first", 2)?;
    let mut square = writable::<f32>(second, "second", 2)?;
    let shape = table.shape().to_vec();
    same_shape(&mean, first, "first", &shape)?;
    same_shape(&square, second, "second", &shape)?;
    let rows = readonly::<i64>(rows, "rows", 1)?;
    let values = readonly::<f32>(grads, "grads", 2)?;
    if values.shape() != [rows.len(), shape[1]] {
        let expected = format!("of shape {:?}", [rows.len(), shape[1]]);
        return Err(mismatch(grads, "grads", &expected));
    }
    let gradient = Gradient {
        rows: rows.as_slice()?,
        values: values.as_slice()?,
    };
    let table = table.as_slice_mut()?;
    let moments = (mean.as_slice_mut()?, square.as_slice_mut()?);
    let rule = Adam {
        lr,
        beta1: betas.0,
        beta2: betas.1,
        eps,
        l2,
        step,
    };
    detached(weight.py(), || {
        rowwise::adam(table, moments, shape[1], gradient, rule)
    })
}

/// First values of a table.
#[pyfunction]
#[pyo3(signature = (out, *, std, seed))]
pub fn fill_bell(out: &Bound<'_, PyAny>, std: f32, seed: i64) -> PyResult<()> {
    let mut values = writable::<f32>(out, "out", 1)?;
    let values = values.as_slice_mut()?;
    detached(out.py(), || lookup::fill_bell(values, std, seed as u64))
}

fn same_shape(
    array: &PyReadwriteArrayDyn<'_, f32>,
    object: &Bound<'_, PyAny>,
    argument: &str,
    shape: &[usize],
) -> PyResult<()> {
    if array.shape() == shape {
        return Ok(());
    }
    Err(mismatch(object, argument, &format!("of shape {shape:?}")))
}
