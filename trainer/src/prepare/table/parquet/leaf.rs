//! The leaves of a row group: values with their levels, put together as rows.

use ::parquet::basic::Repetition;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, DataType};
use ::parquet::errors::ParquetError;
use ::parquet::schema::types::ColumnDescriptor;

use super::super::Cell;

/// A value as the file holds it.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bytes(ByteArray),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
}

impl Value {
    /// The value as a cell.
    pub(super) fn cell(self) -> Cell {
        match self {
            Self::Null => Cell::Nothing,
            Self::Int(number) => Cell::Int(number),
            Self::Bool(value) => Cell::Bool(value),
            Self::List(values) => Cell::List(values.into_iter().map(Self::cell).collect()),
            Self::Bytes(bytes) => Cell::Bytes(bytes),
        }
    }
}

/// One leaf of a row group, being read.
pub(super) struct Leaf {
    reader: ColumnReader,
    max_def: i16,
    is_list: bool,
    /// Whether an element of the list may be null.
    null_elements: bool,
}

impl Leaf {
    /// A leaf from its start.
    pub(super) fn new(reader: ColumnReader, descriptor: &ColumnDescriptor) -> Self {
        let repetition = descriptor.self_type().get_basic_info().repetition();
        Self {
            reader,
            max_def: descriptor.max_def_level(),
            is_list: descriptor.max_rep_level() > 0,
            null_elements: repetition == Repetition::OPTIONAL,
        }
    }

    /// The values of the next `rows` rows.
    pub(super) fn read(&mut self, rows: usize) -> ::parquet::errors::Result<Vec<Value>> {
        let levels = Levels {
            rows,
            max_def: self.max_def,
            is_list: self.is_list,
            null_elements: self.null_elements,
        };
        match &mut self.reader {
            ColumnReader::ByteArrayColumnReader(reader) => levels.read(reader, Value::Bytes),
            ColumnReader::Int32ColumnReader(reader) => {
                levels.read(reader, |number| Value::Int(number.into()))
            }
            ColumnReader::Int64ColumnReader(reader) => levels.read(reader, Value::Int),
            ColumnReader::BoolColumnReader(reader) => levels.read(reader, Value::Bool),
            _ => Err(ParquetError::General("a type that is not read here".to_owned())),
        }
    }
}

/// How values of a leaf become rows.
struct Levels {
    rows: usize,
    max_def: i16,
    is_list: bool,
    null_elements: bool,
}

impl Levels {
    fn read<T: DataType>(
        &self,
        reader: &mut ColumnReaderImpl<T>,
        value: fn(T::T) -> Value,
    ) -> ::parquet::errors::Result<Vec<Value>> {
        let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut records = 0;
        while records < self.rows {
            let (read, _, _) = reader.read_records(
                self.rows - records,
                (self.max_def > 0).then_some(&mut defs),
                self.is_list.then_some(&mut reps),
                &mut values,
            )?;
            if read == 0 {
                return Err(ParquetError::General("a column ends early".to_owned()));
            }
            records += read;
        }
        let mut values = values.into_iter().map(value);
        let mut next = || values.next().unwrap_or(Value::Null);
        if self.max_def == 0 {
            return Ok((0..self.rows).map(|_| next()).collect());
        }
        if !self.is_list {
            let of = |def: &i16| if *def == self.max_def { next() } else { Value::Null };
            return Ok(defs.iter().map(of).collect());
        }
        let mut rows: Vec<Value> = Vec::with_capacity(self.rows);
        for (def, rep) in defs.iter().zip(&reps) {
            if *rep == 0 {
                rows.push(Value::List(Vec::new()));
            }
            let Some(Value::List(list)) = rows.last_mut() else {
                return Err(ParquetError::General("a list begins in its middle".to_owned()));
            };
            if *def == self.max_def {
                list.push(next());
            } else if self.null_elements && *def == self.max_def - 1 {
                list.push(Value::Null);
            }
        }
        Ok(rows)
    }
}
