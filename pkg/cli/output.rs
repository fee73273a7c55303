//! Printing for people and for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use bson::{Bson, RawDocument};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::Failure;

/// Prints one line, as a whole and at once. A reader that has gone away (`| head`) ends the program
/// quietly.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let line = format!("{text}\n");
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::new(format!("cannot write the output: {error}"))),
    }
}

/// A document as relaxed Extended JSON, key order kept.
pub(crate) fn document(raw: &RawDocument) -> Result<Value, Failure> {
    let document = bson::Document::try_from(raw)
        .map_err(|e| Failure::new(format!("the document does not read back: {e}")))?;
    Ok(Bson::Document(document).into_relaxed_extjson())
}

/// A progress line on the terminal; none where no one looks.
pub(crate) fn progress(what: &'static str, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(what);
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg}: {human_pos} ({per_sec}), {elapsed}")
    {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
