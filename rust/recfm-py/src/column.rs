//! Arrow columns lowered to the chunks of the core.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, new_empty_array};
use arrow_schema::DataType;
use pyo3::prelude::*;
use recfm_core::column::{Chunk, NULL_KEY, Values};
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
                let values = array.as_boolean().values().iter().map(i64::from).collect();
                Values::Ints {
                    values: Cow::Owned(values),
                    valid: valid(array),
                }
            }
            DataType::Int8 => widened::<Int8Type>(array),
            DataType::Int16 => widened::<Int16Type>(array),
            DataType::Int32 => widened::<Int32Type>(array),
            DataType::Int64 => {
                let values = Cow::Borrowed(&array.as_primitive::<Int64Type>().values()[..]);
                Values::Ints {
                    values,
                    valid: valid(array),
                }
            }
            DataType::UInt8 => widened::<UInt8Type>(array),
            DataType::UInt16 => widened::<UInt16Type>(array),
            DataType::UInt32 => widened::<UInt32Type>(array),
            DataType::UInt64 => self.narrowed(array)?,
            DataType::Utf8 => Values::Strs(array.as_string::<i32>().iter().collect()),
            DataType::LargeUtf8 => Values::Strs(array.as_string::<i64>().iter().collect()),
            DataType::Utf8View => Values::Strs(array.as_string_view().iter().collect()),
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
        let values = array.as_primitive::<UInt64Type>().values();
        let too_large =
            |&(row, &value): &(usize, &u64)| value > i64::MAX as u64 && array.is_valid(row);
        if let Some((row, &value)) = values.iter().enumerate().find(too_large) {
            return Err(Error::IntegerRange {
                column: self.name.clone(),
                row,
                value,
            });
        }
        let values = values.iter().map(|&value| value as i64).collect();
        Ok(Values::Ints {
            values: Cow::Owned(values),
            valid: valid(array),
        })
    }

    /// The elements of one chunk of lists; appends the end of each list to `offsets`.
    fn explode(&self, array: &dyn Array, offsets: &mut Vec<i64>) -> Result<Part> {
        let (elements, bounds): (_, Vec<usize>) = match array.data_type() {
            DataType::List(_) => {
                let lists = array.as_list::<i32>();
                (
                    lists.values(),
                    lists
                        .value_offsets()
                        .iter()
                        .map(|&offset| offset as usize)
                        .collect(),
                )
            }
            DataType::LargeList(_) => {
                let lists = array.as_list::<i64>();
                (
                    lists.values(),
                    lists
                        .value_offsets()
                        .iter()
                        .map(|&offset| offset as usize)
                        .collect(),
                )
            }
            DataType::FixedSizeList(_, size) => {
                let lists = array.as_fixed_size_list();
                (
                    lists.values(),
                    (0..=array.len()).map(|row| row * *size as usize).collect(),
                )
            }
            other => return Err(self.refused(other, advice(other))),
        };
        let (first, last) = (bounds[0], bounds[array.len()]);
        let mut kept = Vec::new();
        let mut end = offsets[offsets.len() - 1];
        for row in 0..array.len() {
            if array.is_valid(row) {
                end += (bounds[row + 1] - bounds[row]) as i64;
                if array.null_count() > 0 {
                    kept.extend(
                        (bounds[row] - first..bounds[row + 1] - first)
                            .map(|element| element as u32),
                    );
                }
            }
            offsets.push(end);
        }
        self.addressable(last - first)?;
        let kept = (array.null_count() > 0).then_some(kept);
        Ok(Part {
            array: elements.slice(first, last - first),
            kept,
        })
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

/// Which rows are valid, where not all are.
fn valid(array: &dyn Array) -> Option<Vec<bool>> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0)?;
    Some(nulls.iter().collect())
}

fn widened<T: ArrowPrimitiveType<Native: Into<i64>>>(array: &dyn Array) -> Values<'_> {
    let values = array
        .as_primitive::<T>()
        .values()
        .iter()
        .map(|&value| value.into())
        .collect();
    Values::Ints {
        values: Cow::Owned(values),
        valid: valid(array),
    }
}
