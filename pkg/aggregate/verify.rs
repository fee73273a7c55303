use super::{Aggregate, Repository};
use crate::document::{DocumentId, Version, first_difference};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Stored;

/// Whether an aggregate's stored state is what its events lead to.
///
/// # Examples
/// ```
/// # use nodestorage::Result;
/// # use nodestorage::aggregate::{Aggregate, Repository};
/// # async fn example<Account: Aggregate>(accounts: Repository<Account>) -> Result<()> {
/// let verified = accounts.verify("ACC-001").await?;
/// if let Some(path) = &verified.difference {
///     println!("version {} differs from its events at {path:?}", verified.version);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The version that was looked at; 0 if there is nothing.
    pub version: Version,
    /// Where both differ: the path of a field, `/balance` for example, or `""` if one of them is missing; `None` if they agree.
    pub difference: Option<String>,
}

impl Verification {
    /// Whether both agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.difference.is_none()
    }
}

impl<A: Aggregate> Repository<A> {
    /// Compares the stored state with the one that the events lead to, field by field.
    ///
    /// They part when other programs write the document, when [`apply`](Aggregate::apply) was
    /// changed since, or is not pure.
    ///
    /// # Errors
    /// Those of [`find`](Self::find) and [`rebuild`](Self::rebuild).
    pub async fn verify(&self, id: impl Into<DocumentId>) -> Result<Verification> {
        let key = self.key(id)?;
        let found = self.find(key.id()).await?;
        // Up to the version that was found: others may go on meanwhile.
        let to = found.as_ref().map_or(Version::MAX, Stored::version);
        let fold = super::fold::Fold::new();
        let fold = self.fold(&key, fold, to).await?;
        let version = fold.version;
        let difference = match (&found, &fold.state) {
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => Some(String::new()),
            (Some(found), Some(state)) => {
                let raw = |state: &A| {
                    bson::serialize_to_raw_document_buf(state).map_err(|e| {
                        let what = format!("{key} has no form as a document");
                        Error::new(ErrorKind::Serialization, what).with_source(e)
                    })
                };
                let difference = first_difference(&raw(found)?, &raw(state)?, &[])?;
                difference.map(|path| path.to_string())
            }
        };
        Ok(Verification {
            version,
            difference,
        })
    }
}
