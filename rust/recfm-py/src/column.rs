//! Arrow columns lowered to the chunks of the core.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, GenericListArray, OffsetSizeTrait, new_empty_array};
use arrow_buffer::Buffer;
use arrow_schema::DataType;
use pyo3::prelude::*;
use recfm_core::column::{Bits, Chunk, NULL_KEY, Strs, Values};
use recfm_core::{Error, Result};

use crate::arrow;
use crate::error::raised;

/// A named column of integers or strings, or of lists of them.
pub struct Column {
    name: String,
    dtype: DataType,
    /// At least one, so that an empty column has a type too.
    parts: Vec<Part>,
}

struct Part {
    array: ArrayRef,
    /// The rows of `array` that count, where not all do: a null list may have elements, and they are nobody's.
    kept: Option<Vec<u32>>,
}

impl Column {
    /// Reads an Arrow column, or a table of one column.
    pub fn read(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        let refused = |advice: &str| {
            let found = object
                .get_type()
                .name()
                .map_or_else(|_| "?".to_owned(), |name| name.to_string());
            raised(
                object.py(),
                &Error::Dtype {
                    column: name.to_owned(),
                    found,
                    advice: advice.to_owned(),
                },
            )
        };
        let (mut chunks, mut dtype) = arrow::read(object)
            .map_err(|error| refused(&format!("it cannot be read as Arrow ({error})")))?
            .ok_or_else(|| {
                refused("pass an Arrow column, such as a polars Series or a pyarrow array")
            })?;
        if let DataType::Struct(fields) = &dtype
            && let [field] = &fields[..]
            && chunks.iter().all(|chunk| chunk.null_count() == 0)
        {
            chunks = chunks
                .iter()
                .map(|chunk| chunk.as_struct().column(0).clone())
                .collect();
            dtype = field.data_type().clone();
        }
        if chunks.is_empty() {
            chunks.push(new_empty_array(&dtype));
        }
        let parts = chunks
            .into_iter()
            .map(|array| Part { array, kept: None })
            .collect();
        Ok(Self {
            name: name.to_owned(),
            dtype,
            parts,
        })
    }

    /// The values, one for each row.
    pub fn chunks(&self) -> Result<Vec<Chunk<'_>>> {
        let lowered = self.parts.iter().map(|part| {
            let chunk = self.lower(part.array.as_ref())?;
            Ok(match &part.kept {
                Some(rows) => chunk.select(rows.clone()),
                None => chunk,
            })
        });
        lowered.collect()
    }

    /// The elements of a list column and where each row's begin; a null list is an empty one.
    pub fn elements(&self) -> Result<(Self, Vec<i64>)> {
        let Some(dtype) = element_type(&self.dtype) else {
            return Err(self.refused(
                &self.dtype,
                "tokens need a list in each row; use Categorical for single values",
            ));
        };
        let mut offsets = vec![0];
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            parts.push(self.explode(part.array.as_ref(), &mut offsets)?);
        }
        Ok((
            Self {
                name: self.name.clone(),
                dtype: dtype.clone(),
                parts,
            },
            offsets,
        ))
    }

    /// A list column's elements, any other column itself.
    pub fn flat(self) -> Result<Self> {
        if element_type(&self.dtype).is_some() {
            Ok(self.elements()?.0)
        } else {
            Ok(self)
        }
    }

    fn lower<'a>(&self, array: &'a dyn Array) -> Result<Chunk<'a>> {
        let values = match array.data_type() {
            DataType::Null => Values::Nulls(array.len()),
            DataType::Boolean => {
                let bits = array.as_boolean().values().iter();
                ints(bits.map(i64::from).collect::<Vec<_>>(), array)
            }
            DataType::Int8 => widened::<Int8Type>(array),
            DataType::Int16 => widened::<Int16Type>(array),
            DataType::Int32 => widened::<Int32Type>(array),
            DataType::Int64 => ints(&array.as_primitive::<Int64Type>().values()[..], array),
            DataType::UInt8 => widened::<UInt8Type>(array),
            DataType::UInt16 => widened::<UInt16Type>(array),
            DataType::UInt32 => widened::<UInt32Type>(array),
            DataType::UInt64 => self.narrowed(array)?,
            DataType::Utf8 => {
                let strings = array.as_string::<i32>();
                let strs = Strs::Offsets32(strings.value_offsets(), strings.value_data());
                Values::Strs {
                    strs,
                    valid: valid(array),
                }
            }
            DataType::LargeUtf8 => {
                let strings = array.as_string::<i64>();
                let strs = Strs::Offsets64(strings.value_offsets(), strings.value_data());
                Values::Strs {
                    strs,
                    valid: valid(array),
                }
            }
            DataType::Utf8View => {
                let strings = array.as_string_view();
                let buffers = strings.data_buffers().iter();
                let buffers = buffers.map(Buffer::as_slice).collect();
                Values::Strs {
                    strs: Strs::Views(strings.views(), buffers),
                    valid: valid(array),
                }
            }
            DataType::Dictionary(_, values) if !matches!(**values, DataType::Dictionary(..)) => {
                return self.dictionary(array);
            }
            other => return Err(self.refused(other, advice(other))),
        };
        Ok(Chunk::new(values))
    }

    fn dictionary<'a>(&self, array: &'a dyn Array) -> Result<Chunk<'a>> {
        let dictionary = array.as_any_dictionary();
        let values = dictionary.values().as_ref();
        let chunk = self.lower(values)?;
        if values.is_empty() {
            return Ok(chunk.select(vec![NULL_KEY; array.len()]));
        }
        self.addressable(values.len())?;
        let mut keys: Vec<u32> = dictionary
            .normalized_keys()
            .into_iter()
            .map(|key| key as u32)
            .collect();
        if let Some(nulls) = dictionary.nulls() {
            for (key, valid) in keys.iter_mut().zip(nulls) {
                if !valid {
                    *key = NULL_KEY;
                }
            }
        }
        Ok(chunk.select(keys))
    }

    /// Unsigned 64-bit integers, provided that each fits a signed one.
    fn narrowed<'a>(&self, array: &'a dyn Array) -> Result<Values<'a>> {
        let unsigned = array.as_primitive::<UInt64Type>();
        let too_large = |value: &u64| *value > i64::MAX as u64;
        if let Some(value) = unsigned.iter().flatten().find(too_large) {
            let column = self.name.clone();
            return Err(Error::IntegerRange { column, value });
        }
        let signed = unsigned.values().iter().map(|&value| value as i64);
        Ok(ints(signed.collect::<Vec<_>>(), array))
    }

    /// The elements of one chunk of lists; appends the end of each list to `offsets`.
    fn explode(&self, array: &dyn Array, offsets: &mut Vec<i64>) -> Result<Part> {
        let (elements, bounds) = match array.data_type() {
            DataType::List(_) => bounds(array.as_list::<i32>()),
            DataType::LargeList(_) => bounds(array.as_list::<i64>()),
            DataType::FixedSizeList(_, size) => {
                let ends = (0..=array.len()).map(|row| row * *size as usize);
                (array.as_fixed_size_list().values(), ends.collect())
            }
            other => return Err(self.refused(other, advice(other))),
        };
        let (first, last) = (bounds[0], bounds[array.len()]);
        self.addressable(last - first)?;
        let mut kept = (array.null_count() > 0).then(Vec::new);
        let mut end = offsets[offsets.len() - 1];
        for row in 0..array.len() {
            if array.is_valid(row) {
                let (start, stop) = (bounds[row] - first, bounds[row + 1] - first);
                end += (stop - start) as i64;
                if let Some(kept) = &mut kept {
                    kept.extend(start as u32..stop as u32);
                }
            }
            offsets.push(end);
        }
        let array = elements.slice(first, last - first);
        Ok(Part { array, kept })
    }

    fn addressable(&self, rows: usize) -> Result<()> {
        if rows < NULL_KEY as usize {
            return Ok(());
        }
        Err(Error::ChunkSize {
            column: self.name.clone(),
            rows,
        })
    }

    fn refused(&self, found: &DataType, advice: &str) -> Error {
        Error::Dtype {
            column: self.name.clone(),
            found: found.to_string(),
            advice: advice.to_owned(),
        }
    }
}

fn element_type(dtype: &DataType) -> Option<&DataType> {
    match dtype {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

fn advice(dtype: &DataType) -> &'static str {
    match dtype {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            "a categorical needs integers or strings; use Numeric or cast it"
        }
        _ if element_type(dtype).is_some() => {
            "a categorical needs one value in each row; use Tokens for lists"
        }
        DataType::Struct(_) => "a categorical needs integers or strings; pass one of its fields",
        _ => "a categorical needs integers or strings; cast it to one of them",
    }
}

fn widened<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array) -> Values<'_> {
    let values = array.as_primitive::<T>().values().iter();
    ints(values.map(|&value| value.into()).collect::<Vec<_>>(), array)
}

/// `values` where `array` is not null.
fn ints<'a>(values: impl Into<Cow<'a, [i64]>>, array: &'a dyn Array) -> Values<'a> {
    Values::Ints {
        values: values.into(),
        valid: valid(array),
    }
}

fn valid(array: &dyn Array) -> Option<Bits<'_>> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0)?;
    Some(Bits {
        bytes: nulls.validity(),
        offset: nulls.offset(),
    })
}

/// The elements of lists, and where each list starts, with the end of the last behind them.
fn bounds<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> (&ArrayRef, Vec<usize>) {
    let offsets = lists.value_offsets().iter();
    (
        lists.values(),
        offsets.map(|offset| offset.as_usize()).collect(),
    )
}
