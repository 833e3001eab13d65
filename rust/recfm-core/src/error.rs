//! The one error type of the core; its [`ErrorKind`] says which Python class it becomes.

use crate::vocab::Kind;

/// Result of a core function.
pub type Result<T> = std::result::Result<T, Error>;

/// What is at fault, one kind for each class of `recfm.errors` that the core raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The schema and the data disagree.
    Schema,
    /// The data itself is unusable.
    Data,
    /// A metric is undefined on this input.
    Metric,
    /// A file cannot be read or written, or is not what was written.
    Storage,
    /// A setting is not known or not possible.
    Config,
}

/// Everything that can go wrong in the core.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A column has a type that its use does not allow.
    #[error("column '{column}' has dtype {found}: {advice}")]
    Dtype {
        /// Name of the column.
        column: String,
        /// Its dtype, in the words of its producer.
        found: String,
        /// What to do about it.
        advice: String,
    },
    /// A vocabulary of one kind met values of the other.
    #[error(
        "column '{column}' holds {found} values, but its vocabulary was fitted on {fitted} values: cast the column to the fitted type"
    )]
    VocabKind {
        /// Name of the vocabulary.
        column: String,
        /// Kind that it was fitted on.
        fitted: Kind,
        /// Kind of the column to encode.
        found: Kind,
    },
    /// A vocabulary threshold below one.
    #[error(
        "column '{column}': min_count is {min_count}, but a value that never occurs has no id: use 1 or more"
    )]
    MinCount {
        /// Name of the column.
        column: String,
        /// The threshold asked for.
        min_count: i64,
    },
    /// A number of hash buckets outside what fits beside padding and out-of-vocabulary in an i32.
    #[error(
        "column '{column}': buckets is {buckets}, but it must lie between 3 (padding, unknown, one value) and 2147483647"
    )]
    Buckets {
        /// Name of the column.
        column: String,
        /// The number asked for.
        buckets: i64,
    },
    /// More distinct values than ids in an i32.
    #[error(
        "column '{column}' has {values} distinct values, more than an i32 id can tell apart: raise min_count or hash it"
    )]
    VocabSize {
        /// Name of the column.
        column: String,
        /// Number of distinct values.
        values: usize,
    },
    /// Stored vocabulary values that no fit could have produced.
    #[error("vocabulary '{column}' is not valid at value {position}: {reason}")]
    VocabValues {
        /// Name of the vocabulary.
        column: String,
        /// Position of the first bad value, from 0.
        position: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A string that is not UTF-8.
    #[error(
        "column '{column}' holds '{value}', which is no UTF-8: decode it, or cast it to numbers"
    )]
    NotText {
        /// Name of the column.
        column: String,
        /// The string, its bad bytes replaced.
        value: String,
    },
    /// A column that is not as long as its table.
    #[error("column '{column}' has {found} rows, but the table has {rows}")]
    ColumnLength {
        /// Name of the column.
        column: String,
        /// Its rows.
        found: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// A string column whose layout points outside its own buffers.
    #[error(
        "column '{column}' is malformed in row {row}: its string lies outside its buffers; its producer made a broken Arrow array"
    )]
    Malformed {
        /// Name of the column.
        column: String,
        /// The row.
        row: usize,
    },
    /// A dictionary or list chunk with more rows than its keys can number.
    #[error(
        "column '{column}' has a chunk of {rows} values, more than 4294967294: pass it in smaller chunks"
    )]
    ChunkSize {
        /// Name of the column.
        column: String,
        /// Rows in the chunk.
        rows: usize,
    },
    /// An unsigned integer that no i64 can hold.
    #[error(
        "column '{column}' holds {value}, more than a signed 64-bit integer can: cast it to strings"
    )]
    IntegerRange {
        /// Name of the column.
        column: String,
        /// The value.
        value: u64,
    },
    /// A null in a column where every row needs a key.
    #[error(
        "column '{column}' is null in row {row}: a key column needs a value in every row; filter or fill the nulls"
    )]
    NullKey {
        /// Name of the column.
        column: String,
        /// First row that is null.
        row: usize,
    },
    /// A key that two rows of a side table share.
    #[error(
        "column '{column}' holds the key {key} in rows {first} and {row}: a side table has one row for each key"
    )]
    TwiceKey {
        /// Name of the column.
        column: String,
        /// First row with the key.
        first: usize,
        /// Second row with the key.
        row: usize,
        /// The key, as 64-bit integer.
        key: i64,
    },
    /// Two arguments that must be equally long are not.
    #[error("`{left}` has {left_len} rows but `{right}` has {right_len}")]
    Length {
        /// One argument.
        left: &'static str,
        /// Its length.
        left_len: usize,
        /// The other argument.
        right: &'static str,
        /// Its length.
        right_len: usize,
    },
    /// A setting that must not be negative is.
    #[error("`{name}` is {value}, but it must not be negative")]
    Negative {
        /// Name of the argument.
        name: &'static str,
        /// Its value.
        value: i64,
    },
    /// A batch size below one.
    #[error("batch_size is {0}, but a batch needs at least one row")]
    BatchSize(i64),
    /// A batch behind the end of the epoch.
    #[error(
        "batch {index} is out of range: {n} rows in batches of {batch_size} make {batches} batches"
    )]
    BatchIndex {
        /// The batch asked for.
        index: i64,
        /// Rows in an epoch.
        n: i64,
        /// Rows in a batch.
        batch_size: i64,
        /// Batches in an epoch.
        batches: i64,
    },
    /// A range of positions outside the epoch.
    #[error("positions {first}..{first}+{count} are no range of the {n} rows of the epoch")]
    Range {
        /// First position.
        first: i64,
        /// Number of positions.
        count: i64,
        /// Rows in the epoch.
        n: i64,
    },
    /// A row number outside the table.
    #[error("`rows[{position}]` is {row}, but the table has {n} rows")]
    RowRange {
        /// Position in the list of rows.
        position: usize,
        /// The row asked for.
        row: i64,
        /// Rows in the table.
        n: usize,
    },
    /// An id that has no row in its embedding table.
    #[error(
        "column '{column}' holds the id {id} in row {row} of the batch, but its embedding table has {rows} rows: build the model on the layout of the data that it reads"
    )]
    IdRange {
        /// The column.
        column: String,
        /// The id.
        id: i32,
        /// Row of the batch.
        row: usize,
        /// Rows of the feature's table.
        rows: usize,
    },
    /// A feature that does not fit its ids or its fused table.
    #[error(
        "feature '{name}' reads column {column} of {columns} and rows up to {end} of a table of {n}"
    )]
    Feature {
        /// Name of the feature.
        name: String,
        /// The column of its ids.
        column: usize,
        /// Columns that there are.
        columns: usize,
        /// Behind the last of its rows.
        end: usize,
        /// Rows of the fused table.
        n: usize,
    },
    /// More rows or uses than a row-wise update can number.
    #[error(
        "a table of {rows} rows with {uses} gradients is too large: both must be at most 4294967296"
    )]
    TableSize {
        /// Rows of the table.
        rows: usize,
        /// Rows of the gradient.
        uses: usize,
    },
    /// List offsets that do not describe lists.
    #[error("`offsets` is not valid: {0}")]
    Offsets(String),
    /// More events than a part of a history index can number.
    #[error(
        "`user` has {0} rows, but one part of a history index holds fewer than 4294967295: append the events in parts"
    )]
    PartSize(usize),
    /// A position that an index points to but does not have.
    #[error(
        "the history index points to {start}..{stop} of {n} values: it is damaged, build it again"
    )]
    IndexRange {
        /// First position.
        start: usize,
        /// Behind the last.
        stop: usize,
        /// Values that there are.
        n: usize,
    },
    /// Bytes of a file that are not what was written.
    #[error(
        "bytes {start} to {stop} of '{file}' do not match their checksum: the file was altered or damaged; restore it from a backup, or build it again"
    )]
    Damaged {
        /// Name of the file.
        file: String,
        /// First of the bytes.
        start: usize,
        /// Behind the last of them.
        stop: usize,
    },
    /// Bytes of a file that no checksum covers.
    #[error(
        "bytes {start} to {stop} of '{file}' have no checksum: the file is damaged, build it again"
    )]
    Unchecked {
        /// Name of the file.
        file: String,
        /// First byte.
        start: usize,
        /// Behind the last byte.
        stop: usize,
    },
    /// A joint key of nothing.
    #[error("a joint key needs at least one column")]
    NoColumns,
    /// A way of storing vectors that is not known.
    #[error("`dtype` is '{0}', but it must be one of bf16, int8, int4")]
    StoredKind(String),
    /// A codebook that int4 cannot use.
    #[error("`codebook` must be 16 finite float32 values, rising")]
    Codebook,
    /// Work that was asked to end.
    #[error("interrupted")]
    Interrupted,
    /// A window that is not a range of events.
    #[error("window {row} is [{start}, {stop}), which is no range of the {n} events")]
    WindowRange {
        /// Query row.
        row: usize,
        /// Its start.
        start: i64,
        /// Its stop.
        stop: i64,
        /// Events in the index.
        n: usize,
    },
    /// A window with more events than the output has places.
    #[error("window {row} has {count} events, but `out` has room for {length}")]
    WindowLength {
        /// Query row.
        row: usize,
        /// Events in its window.
        count: usize,
        /// Places in the output.
        length: usize,
    },
    /// An array argument with the wrong dtype, shape or layout.
    #[error("`{argument}` must be {expected}, found {found}")]
    Array {
        /// Name of the argument.
        argument: String,
        /// What the function needs.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A value that cannot be summed.
    #[error("`values[{row}]` is {value}, but only finite numbers have a sum: drop or clip it")]
    NotFinite {
        /// Position of the first such value.
        row: usize,
        /// The value.
        value: f64,
    },
    /// More values than moments can count.
    #[error(
        "there are {0} values already, and 2^62 is the most: do not merge copies of the same moments"
    )]
    ValueCount(u64),
    /// A moment of nothing.
    #[error("the {0} of no values is undefined: update with at least one")]
    NoValues(&'static str),
    /// Bytes that are no saved state.
    #[error("these bytes are no saved {what}, or they are damaged: {reason}")]
    State {
        /// What they should have been.
        what: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// A setting with a name that is none of the known ones.
    #[error("`{argument}` is '{found}', but it must be {known}")]
    Choice {
        /// Name of the argument.
        argument: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        known: &'static str,
    },
    /// A number of calibration bins that makes no table.
    #[error("`bins` is {0}, but it must lie between 1 and 10000")]
    BinCount(i64),
    /// Rows with users beside rows without.
    #[error(
        "{0} rows are here with users or without, the new ones come the other way round: pass `user` always or never"
    )]
    SomeUsers(usize),
    /// A metric by user of rows without users.
    #[error("gauc is undefined: the rows have no users; pass `user` to every update")]
    NoUsers,
    /// A metric of no rows at all.
    #[error("{0} is undefined: there are no rows")]
    MetricEmpty(&'static str),
    /// A ranking metric where every label is the same.
    #[error("{metric} is undefined: all {n} labels are {label}")]
    OneClass {
        /// The metric.
        metric: &'static str,
        /// Number of labels.
        n: usize,
        /// The only label.
        label: u8,
    },
    /// A grouped metric where no group has both labels.
    #[error("gauc is undefined: none of the {0} groups has both labels")]
    NoGroup(usize),
    /// A label that is neither 0 nor 1.
    #[error("the label of row {row} is {value}, but labels are 0 or 1")]
    Label {
        /// First row with such a label.
        row: usize,
        /// The label.
        value: f32,
    },
    /// A score that cannot be ranked.
    #[error("the score of row {0} is NaN")]
    NanScore(usize),
    /// A prediction that is no probability.
    #[error("the probability of row {row} is {value}, but it must lie in [0, 1]")]
    Probability {
        /// First row with such a prediction.
        row: usize,
        /// The prediction.
        value: f64,
    },
    /// A file that cannot be read.
    #[error("'{file}' cannot be read: {reason}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the operating system said.
        reason: String,
    },
    /// A file that cannot be written.
    #[error("cannot write '{file}': {reason}")]
    Unwritable {
        /// The file.
        file: String,
        /// What the operating system said.
        reason: String,
    },
    /// An unusable `RECFM_NUM_THREADS`.
    #[error("RECFM_NUM_THREADS is '{0}', but it must be a whole number from 1 to 1024")]
    Threads(String),
    /// The operating system would not start the worker threads.
    #[error("cannot start {threads} worker threads: {reason}; set RECFM_NUM_THREADS to fewer")]
    Pool {
        /// Threads asked for.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
}

impl Error {
    /// Which class of Python errors this one belongs to.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Dtype { .. }
            | Self::VocabKind { .. }
            | Self::MinCount { .. }
            | Self::Buckets { .. } => ErrorKind::Schema,
            Self::VocabSize { .. }
            | Self::VocabValues { .. }
            | Self::Malformed { .. }
            | Self::NotText { .. }
            | Self::ColumnLength { .. }
            | Self::ChunkSize { .. }
            | Self::IntegerRange { .. }
            | Self::NullKey { .. }
            | Self::TwiceKey { .. }
            | Self::Length { .. }
            | Self::Negative { .. }
            | Self::BatchSize(_)
            | Self::BatchIndex { .. }
            | Self::Range { .. }
            | Self::RowRange { .. }
            | Self::IdRange { .. }
            | Self::Feature { .. }
            | Self::TableSize { .. }
            | Self::Offsets(_)
            | Self::PartSize(_)
            | Self::Codebook
            | Self::NoColumns
            | Self::StoredKind(_)
            | Self::Interrupted
            | Self::WindowRange { .. }
            | Self::WindowLength { .. }
            | Self::NotFinite { .. }
            | Self::ValueCount(_)
            | Self::NoValues(_)
            | Self::State { .. }
            | Self::Array { .. } => ErrorKind::Data,
            Self::SomeUsers(_)
            | Self::NoUsers
            | Self::MetricEmpty(_)
            | Self::OneClass { .. }
            | Self::NoGroup(_)
            | Self::Label { .. }
            | Self::NanScore(_)
            | Self::Probability { .. } => ErrorKind::Metric,
            Self::Unreadable { .. }
            | Self::Unwritable { .. }
            | Self::IndexRange { .. }
            | Self::Damaged { .. }
            | Self::Unchecked { .. } => ErrorKind::Storage,
            Self::Choice { .. } | Self::BinCount(_) | Self::Threads(_) | Self::Pool { .. } => {
                ErrorKind::Config
            }
        }
    }
}
