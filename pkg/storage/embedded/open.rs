//! Opening and creating files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, TableHandle};
use uuid::Uuid;

use super::failure::{damaged, guarded, translate};
use super::options::EmbeddedOptions;
use super::store::{Opener, Store};
use super::tables::{META, State, Tables, put, take};
use crate::error::{Error, ErrorKind, Result};

/// The layout of tables and values. A store with another number belongs to another release.
const FORMAT: u32 = 1;

/// What files of redb begin with; see its design document, "super header".
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// Opens or creates a store in a file.
pub(super) fn open_file(path: &Path, options: &EmbeddedOptions) -> Result<Store> {
    let context = |error: Error| error.context(path.display());
    if path.is_dir() {
        return Err(context(invalid("is a directory, not a file")));
    }
    if !path.try_exists().map_err(|e| context(io_error(e)))? {
        create(path, options).map_err(context)?;
    }
    let opener = opener(path.to_owned(), options.cache_bytes);
    let database = opener().map_err(context)?;
    let (database, id) =
        guarded(|| verified(database, path, options.verify_up_to_bytes)).map_err(context)?;
    Store::new(database, id, options.clock.clone(), Some(opener), true).map_err(context)
}

/// A store in memory.
pub(super) fn open_memory(options: &EmbeddedOptions) -> Result<Store> {
    let database = Builder::new()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(redb::backends::InMemoryBackend::new())
        .map_err(translate)?;
    let id = initialise(&database)?;
    Store::new(database, id, options.clock.clone(), None, false)
}

fn opener(path: PathBuf, cache_bytes: usize) -> Opener {
    Box::new(move || {
        guarded(|| {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(io_error)?;
            check_magic(&file)?;
            // From the file and not by path, so that what was looked at is what is opened.
            Builder::new()
                .set_cache_size(cache_bytes)
                .create_file(file)
                .map_err(translate)
        })
    })
}

fn check_magic(file: &File) -> Result<()> {
    let mut begin = Vec::with_capacity(MAGIC.len());
    let mut head = file.take(MAGIC.len() as u64);
    head.read_to_end(&mut begin).map_err(io_error)?;
    if begin.is_empty() {
        // Creation renames a finished file into place, so this is the remains of something else.
        return Err(Error::new(
            ErrorKind::Corrupt,
            "is empty; delete it to begin a new store",
        ));
    }
    if begin != MAGIC {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "is no embedded store, or one whose beginning is damaged",
        ));
    }
    Ok(())
}

/// Creates the store beside its place and links it there when it is complete: a crash in between
/// leaves no half-made store, and of two processes that create it one loses.
fn create(path: &Path, options: &EmbeddedOptions) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(invalid("is no file name")),
    };
    if !folder.is_dir() {
        return Err(invalid("lies in a folder that does not exist"));
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", Uuid::new_v4().simple()));
    let beside = PathBuf::from(beside);
    let result = (|| {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&beside)
            .map_err(io_error)?;
        let database = Builder::new()
            .set_cache_size(options.cache_bytes)
            .create_file(file)
            .map_err(translate)?;
        initialise(&database)?;
        drop(database);
        match fs::hard_link(&beside, path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Ok(()) => sync_folder(folder),
            // Not every file system has links.
            Err(_) => fs::rename(&beside, path)
                .map_err(io_error)
                .and_then(|()| sync_folder(folder)),
        }
    })();
    // Gone already after a rename.
    let _ = fs::remove_file(&beside);
    result
}

/// Makes a new name in a folder durable.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(io_error)?;
    }
    Ok(())
}

/// Writes what every store has.
pub(super) fn initialise(database: &Database) -> Result<Uuid> {
    let id = Uuid::new_v4();
    let mut transaction = database.begin_write().map_err(translate)?;
    transaction.set_quick_repair(true);
    {
        // Opening creates the tables, so that readers find all of them.
        let mut tables = Tables::open(&transaction)?;
        // Not sealed: releases with other seals must be able to read it.
        tables
            .meta
            .insert(b"format".as_slice(), FORMAT.to_le_bytes().as_slice())
            .map_err(translate)?;
        put(&mut tables.meta, b"store", id.as_bytes())?;
        State::default().write(&mut tables.meta)?;
    }
    transaction.commit().map_err(translate)?;
    Ok(id)
}

/// Checks that the database is a store of this format and undamaged.
fn verified(mut database: Database, path: &Path, up_to_bytes: u64) -> Result<(Database, Uuid)> {
    let id = identity(&database)?;
    let size = fs::metadata(path).map_err(io_error)?.len();
    if size <= up_to_bytes {
        let before = State::of(&database)?;
        // It says false for what it could mend; damage to the newest commit it mends by going back to
        // the one before.
        database.check_integrity().map_err(translate)?;
        if State::of(&database)? != before || identity(&database)? != id {
            return Err(damaged("the newest commit"));
        }
    }
    Ok((database, id))
}

fn identity(database: &Database) -> Result<Uuid> {
    let transaction = database.begin_read().map_err(translate)?;
    let ours = transaction
        .list_tables()
        .map_err(translate)?
        .any(|table| table.name() == META.name());
    if !ours {
        return Err(invalid("is a database of another program"));
    }
    let meta = transaction.open_table(META).map_err(translate)?;
    let format = match meta.get(b"format".as_slice()).map_err(translate)? {
        Some(stored) => stored.value().try_into().map(u32::from_le_bytes),
        None => return Err(damaged("the format number")),
    };
    match format {
        Ok(FORMAT) => {}
        Ok(other) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("has format {other}, this release reads format {FORMAT}"),
            ));
        }
        Err(_) => return Err(damaged("the format number")),
    }
    let id = take(&meta, "the store's id", b"store")?;
    id.and_then(|id| Uuid::from_slice(&id).ok())
        .ok_or_else(|| damaged("the store's id"))
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, what)
}

fn io_error(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::ReadOnlyFilesystem => {
            Error::new(ErrorKind::InvalidConfig, "cannot be opened").with_source(error)
        }
        _ => translate(redb::Error::Io(error)),
    }
}
