//! Encoded events on disk: Arrow IPC files whose record batches are the blocks of a table.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::types::{ArrowPrimitiveType, Float32Type, Int32Type, Int64Type};
use arrow_array::{ArrayRef, FixedSizeListArray, LargeListArray, PrimitiveArray, RecordBatch};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::reader::read_footer_length;
use arrow_ipc::writer::FileWriter;
use arrow_ipc::{root_as_footer, root_as_message};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use numpy::{Element, PyUntypedArrayMethods};
use pyo3::prelude::*;
use recfm_core::Error;
use recfm_core::hash::checksum;
use recfm_core::regions::{self, Region};

use crate::array::{holds, mismatch, ndim, readonly, writable};
use crate::error::{detached, raised};

/// Writes blocks of equal columns to one file.
#[pyclass(module = "recfm._core")]
pub struct BlockWriter {
    path: PathBuf,
    /// Until the first block says what the columns are, there is no writer.
    writer: Option<FileWriter<BufWriter<File>>>,
}

/// Where a buffer lies: offset and bytes, and its checksum.
type Written = Vec<Vec<(u64, usize, u64)>>;

#[pymethods]
impl BlockWriter {
    #[new]
    fn new(path: PathBuf) -> Self {
        Self { path, writer: None }
    }

    /// Writes one block. A column is `(name, array)`, or `(name, values, offsets)` for lists.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "pyo3 extracts lists as vectors"
    )]
    fn write(&mut self, py: Python<'_>, columns: Vec<Bound<'_, PyAny>>) -> PyResult<()> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays = Vec::with_capacity(columns.len());
        for column in &columns {
            let (name, array) = column_of(column)?;
            fields.push(Field::new(name, array.data_type().clone(), false));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let path = self.path.clone();
        detached(py, || {
            let failed = |error: ArrowError| unwritable(&path, &error);
            let writer = match &mut self.writer {
                Some(writer) => writer,
                none => {
                    let file = File::create(&path)
                        .map_err(|error| failed(ArrowError::IoError(error.to_string(), error)))?;
                    let file = BufWriter::with_capacity(1 << 20, file);
                    none.insert(FileWriter::try_new(file, &schema).map_err(failed)?)
                }
            };
            let batch = RecordBatch::try_new(schema, arrays).map_err(failed)?;
            writer.write(&batch).map_err(failed)
        })
    }

    /// Ends the file on disk and says, for each block, where each column's buffers lie.
    ///
    /// An array has one, a list two: offsets, values. Each is (offset, bytes, XXH3).
    fn finish(&mut self, py: Python<'_>) -> PyResult<Vec<Written>> {
        let (path, writer) = (self.path.clone(), self.writer.take());
        detached(py, || {
            let failed = |error: ArrowError| unwritable(&path, &error);
            let Some(mut writer) = writer else {
                return Ok(vec![]);
            };
            writer.finish().map_err(failed)?;
            let schema = writer.schema().clone();
            let file = writer.into_inner().map_err(failed)?;
            let file = file
                .into_inner()
                .map_err(|error| failed(error.into_error().into()))?;
            file.sync_all().map_err(|error| failed(error.into()))?;
            written(&path, &schema).map_err(failed)
        })
    }
}

/// Reads parts of files into `out`, end to end; `regions` holds (file, offset, bytes, XXH3) for each.
#[pyfunction]
#[allow(
    clippy::needless_pass_by_value,
    reason = "pyo3 extracts lists as vectors"
)]
pub fn read_regions(
    paths: Vec<PathBuf>,
    regions: Vec<(usize, u64, usize, u64)>,
    out: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let mut target = writable::<u8>(out, "out", 1)?;
    let target = target.as_slice_mut()?;
    detached(out.py(), || {
        let regions: Vec<_> = regions
            .into_iter()
            .map(|(file, offset, bytes, checksum)| Region {
                file,
                offset,
                bytes,
                checksum,
            })
            .collect();
        regions::read_regions(&paths, &regions, target)
    })
}

fn column_of(column: &Bound<'_, PyAny>) -> PyResult<(String, ArrayRef)> {
    if let Ok((name, values, offsets)) = column.extract::<(String, Bound<'_, _>, Bound<'_, _>)>() {
        let values = values_of::<Int32Type>(&values, &name)?;
        let offsets = readonly::<i64>(&offsets, &name, 1)?;
        let offsets = OffsetBuffer::new(offsets.as_slice()?.to_vec().into());
        let field = Arc::new(Field::new_list_field(DataType::Int32, false));
        let list = LargeListArray::try_new(field, offsets, Arc::new(values), None);
        let list = list.map_err(|error| {
            let error = Error::Offsets(error.to_string());
            raised(column.py(), &error)
        })?;
        return Ok((name, Arc::new(list)));
    }
    let (name, array): (String, Bound<'_, PyAny>) = column.extract()?;
    let array: ArrayRef = if holds::<i32>(&array) {
        matrix_of::<Int32Type>(&array, &name)?
    } else if holds::<f32>(&array) {
        matrix_of::<Float32Type>(&array, &name)?
    } else if holds::<i64>(&array) {
        matrix_of::<Int64Type>(&array, &name)?
    } else {
        return Err(mismatch(&array, &name, "an int32, int64 or float32 array"));
    };
    Ok((name, array))
}

fn values_of<T: ArrowPrimitiveType<Native: Element>>(
    array: &Bound<'_, PyAny>,
    name: &str,
) -> PyResult<PrimitiveArray<T>> {
    let array = readonly::<T::Native>(array, name, 1)?;
    Ok(PrimitiveArray::new(array.as_slice()?.to_vec().into(), None))
}

/// `[n]` as it is, `[n, d]` as lists of d.
fn matrix_of<T: ArrowPrimitiveType<Native: Element>>(
    array: &Bound<'_, PyAny>,
    name: &str,
) -> PyResult<ArrayRef> {
    if ndim(array) == 1 {
        return Ok(Arc::new(values_of::<T>(array, name)?));
    }
    let array = readonly::<T::Native>(array, name, 2)?;
    let width = array.shape()[1] as i32;
    let values = PrimitiveArray::<T>::new(array.as_slice()?.to_vec().into(), None);
    let field = Arc::new(Field::new_list_field(T::DATA_TYPE, false));
    Ok(Arc::new(FixedSizeListArray::new(
        field,
        width,
        Arc::new(values),
        None,
    )))
}

/// Finds the buffers of every block of a file that was just written.
fn written(path: &Path, schema: &Schema) -> std::result::Result<Vec<Written>, ArrowError> {
    let broken = |what: String| ArrowError::IpcError(what);
    let mut file = File::open(path)?;
    let mut tail = [0; 10];
    file.seek(SeekFrom::End(-10))?;
    file.read_exact(&mut tail)?;
    let mut footer = vec![0; read_footer_length(tail)?];
    file.seek(SeekFrom::End(-10 - footer.len() as i64))?;
    file.read_exact(&mut footer)?;
    let footer = root_as_footer(&footer).map_err(|error| broken(error.to_string()))?;
    let mut blocks = Vec::new();
    for block in footer.recordBatches().iter().flatten() {
        let mut head = vec![0; block.metaDataLength() as usize];
        file.seek(SeekFrom::Start(block.offset() as u64))?;
        file.read_exact(&mut head)?;
        // Behind the continuation mark and the length, 4 bytes each.
        let message = root_as_message(&head[8..]).map_err(|error| broken(error.to_string()))?;
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| broken("a block is no record batch".to_owned()))?;
        let body = block.offset() as u64 + block.metaDataLength() as u64;
        let buffers = batch.buffers();
        let mut buffers = buffers.iter().flatten();
        let mut columns = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let mut regions = Vec::new();
            for wanted in layout(field.data_type()) {
                let buffer = buffers
                    .next()
                    .ok_or_else(|| broken("a buffer is missing".to_owned()))?;
                if *wanted {
                    let (offset, bytes) = (body + buffer.offset() as u64, buffer.length() as usize);
                    let mut content = vec![0; bytes];
                    file.seek(SeekFrom::Start(offset))?;
                    file.read_exact(&mut content)?;
                    regions.push((offset, bytes, checksum(&content)));
                }
            }
            columns.push(regions);
        }
        blocks.push(columns);
    }
    Ok(blocks)
}

/// The buffers that Arrow writes for a type, and which of them hold data rather than validity.
fn layout(dtype: &DataType) -> &'static [bool] {
    match dtype {
        DataType::FixedSizeList(..) => &[false, false, true],
        DataType::LargeList(_) => &[false, true, false, true],
        _ => &[false, true],
    }
}

fn unwritable(path: &Path, error: &ArrowError) -> Error {
    Error::Unwritable {
        file: path.display().to_string(),
        reason: error.to_string(),
    }
}
