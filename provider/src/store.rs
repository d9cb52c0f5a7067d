//! [`Store`]: what the application remembers, in one file or in memory.
//!
//! Records are JSON under their id, a table for each kind; a stream of events has its own table, keyed by stream and offset.
//! A change is one transaction: all of it is there after a crash, or none.

use std::{path::Path, sync::Arc};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
    backends::InMemoryBackend,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Code, Error};

/// Events of all streams: (stream, offset) to JSON.
const EVENTS: TableDefinition<'static, (&str, u64), &[u8]> = TableDefinition::new("events");

/// Something that is kept under an id.
pub trait Record: Serialize + DeserializeOwned {
    /// The table that all of the kind are in.
    const TABLE: &'static str;

    /// Its id, unique in the table.
    fn id(&self) -> &str;
}

/// What the application remembers. Clones share it.
#[derive(Clone)]
pub struct Store(Arc<Database>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    /// The store in that file, which is made if it is not there.
    ///
    /// # Errors
    /// [`Code::StoreFailed`] if the file is no store, or another process has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let database = Database::create(path).map_err(|error| {
            let message = format!("the store {} cannot be opened: is another process using it?", path.display());
            Error::new(Code::StoreFailed, message).because(error)
        })?;
        Ok(Self(Arc::new(database)))
    }

    /// A store that is gone with its last clone.
    ///
    /// # Errors
    /// [`Code::StoreFailed`], for want of memory.
    pub fn in_memory() -> Result<Self, Error> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).map_err(failed)?;
        Ok(Self(Arc::new(database)))
    }

    /// Reads one state of everything.
    ///
    /// # Errors
    /// What `read` answers, or [`Code::StoreFailed`].
    pub fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, Error>) -> Result<T, Error> {
        read(&Reader(self.0.begin_read().map_err(failed)?))
    }

    /// Changes all or, if `write` fails, nothing. One change happens after the other, so that what `write` has read still holds
    /// when it is done; it blocks and must be short.
    ///
    /// # Errors
    /// What `write` answers, or [`Code::StoreFailed`].
    pub fn write<T>(&self, write: impl FnOnce(&Writer) -> Result<T, Error>) -> Result<T, Error> {
        let writer = Writer(self.0.begin_write().map_err(failed)?);
        let outcome = write(&writer)?;
        writer.0.commit().map_err(failed)?;
        Ok(outcome)
    }
}

/// One state of everything.
pub struct Reader(ReadTransaction);

impl Reader {
    /// The record of that id.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn get<R: Record>(&self, id: &str) -> Result<Option<R>, Error> {
        match self.0.open_table(records::<R>()) {
            Ok(table) => table.get(id).map_err(failed)?.map(|found| decode(found.value())).transpose(),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// All records of the kind, by id.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn list<R: Record>(&self) -> Result<Vec<R>, Error> {
        match self.0.open_table(records::<R>()) {
            Ok(table) => all(&table),
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// At most `limit` events of the stream from `offset` on, each with its offset.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn events<E: DeserializeOwned>(&self, stream: &str, offset: u64, limit: usize) -> Result<Vec<(u64, E)>, Error> {
        let table = match self.0.open_table(EVENTS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let found = table.range((stream, offset)..=(stream, u64::MAX)).map_err(failed)?.take(limit);
        found
            .map(|event| {
                let (key, value) = event.map_err(failed)?;
                Ok((key.value().1, decode(value.value())?))
            })
            .collect()
    }
}

impl Reader {
    /// The offset of the last event of the stream; 0 if there is none.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn last_offset(&self, stream: &str) -> Result<u64, Error> {
        let table = match self.0.open_table(EVENTS) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        last(&table, stream)
    }
}

/// A change under way.
pub struct Writer(WriteTransaction);

impl Writer {
    /// The record of that id, as this change has left it.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn get<R: Record>(&self, id: &str) -> Result<Option<R>, Error> {
        let table = self.0.open_table(records::<R>()).map_err(failed)?;
        let found = table.get(id).map_err(failed)?;
        found.map(|found| decode(found.value())).transpose()
    }

    /// All records of the kind, by id, as this change has left them.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn list<R: Record>(&self) -> Result<Vec<R>, Error> {
        all(&self.0.open_table(records::<R>()).map_err(failed)?)
    }

    /// Keeps a record, in the place of the one with its id.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn put<R: Record>(&self, record: &R) -> Result<(), Error> {
        let mut table = self.0.open_table(records::<R>()).map_err(failed)?;
        table.insert(record.id(), encode(record)?.as_slice()).map_err(failed)?;
        Ok(())
    }

    /// Forgets the record of that id, and says whether there was one.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn delete<R: Record>(&self, id: &str) -> Result<bool, Error> {
        let mut table = self.0.open_table(records::<R>()).map_err(failed)?;
        Ok(table.remove(id).map_err(failed)?.is_some())
    }

    /// The offset of the last event of the stream, as this change has left it; 0 if there is none.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn last_offset(&self, stream: &str) -> Result<u64, Error> {
        last(&self.0.open_table(EVENTS).map_err(failed)?, stream)
    }

    /// Adds an event to the end of a stream and says its offset. The first of a stream is 1; there are no holes.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn append<E: Serialize>(&self, stream: &str, event: &E) -> Result<u64, Error> {
        let mut table = self.0.open_table(EVENTS).map_err(failed)?;
        let offset = last(&table, stream)? + 1;
        table.insert((stream, offset), encode(event)?.as_slice()).map_err(failed)?;
        Ok(offset)
    }
}

/// The offset of the last event of the stream; 0 if there is none.
fn last(events: &impl ReadableTable<(&'static str, u64), &'static [u8]>, stream: &str) -> Result<u64, Error> {
    let last = events.range((stream, 0)..=(stream, u64::MAX)).map_err(failed)?.next_back().transpose();
    Ok(last.map_err(failed)?.map_or(0, |(key, _)| key.value().1))
}

fn records<R: Record>() -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(R::TABLE)
}

fn all<R: Record>(table: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Vec<R>, Error> {
    table.iter().map_err(failed)?.map(|entry| decode(entry.map_err(failed)?.1.value())).collect()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(failed)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(failed)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Code::StoreFailed, "what is remembered could not be read or written").because(error)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Note {
        id: String,
        text: String,
    }

    impl Record for Note {
        const TABLE: &'static str = "notes";

        fn id(&self) -> &str {
            &self.id
        }
    }

    fn note(id: &str, text: &str) -> Note {
        Note { id: id.into(), text: text.into() }
    }

    #[test]
    fn what_was_written_is_there_after_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let store = Store::open(&path).unwrap();
        store.write(|tx| tx.put(&note("a", "kept"))).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.read(|tx| tx.get::<Note>("a")).unwrap(), Some(note("a", "kept")));
    }

    #[test]
    fn a_change_that_fails_leaves_nothing_behind() {
        let store = Store::in_memory().unwrap();
        let refused: Result<(), Error> = store.write(|tx| {
            tx.put(&note("a", "lost"))?;
            Err(Error::new(Code::Busy, "no"))
        });
        assert_eq!(refused.unwrap_err().code(), Code::Busy);
        assert_eq!(store.read(|tx| tx.list::<Note>()).unwrap(), []);
    }

    #[test]
    fn offsets_of_a_stream_have_no_holes_however_many_write_at_once() {
        let store = Store::in_memory().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        store.write(|tx| tx.append("s", &"event")).unwrap();
                    }
                });
            }
        });
        store.write(|tx| tx.append("t", &"another")).unwrap();
        let offsets: Vec<u64> =
            store.read(|tx| tx.events::<String>("s", 1, 1000)).unwrap().into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, (1..=200).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_another_has_open_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let _open = Store::open(&path).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert_eq!(error.code(), Code::StoreFailed);
        assert!(error.message().contains("store.redb"), "{error}");
    }
}
