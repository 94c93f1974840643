//! The octets of messages, and where they wait: the small ones in memory, the large ones in files without names.
//!
//! A file has no name from its beginning, so that a crash leaves nothing behind. For parsing a message is needed whole;
//! of those that waited in files only [`WHOLE_MAX`] at a time are in memory, however many arrive at once.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

/// Messages out of files that are in memory at the same time. A few more than processors: one may wait for the disk or,
/// while its sender is authenticated, for the network.
pub(crate) const WHOLE_MAX: usize = 4;
/// Writes at the same time; who writes holds what is written in memory.
const WRITES_MAX: usize = 4;

/// A message as its client sent it, without what was added for the way (dots of SMTP).
#[derive(Debug)]
pub(crate) enum Message {
    /// In memory.
    Memory(Bytes),
    /// In a file.
    Spooled(SpoolFile),
}

impl Message {
    /// Its octets.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Memory(octets) => octets.len(),
            Self::Spooled(file) => file.len,
        }
    }

    /// All of it, in memory. Waits until there is room, so keep it no longer than it is needed.
    ///
    /// # Errors
    /// What the system says of the file.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn whole(&self) -> io::Result<Whole> {
        match self {
            Self::Memory(octets) => Ok(Whole { octets: octets.clone(), place: None }),
            Self::Spooled(file) => file.read().await,
        }
    }
}

impl From<Vec<u8>> for Message {
    fn from(octets: Vec<u8>) -> Self {
        Bytes::from(octets).into()
    }
}

impl From<Bytes> for Message {
    fn from(octets: Bytes) -> Self {
        Self::Memory(octets)
    }
}

/// A message that is in memory, and its place there.
#[derive(Debug)]
pub(crate) struct Whole {
    octets: Bytes,
    place: Option<OwnedSemaphorePermit>,
}

impl Whole {
    /// The octets, for whoever keeps them for longer: the place is free when the last of their clones is gone.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.place.is_some() { Bytes::from_owner(self) } else { self.octets }
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets
    }
}

/// Where large messages wait. Clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Spool {
    /// Made when the first message needs it.
    folder: Arc<Path>,
    writes: Arc<Semaphore>,
    whole: Arc<Semaphore>,
}

impl Spool {
    /// In `folder`.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let [writes, whole] = [WRITES_MAX, WHOLE_MAX].map(|places| Arc::new(Semaphore::new(places)));
        Self { folder: folder.into(), writes, whole }
    }

    /// A file for one message.
    pub(crate) fn file(&self) -> SpoolFile {
        SpoolFile { spool: self.clone(), file: None, len: 0 }
    }

    fn make_file(&self) -> io::Result<File> {
        match tempfile::tempfile_in(&self.folder) {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                tempfile::tempfile_in(&self.folder)
            }
            made => made,
        }
    }
}

/// One message in a file. The file goes with the value.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    spool: Spool,
    file: Option<Arc<File>>,
    len: usize,
}

impl SpoolFile {
    /// Octets so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes `octets` behind those that are there.
    ///
    /// # Errors
    /// What the system says; the file is then good for nothing. [`ErrorKind::StorageFull`] and
    /// [`ErrorKind::QuotaExceeded`] mean that there is no space.
    ///
    /// # Cancel safety
    /// When the future is dropped, the file is good for nothing.
    pub(crate) async fn append(&mut self, octets: Vec<u8>) -> io::Result<()> {
        let place = place_in(&self.spool.writes).await;
        let (spool, file, at) = (self.spool.clone(), self.file.clone(), self.len as u64);
        let write = move || {
            let _place = place;
            let file = file.map_or_else(|| spool.make_file().map(Arc::new), Ok)?;
            file.write_all_at(&octets, at)?;
            Ok::<_, io::Error>((file, octets.len()))
        };
        let (file, written) = spawn_blocking(write).await??;
        self.file = Some(file);
        self.len += written;
        Ok(())
    }

    async fn read(&self) -> io::Result<Whole> {
        let Some(file) = self.file.clone() else {
            return Ok(Whole { octets: Bytes::new(), place: None });
        };
        let (place, len) = (place_in(&self.spool.whole).await, self.len);
        let read = move || {
            let mut octets = vec![0; len];
            file.read_exact_at(&mut octets, 0)?;
            Ok(Whole { octets: octets.into(), place })
        };
        spawn_blocking(read).await?
    }
}

/// A place, as soon as there is one. Nobody closes these semaphores.
async fn place_in(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_spooled_message_is_read_back_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("data/spool"));
        let mut file = spool.file();
        assert!(!folder.path().join("data").exists(), "the folder is made when it is needed");
        for part in ["one ", "two ", "three"] {
            file.append(part.into()).await.unwrap();
        }
        let message = Message::Spooled(file);
        assert_eq!(message.len(), 13);
        assert_eq!(&message.whole().await.unwrap()[..], b"one two three");
        let path = folder.path().join("data/spool");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "a crash would leave nothing");
        assert_eq!(Message::Spooled(spool.file()).whole().await.unwrap().len(), 0);
    }

    #[tokio::test]
    async fn only_a_few_spooled_messages_are_in_memory_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned());
        let mut file = spool.file();
        file.append(b"text".to_vec()).await.unwrap();
        let message = Message::Spooled(file);
        let mut held = Vec::new();
        for _ in 0..WHOLE_MAX {
            held.push(message.whole().await.unwrap());
        }
        let small = Message::from(b"small".to_vec());
        assert_eq!(small.whole().await.unwrap().len(), 5, "what is in memory anyway waits for nobody");
        let one_more = timeout(Duration::from_millis(50), message.whole()).await;
        assert!(one_more.is_err(), "it waits");
        held.pop();
        assert_eq!(message.whole().await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_full_volume_is_an_error_that_says_so() {
        let spool = Spool::new("/dev/full/spool".into());
        assert!(spool.file().append(b"x".to_vec()).await.is_err());
    }
}
