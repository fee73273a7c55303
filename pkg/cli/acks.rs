//! The lines that `workload` prints and `check` reads.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use nodestorage::Version;

use crate::Failure;

/// What became of one update.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Acknowledged { id: &'a str, version: Version },
    Unknown { id: &'a str },
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged { id, version } => write!(f, "ack {id} {}", version.get()),
            Self::Unknown { id } => write!(f, "unknown {id}"),
        }
    }
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let line = match (words.next()?, words.next()?, words.next()) {
            ("ack", id, Some(version)) => Self::Acknowledged {
                id,
                version: Version::new(version.parse().ok()?),
            },
            ("unknown", id, None) => Self::Unknown { id },
            _ => return None,
        };
        words.next().is_none().then_some(line)
    }
}

/// Reads what a workload printed. A last line without its end was cut by a kill: who was told nothing
/// whole was told nothing.
pub(crate) fn read(path: &Path, mut each: impl FnMut(&Line<'_>)) -> Result<(), Failure> {
    let failed = |what: fmt::Arguments<'_>| Failure::new(format!("{} {what}", path.display()));
    let file = File::open(path).map_err(|e| failed(format_args!("cannot be read: {e}")))?;
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    for number in 1_u64.. {
        text.clear();
        reader
            .read_line(&mut text)
            .map_err(|e| failed(format_args!("cannot be read: {e}")))?;
        let Some(line) = text.strip_suffix('\n') else {
            break;
        };
        let parsed = Line::parse(line)
            .ok_or_else(|| failed(format_args!("line {number}: no line of a workload")))?;
        each(&parsed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        let acknowledged = Line::Acknowledged {
            id: "doc-7",
            version: Version::new(12),
        };
        for line in [acknowledged, Line::Unknown { id: "doc-7" }] {
            assert_eq!(Line::parse(&line.to_string()), Some(line));
        }
        for other in [
            "",
            "ack",
            "ack a",
            "ack a b",
            "ack a 1 2",
            "unknown a b",
            "hello a",
        ] {
            assert_eq!(Line::parse(other), None, "{other}");
        }
    }
}
