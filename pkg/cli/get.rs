//! `nodestorage get`: one document, as it is or as it was.

use std::process::ExitCode;

use bson::DateTime;
use nodestorage::{Storage, Version};

use crate::Failure;
use crate::args::Get;
use crate::output;

pub(crate) async fn run(arguments: Get, json: bool) -> Result<ExitCode, Failure> {
    let storage = arguments.document.store.open().await?;
    let result = get(&storage, &arguments, json).await;
    storage.close().await;
    result
}

async fn get(storage: &Storage, arguments: &Get, json: bool) -> Result<ExitCode, Failure> {
    let collection = &arguments.document.collection;
    let id = arguments.document.id()?;
    let history = storage.history(collection, &id);
    let document = if let Some(version) = arguments.version {
        let state = history.at_version(Version::new(version)).await?;
        state.map(|state| output::document(state.document()))
    } else if let Some(at) = &arguments.at {
        let at = DateTime::parse_rfc3339_str(at)
            .map_err(|e| Failure::new(format!("{at:?} is no RFC 3339 time: {e}")))?;
        let state = history.at_time(at).await?;
        state.map(|state| output::document(state.document()))
    } else {
        let found = storage
            .find::<bson::RawDocumentBuf>(collection, &id)
            .await?;
        found.map(|found| output::document(&found))
    };
    let Some(document) = document.transpose()? else {
        eprintln!("nodestorage: {collection}/{id} does not exist");
        return Ok(ExitCode::FAILURE);
    };
    let text = if json {
        document.to_string()
    } else {
        format!("{document:#}")
    };
    output::line(&text)?;
    Ok(ExitCode::SUCCESS)
}
