use bson::spec::ElementType;
use bson::{RawArrayBuf, RawBson, RawBsonRef, RawDocument};

use super::operation::{PatchOp, PatchValue};
use crate::document::Path;
use crate::document::raw::{Counter, RawValue, Writer, corrupt, elements, fields};
use crate::error::Result;

pub(super) fn write(ops: &[PatchOp]) -> Result<RawBson> {
    let mut array = RawArrayBuf::new();
    for op in ops {
        let mut writer = Writer::default();
        let start = writer.open();
        write_op(op, &mut writer)?;
        writer.close(start)?;
        array.push(writer.into_document()?);
    }
    Ok(RawBson::Array(array))
}

fn write_op(op: &PatchOp, writer: &mut Writer) -> Result<()> {
    match op {
        PatchOp::Set { path, value } => {
            path.write(b"set", writer)?;
            writer.field("v", value.as_raw());
        }
        PatchOp::Add {
            path,
            value,
            before,
        } => {
            path.write(b"add", writer)?;
            writer.field("v", value.as_raw());
            if let Some(before) = before {
                writer.string(b"before", before)?;
            }
        }
        PatchOp::Remove { path } => path.write(b"del", writer)?,
        PatchOp::Reorder { path, keys } => {
            path.write(b"order", writer)?;
            array(b"keys", keys, writer, |key, index, writer| {
                writer.string(index, key)
            })?;
        }
        PatchOp::Insert { path, values } => {
            path.write(b"ins", writer)?;
            array(b"vs", values, writer, |value, index, writer| {
                let value = value.as_raw();
                writer.key(value.kind, index);
                writer.value(value.bytes);
                Ok(())
            })?;
        }
        PatchOp::Cut { path, count } => {
            path.write(b"cut", writer)?;
            writer.integer(b"n", *count)?;
        }
    }
    Ok(())
}

fn array<T>(
    key: &[u8],
    items: &[T],
    writer: &mut Writer,
    write: impl Fn(&T, &[u8], &mut Writer) -> Result<()>,
) -> Result<()> {
    writer.key(ElementType::Array, key);
    let start = writer.open();
    let mut counter = Counter::default();
    for item in items {
        write(item, counter.digits(), writer)?;
        counter.increment();
    }
    writer.close(start)
}

pub(super) fn read(value: RawBsonRef<'_>) -> Result<Vec<PatchOp>> {
    let array = value
        .as_array()
        .ok_or_else(|| corrupt("stored patch is not an array"))?;
    let mut ops = Vec::new();
    for item in array {
        let item = item.map_err(|e| corrupt("malformed stored patch").with_source(e))?;
        let document = item
            .as_document()
            .ok_or_else(|| corrupt("stored patch operation is not a document"))?;
        ops.push(read_op(document)?);
    }
    Ok(ops)
}

fn read_op(document: &RawDocument) -> Result<PatchOp> {
    let all = fields(RawValue::document(document))?;
    let keys: Vec<&str> = all.iter().map(|field| field.key).collect();
    let values: Vec<RawValue<'_>> = all.iter().map(|field| field.value).collect();
    match (keys.as_slice(), values.as_slice()) {
        (["set", "v"], [path, value]) => Ok(PatchOp::Set {
            path: Path::from_raw(*path)?,
            value: (*value).into(),
        }),
        (["add", "v"], [path, value]) => Ok(PatchOp::Add {
            path: Path::from_raw(*path)?,
            value: (*value).into(),
            before: None,
        }),
        (["add", "v", "before"], [path, value, before]) => Ok(PatchOp::Add {
            path: Path::from_raw(*path)?,
            value: (*value).into(),
            before: Some(read_key(*before)?),
        }),
        (["del"], [path]) => Ok(PatchOp::Remove {
            path: Path::from_raw(*path)?,
        }),
        (["order", "keys"], [path, keys]) => Ok(PatchOp::Reorder {
            path: Path::from_raw(*path)?,
            keys: read_array(*keys)?
                .into_iter()
                .map(read_key)
                .collect::<Result<_>>()?,
        }),
        (["ins", "vs"], [path, values]) => Ok(PatchOp::Insert {
            path: Path::from_raw(*path)?,
            values: read_array(*values)?
                .into_iter()
                .map(PatchValue::from)
                .collect(),
        }),
        (["cut", "n"], [path, count]) => Ok(PatchOp::Cut {
            path: Path::from_raw(*path)?,
            count: read_count(*count)?,
        }),
        _ => Err(corrupt("unknown operation in a stored patch")),
    }
}

fn read_array(value: RawValue<'_>) -> Result<Vec<RawValue<'_>>> {
    let array = value.is_array().then(|| elements(value)).transpose()?;
    array
        .flatten()
        .ok_or_else(|| corrupt("stored patch operation lacks its array"))
}

fn read_key(value: RawValue<'_>) -> Result<String> {
    value
        .as_key()
        .map(str::to_owned)
        .ok_or_else(|| corrupt("stored patch operation lacks its key"))
}

fn read_count(value: RawValue<'_>) -> Result<usize> {
    value
        .as_count()
        .ok_or_else(|| corrupt("stored patch operation lacks its count"))
}
