//! Files of JSON Lines: plain, gzip or xz.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use bson::{Bson, Document};
use nodestorage::DocumentId;

use crate::Failure;
use crate::plain_json::{self, Unfit};

/// A line far beyond any document that fits a store.
const MAX_LINE_BYTES: usize = 64 << 20;

/// What one line asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) id: DocumentId,
    /// When it happened, as the file says.
    pub(crate) at: Option<String>,
    /// The whole document; `None` deletes.
    pub(crate) document: Option<Document>,
}

/// How lines are to be read.
#[derive(Debug, Clone)]
pub(crate) struct Format {
    /// Lines are `{"id", "at", "doc"}`.
    pub(crate) history: bool,
    /// The field that holds the id, when each line is a document.
    pub(crate) key: String,
    /// The storage's own field, which no document may bring along.
    pub(crate) version_field: String,
}

/// Reads a file line by line.
pub(crate) struct Lines {
    reader: Box<dyn BufRead + Send>,
    name: String,
    format: Format,
    number: u64,
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file; what it is compressed with shows in its first bytes.
    pub(crate) fn open(path: &Path, format: Format) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let fail = |e: std::io::Error| Failure::new(format!("cannot read {name}: {e}"));
        let mut file = BufReader::new(File::open(path).map_err(fail)?);
        let start = file.fill_buf().map_err(fail)?;
        let reader: Box<dyn BufRead + Send> = if start.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file)))
        } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            Box::new(BufReader::new(
                liblzma::bufread::XzDecoder::new_multi_decoder(file),
            ))
        } else {
            Box::new(file)
        };
        Ok(Self {
            reader,
            name,
            format,
            number: 0,
            buffer: Vec::new(),
        })
    }

    /// The storage's own field.
    pub(crate) fn version_field(&self) -> &str {
        &self.format.version_field
    }

    /// The next line that is not blank.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Failure> {
        loop {
            self.number += 1;
            self.buffer.clear();
            let mut bounded = (&mut self.reader).take(MAX_LINE_BYTES as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.buffer);
            let bytes = read.map_err(|e| self.fail(format!("cannot be read: {e}")))?;
            if bytes == 0 {
                return Ok(None);
            }
            if bytes > MAX_LINE_BYTES {
                return Err(self.fail(format!("has more than {MAX_LINE_BYTES} bytes")));
            }
            let text = std::str::from_utf8(&self.buffer)
                .map_err(|e| self.fail(format!("is no UTF-8: {e}")))?;
            let text = text.trim_end_matches(['\n', '\r']);
            // A byte order mark is common in exported files and means nothing.
            let text = text.strip_prefix('\u{feff}').unwrap_or(text);
            if text.trim().is_empty() {
                continue;
            }
            return match self.parse(text) {
                Ok(line) => Ok(Some(line)),
                Err(reason) => Err(self.fail(reason)),
            };
        }
    }

    fn parse(&self, text: &str) -> Result<Line, String> {
        let mut fields = match plain_json::parse(text) {
            Ok(Bson::Document(fields)) => fields,
            Ok(_) => return Err("is no JSON object".to_owned()),
            Err(Unfit { path, reason }) if path.is_empty() => return Err(reason),
            Err(Unfit { path, reason }) => return Err(format!("{reason} at {path}")),
        };
        let (id, at, document) = if self.format.history {
            let id = fields.remove("id").ok_or("has no field \"id\"")?;
            let at = match fields.remove("at") {
                None | Some(Bson::Null) => None,
                Some(Bson::String(at)) => Some(at),
                Some(_) => return Err("has a field \"at\" that is no string".to_owned()),
            };
            let document = match fields.remove("doc") {
                Some(Bson::Document(document)) => Some(document),
                Some(Bson::Null) => None,
                Some(_) => return Err("has a \"doc\" that is neither object nor null".to_owned()),
                None => return Err("has no field \"doc\"".to_owned()),
            };
            (id, at, document)
        } else {
            let key = &self.format.key;
            let id = match fields.get(key) {
                Some(id) => id.clone(),
                None => return Err(format!("has no field {key:?} to take the id from")),
            };
            (id, None, Some(fields))
        };
        let id = match id {
            Bson::String(text) => DocumentId::from(text),
            Bson::Int32(number) => DocumentId::from(number),
            Bson::Int64(number) => DocumentId::from(number),
            _ => return Err("has an id that is neither string nor integer".to_owned()),
        };
        if let Some(document) = &document {
            let version_field = &self.format.version_field;
            if document.contains_key(version_field) {
                return Err(format!(
                    "has a field {version_field:?}, which the storage needs for itself; name another \
                     one with --version-field"
                ));
            }
        }
        Ok(Line {
            number: self.number,
            id,
            at,
            document,
        })
    }

    fn fail(&self, reason: impl std::fmt::Display) -> Failure {
        Failure::new(format!("{} line {}: {reason}", self.name, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(text: &[u8], history: bool) -> Result<Vec<Line>, Failure> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let format = Format {
            history,
            key: "id".into(),
            version_field: "version".into(),
        };
        let mut lines = Lines::open(file.path(), format)?;
        let mut all = Vec::new();
        while let Some(line) = lines.next()? {
            all.push(line);
        }
        Ok(all)
    }

    #[test]
    fn reads_documents_and_history() {
        let all = lines(
            b"\xef\xbb\xbf{\"id\":1,\"b\":2,\"a\":3}\r\n\n{\"id\":\"x\"}",
            false,
        )
        .unwrap();
        assert_eq!((all[0].number, all[1].number), (1, 3));
        let keys: Vec<_> = all[0].document.as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["id", "b", "a"]);
        let all = lines(
            b"{\"id\":\"x\",\"at\":\"2012\",\"doc\":{\"a\":1}}\n{\"id\":\"x\",\"doc\":null}\n",
            true,
        )
        .unwrap();
        assert_eq!(all[0].at.as_deref(), Some("2012"));
        assert_eq!(all[1].document, None);
    }

    #[test]
    fn reads_what_is_compressed() {
        let text = b"{\"id\":1}\n{\"id\":2}\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        assert_eq!(lines(&gzip.finish().unwrap(), false).unwrap().len(), 2);
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text).unwrap();
        let xz = xz.finish().unwrap();
        assert_eq!(lines(&xz, false).unwrap().len(), 2);
        let cut = lines(&xz[..xz.len() - 9], false).unwrap_err().to_string();
        assert!(cut.contains("line"), "{cut}");
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, reason) in [
            (&b"{\"id\":1}\n{\"id\":"[..], "line 2: "),
            (b"[]", "line 1: is no JSON object"),
            (b"{}", "has no field \"id\""),
            (b"{\"id\":[]}", "neither string nor integer"),
            (b"{\"id\":1,\"version\":2}", "--version-field"),
            (
                b"{\"id\":1,\"a\":[1,{\"b\":18446744073709551615}]}",
                "at /a/1/b",
            ),
            (b"{\"id\":\"\xff\"}", "no UTF-8"),
        ] {
            let error = lines(text, false).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        for (text, reason) in [
            (&b"{\"id\":1}"[..], "has no field \"doc\""),
            (b"{\"id\":1,\"doc\":3}", "neither object nor null"),
            (b"{\"id\":1,\"at\":3,\"doc\":null}", "no string"),
        ] {
            let error = lines(text, true).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
