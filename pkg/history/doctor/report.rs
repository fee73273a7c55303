use std::fmt;

use crate::document::{DocumentKey, Version};

/// How many findings a report holds; the others are only counted. As many as a person reads.
const MAX_FINDINGS: usize = 1_000;

/// What [`Storage::doctor`](crate::Storage::doctor) found.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct DoctorReport {
    /// How many documents were checked, deleted ones included.
    pub documents: u64,
    /// How many log entries were checked.
    pub versions: u64,
    /// How many findings there are.
    pub problems: u64,
    /// The findings, the first 1,000 of them.
    pub findings: Vec<Finding>,
}

impl DoctorReport {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems == 0
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.problems += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// Which document.
    pub key: DocumentKey,
    /// At which version; `None` where there is none.
    pub version: Option<Version>,
    /// What is wrong.
    pub problem: Problem,
}

impl Finding {
    pub(super) fn new(key: &DocumentKey, version: Option<Version>, problem: Problem) -> Self {
        Self {
            key: key.clone(),
            version,
            problem,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(version) = self.version {
            write!(f, " at version {version}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// What is wrong with a document or its log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Another program changed the document and left the version as it was: the change is in no event,
    /// and no update can notice it.
    Changed,
    /// The document has no log entry; its next update adopts it.
    NotLogged,
    /// The document's version has no log entry: another program raised it. The next update adopts it.
    Ahead {
        /// The log's newest version.
        logged: Version,
    },
    /// The document is older than the log: restored from a backup, for example. The next update adopts
    /// it.
    Behind {
        /// The log's newest version.
        logged: Version,
    },
    /// The document has log entries and no version field. The next update adopts it.
    Unversioned,
    /// The document's version field holds no version; updates fail.
    BadVersion {
        /// What is wrong with it.
        reason: String,
    },
    /// The log has the document, and it is not there: deleted by another program. The next update adopts
    /// the deletion.
    Missing,
    /// The log has the document deleted, and it is there. The next update adopts it.
    Undeleted,
    /// The document's `_id` is of a type that the storage does not serve.
    UnusableId,
    /// The log lacks this version, perhaps with those up to the next entry.
    Gap,
    /// The log has this version twice.
    Repeated,
    /// The whole document kept at this version is not what the patches lead to.
    WrongSnapshot,
    /// The log's entries do not lead to this version.
    NotReplayable {
        /// What is in the way.
        reason: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => {
                f.write_str("changed by another program that did not raise the version")
            }
            Self::NotLogged => f.write_str("has no log entry"),
            Self::Ahead { logged } => write!(f, "has no log entry, the log ends at {logged}"),
            Self::Behind { logged } => write!(f, "behind the log, which is at {logged}"),
            Self::Unversioned => f.write_str("has lost its version field"),
            Self::BadVersion { reason } | Self::NotReplayable { reason } => f.write_str(reason),
            Self::Missing => f.write_str("missing, though the log has it"),
            Self::Undeleted => f.write_str("there, though the log has it deleted"),
            Self::UnusableId => f.write_str("has an _id of a type that is not served"),
            Self::Gap => f.write_str("missing in the log"),
            Self::Repeated => f.write_str("twice in the log"),
            Self::WrongSnapshot => {
                f.write_str("the whole document in the log is not what its patches make")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_more_than_it_holds() {
        let mut report = DoctorReport::default();
        assert!(report.is_healthy());
        let key = DocumentKey::new("users", 1);
        for version in 0..1_500 {
            report.add(Finding::new(
                &key,
                Some(Version::new(version)),
                Problem::Gap,
            ));
        }
        assert_eq!(report.problems, 1_500);
        assert_eq!(report.findings.len(), 1_000);
        assert_eq!(
            report.findings[7].to_string(),
            "users/1 at version 7: missing in the log"
        );
    }
}
