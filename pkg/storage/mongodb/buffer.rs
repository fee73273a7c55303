//! Commands written straight into the bytes that are sent: a document is copied once, from the unit into
//! its command.

use std::fmt::Write as _;

use bson::{RawDocument, RawDocumentBuf};

use super::failure::Failure;
use crate::document::DocumentId;

const STRING: u8 = 0x02;
const DOCUMENT: u8 = 0x03;
const ARRAY: u8 = 0x04;
const BINARY: u8 = 0x05;
const OBJECT_ID: u8 = 0x07;
const BOOLEAN: u8 = 0x08;
const INT32: u8 = 0x10;
const INT64: u8 = 0x12;
const UUID_SUBTYPE: u8 = 0x04;

/// A document under construction. Source of the format: bsonspec.org, version 1.1.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where the documents and arrays that are open begin.
    open: Vec<usize>,
    /// The name of an array element, kept for its memory.
    index: String,
}

impl Buffer {
    /// A document that will have about this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Self {
            bytes: Vec::with_capacity(bytes),
            open: Vec::with_capacity(16),
            index: String::new(),
        };
        buffer.begin();
        buffer
    }

    pub(super) fn finish(mut self) -> Result<RawDocumentBuf, Failure> {
        while !self.open.is_empty() {
            self.close();
        }
        RawDocumentBuf::from_bytes(self.bytes).map_err(Failure::reply)
    }

    /// Opens a document within; [`close`](Self::close) ends it.
    pub(super) fn document(&mut self, name: &str) -> &mut Self {
        self.element(DOCUMENT, name).begin()
    }

    pub(super) fn array(&mut self, name: &str) -> &mut Self {
        self.element(ARRAY, name).begin()
    }

    /// Opens a document that is element `index` of the array that is open.
    pub(super) fn document_at(&mut self, index: usize) -> &mut Self {
        self.element_at(DOCUMENT, index).begin()
    }

    pub(super) fn close(&mut self) -> &mut Self {
        self.bytes.push(0);
        if let Some(start) = self.open.pop() {
            // A length beyond 31 bits cannot be: commands end at 16 MiB.
            let length = (self.bytes.len() - start) as u32;
            if let Some(field) = self.bytes.get_mut(start..start + 4) {
                field.copy_from_slice(&length.to_le_bytes());
            }
        }
        self
    }

    pub(super) fn raw(&mut self, name: &str, document: &RawDocument) -> &mut Self {
        self.element(DOCUMENT, name).extend(document.as_bytes())
    }

    pub(super) fn raw_at(&mut self, index: usize, document: &RawDocument) -> &mut Self {
        self.element_at(DOCUMENT, index).extend(document.as_bytes())
    }

    pub(super) fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.element(STRING, name).string(text)
    }

    pub(super) fn text_at(&mut self, index: usize, text: &str) -> &mut Self {
        self.element_at(STRING, index).string(text)
    }

    /// `"$" + path`, the value of a field in an expression.
    pub(super) fn path_at(&mut self, index: usize, path: &str) -> &mut Self {
        let length = path.len() as u32 + 2;
        self.element_at(STRING, index)
            .extend(&length.to_le_bytes())
            .extend(b"$")
            .extend(path.as_bytes())
            .extend(&[0])
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) -> &mut Self {
        self.element(BOOLEAN, name).extend(&[u8::from(flag)])
    }

    pub(super) fn int64(&mut self, name: &str, number: i64) -> &mut Self {
        self.element(INT64, name).extend(&number.to_le_bytes())
    }

    pub(super) fn int64_at(&mut self, index: usize, number: i64) -> &mut Self {
        self.element_at(INT64, index).extend(&number.to_le_bytes())
    }

    /// A document id in its stored form.
    pub(super) fn id(&mut self, name: &str, id: &DocumentId) -> &mut Self {
        self.element(Self::kind(id), name).id_value(id)
    }

    pub(super) fn id_at(&mut self, index: usize, id: &DocumentId) -> &mut Self {
        self.element_at(Self::kind(id), index).id_value(id)
    }

    fn kind(id: &DocumentId) -> u8 {
        match id {
            DocumentId::Int(number) if i32::try_from(*number).is_ok() => INT32,
            DocumentId::Int(_) => INT64,
            DocumentId::String(_) => STRING,
            DocumentId::Uuid(_) => BINARY,
            DocumentId::ObjectId(_) => OBJECT_ID,
        }
    }

    fn id_value(&mut self, id: &DocumentId) -> &mut Self {
        match id {
            DocumentId::Int(number) => match i32::try_from(*number) {
                Ok(small) => self.extend(&small.to_le_bytes()),
                Err(_) => self.extend(&number.to_le_bytes()),
            },
            DocumentId::String(text) => self.string(text),
            DocumentId::Uuid(uuid) => self
                .extend(&16_u32.to_le_bytes())
                .extend(&[UUID_SUBTYPE])
                .extend(uuid.as_bytes()),
            DocumentId::ObjectId(id) => self.extend(&id.bytes()),
        }
    }

    fn begin(&mut self) -> &mut Self {
        self.open.push(self.bytes.len());
        self.extend(&[0; 4])
    }

    fn element(&mut self, kind: u8, name: &str) -> &mut Self {
        debug_assert!(!name.contains('\0'), "names end at a NUL");
        self.bytes.push(kind);
        self.extend(name.as_bytes()).extend(&[0])
    }

    fn element_at(&mut self, kind: u8, index: usize) -> &mut Self {
        self.bytes.push(kind);
        self.index.clear();
        // Writing to a string does not fail.
        let _ = write!(self.index, "{index}");
        self.bytes.extend_from_slice(self.index.as_bytes());
        self.extend(&[0])
    }

    fn string(&mut self, text: &str) -> &mut Self {
        let length = text.len() as u32 + 1;
        self.extend(&length.to_le_bytes())
            .extend(text.as_bytes())
            .extend(&[0])
    }

    fn extend(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::oid::ObjectId;
    use bson::{RawArrayBuf, rawdoc};
    use uuid::Uuid;

    #[test]
    fn what_is_written_is_what_the_library_writes() {
        let uuid = Uuid::from_u128(7);
        let object_id = ObjectId::new();
        let ids = [
            DocumentId::from(1),
            DocumentId::from(i64::MAX),
            DocumentId::from("사용자"),
            DocumentId::from(uuid),
            DocumentId::from(object_id),
        ];
        let inner = rawdoc! { "": 1, "x": [1, 2] };
        let mut buffer = Buffer::with_capacity(0);
        buffer.text("update", "users").array("list");
        for (index, id) in ids.iter().enumerate() {
            buffer.id_at(index, id);
        }
        buffer
            .close()
            .document("c")
            .id("i", &ids[2])
            .raw("d", &inner);
        buffer.int64("v", 7).flag("yes", true).array("a");
        buffer
            .text_at(0, "t")
            .path_at(1, "p")
            .int64_at(2, -1)
            .raw_at(3, &inner);
        buffer.document_at(4).close();
        let written = buffer.finish().unwrap();
        let list: RawArrayBuf = ids.iter().map(DocumentId::to_raw).collect();
        let expected = rawdoc! {
            "update": "users",
            "list": list,
            "c": {
                "i": "사용자", "d": inner.clone(), "v": 7_i64, "yes": true,
                "a": ["t", "$p", -1_i64, inner, {}],
            },
        };
        assert_eq!(written.as_bytes(), expected.as_bytes());
    }
}
