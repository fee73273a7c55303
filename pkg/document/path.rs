use std::fmt;

use bson::spec::ElementType;

use super::raw::{Counter, MAX_DEPTH, RawValue, Writer, corrupt, elements};
use crate::error::Result;

/// One step of a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathSegment {
    /// Into the field of a document; the key may be empty and may hold `.` and `$`.
    Key(String),
    /// Into the element of an array, counted from 0.
    Index(usize),
}

impl From<&str> for PathSegment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<String> for PathSegment {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for PathSegment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The place of a value in a document: keys and indexes, outermost first; empty for the document.
///
/// A string converts to a path of *one* key, whatever it holds; paths of several keys are written
/// as arrays: `["address", "city"]`. With an index among the keys:
/// `[PathSegment::from("items"), 3.into()]`.
///
/// Shown as a JSON pointer, RFC 6901: `/address/city`, with `~0` for `~` and `~1` for `/`. Stored
/// as a BSON array of strings and integers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(Vec<PathSegment>);

impl Path {
    /// The segments, outermost first.
    #[must_use]
    pub fn segments(&self) -> &[PathSegment] {
        &self.0
    }

    /// Whether this is the path of the whole document.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the stored form as the value of `key`.
    pub(crate) fn write(&self, key: &[u8], writer: &mut Writer) -> Result<()> {
        writer.key(ElementType::Array, key);
        let start = writer.open();
        let mut counter = Counter::default();
        for segment in &self.0 {
            match segment {
                PathSegment::Key(key) => writer.string(counter.digits(), key)?,
                PathSegment::Index(index) => writer.integer(counter.digits(), *index)?,
            }
            counter.increment();
        }
        writer.close(start)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Corrupt` for anything but an array of strings without NUL and of integers that are not
    /// negative, and for more segments than a document has levels.
    pub(crate) fn from_raw(value: RawValue<'_>) -> Result<Self> {
        let array = value.is_array().then(|| elements(value)).transpose()?;
        let array = array
            .flatten()
            .ok_or_else(|| corrupt("stored path is not an array"))?;
        if array.len() > MAX_DEPTH {
            return Err(corrupt("stored path is longer than documents are deep"));
        }
        let segments = array.into_iter().map(|item| match item.as_key() {
            Some(key) => Ok(PathSegment::from(key)),
            None => item
                .as_count()
                .map(PathSegment::from)
                .ok_or_else(|| corrupt("stored path holds neither a key nor an index")),
        });
        segments.collect::<Result<Vec<_>>>().map(Self)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.0 {
            match segment {
                PathSegment::Key(key) if key.contains(['~', '/']) => {
                    write!(f, "/{}", key.replace('~', "~0").replace('/', "~1"))?;
                }
                PathSegment::Key(key) => write!(f, "/{key}")?,
                PathSegment::Index(index) => write!(f, "/{index}")?,
            }
        }
        Ok(())
    }
}

impl From<Vec<PathSegment>> for Path {
    fn from(segments: Vec<PathSegment>) -> Self {
        Self(segments)
    }
}

impl From<PathSegment> for Path {
    fn from(segment: PathSegment) -> Self {
        Self(vec![segment])
    }
}

impl From<&str> for Path {
    fn from(key: &str) -> Self {
        Self(vec![key.into()])
    }
}

impl From<String> for Path {
    fn from(key: String) -> Self {
        Self(vec![key.into()])
    }
}

impl From<&Path> for Path {
    fn from(path: &Path) -> Self {
        path.clone()
    }
}

impl<S: Into<PathSegment>, const N: usize> From<[S; N]> for Path {
    fn from(segments: [S; N]) -> Self {
        segments.into_iter().collect()
    }
}

impl<S: Into<PathSegment> + Clone> From<&[S]> for Path {
    fn from(segments: &[S]) -> Self {
        segments.iter().cloned().collect()
    }
}

impl<S: Into<PathSegment>> FromIterator<S> for Path {
    fn from_iter<I: IntoIterator<Item = S>>(segments: I) -> Self {
        Self(segments.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_shows_as_json_pointer() {
        let path = Path::from([PathSegment::from("a/b"), "m~n".into(), 3.into(), "".into()]);
        assert_eq!(path.to_string(), "/a~1b/m~0n/3/");
        assert_eq!(Path::default().to_string(), "");
        assert_eq!(Path::from("a.b").to_string(), "/a.b");
        assert_eq!(Path::from(["a", "b"]).to_string(), "/a/b");
    }
}
