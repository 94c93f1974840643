//! The files of attachments: one line of JSON that says what it is, then its octets. Blocking.
//!
//! `ID.new` is pending, `ID` is not. A name is never used twice, and a file is never written again.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::AttachmentId;
use super::ledger::Entry;
use crate::event::AccountName;

/// What the name of a pending file ends with.
const PENDING: &str = "new";
/// The longest first line: names are bounded where they are read.
const HEADER_BYTES_MAX: u64 = 16 * 1024;
/// What a file costs beside its octets: an inode, a name, and the rest of its last block.
const OVERHEAD_BYTES: usize = 4096;
/// What a file without a whole first line is.
const CUT_OFF: ErrorKind = ErrorKind::UnexpectedEof;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Whose it is.
    pub account: AccountName,
    /// A topic of its event.
    pub topic: String,
    /// What its sender calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// What its sender says that it is.
    pub content_type: String,
    /// When it goes.
    pub expires: Timestamp,
}

impl Header {
    /// The first line of a file.
    pub(super) fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// What a file of this length counts for below the bounds: without more than its octets, a million empty ones would be
/// nothing.
pub(super) fn charge(file_len: usize) -> usize {
    file_len.saturating_add(OVERHEAD_BYTES)
}

/// A file that is open, at its first octet.
#[derive(Debug)]
pub struct Kept {
    /// Its name.
    pub id: AttachmentId,
    /// What it is.
    pub header: Header,
    /// Its octets.
    pub len: u64,
    /// Where they are.
    pub file: File,
}

#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    /// In `folder`, which is made when it is needed.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// All that is there. What cannot be read is named and left alone.
    pub(super) fn list(&self) -> io::Result<Vec<(AttachmentId, Entry)>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let Some(id) = path.file_stem().and_then(|stem| AttachmentId::parse(stem.to_str()?)) else { continue };
            let is_pending = path.extension().is_some_and(|extension| extension == PENDING);
            match read_header(&path, id) {
                Ok(Kept { header, file, .. }) => {
                    let pending = is_pending.then(|| header.topic.clone());
                    let bytes = charge(usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX));
                    found.push((id, Entry { account: header.account, bytes, expires: header.expires, pending }));
                }
                // A crash while it was written: no event can speak of it, since that comes after the sync. Of whatever
                // else cannot be read (a failing disk, a newer postrider's header) one may.
                Err(err) if is_pending && err.kind() == CUT_OFF => fs::remove_file(&path)?,
                Err(err) => warn!(path = %path.display(), error = %err, "not an attachment, left alone"),
            }
        }
        Ok(found)
    }

    /// Writes a pending file to the disk. It begins with `first`, the line of its header.
    pub(super) fn write(&self, id: AttachmentId, first: &[u8], octets: &[u8]) -> io::Result<()> {
        let path = self.pending(id);
        let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = match create() {
            Err(err) if err.kind() == ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
                create()?
            }
            created => created?,
        };
        file.write_all(first)?;
        file.write_all(octets)?;
        file.sync_all()
    }

    /// Makes the names of written files durable, too.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    /// An event speaks of it.
    pub(super) fn confirm(&self, id: AttachmentId) -> io::Result<()> {
        fs::rename(self.pending(id), self.folder.join(id.to_string()))
    }

    /// Removes it, whether it is pending or not, or there at all.
    pub(super) fn remove(&self, id: AttachmentId) -> io::Result<()> {
        for path in [self.folder.join(id.to_string()), self.pending(id)] {
            match fs::remove_file(path) {
                Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
                _ => {}
            }
        }
        Ok(())
    }

    /// Opens it. Who has a link to a pending one has it from an event, so that it is committed.
    pub(super) fn open(&self, id: AttachmentId) -> io::Result<Kept> {
        match read_header(&self.folder.join(id.to_string()), id) {
            Err(err) if err.kind() == ErrorKind::NotFound => read_header(&self.pending(id), id),
            opened => opened,
        }
    }

    fn pending(&self, id: AttachmentId) -> PathBuf {
        self.folder.join(format!("{id}.{PENDING}"))
    }
}

fn read_header(path: &Path, id: AttachmentId) -> io::Result<Kept> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut first = Vec::new();
    reader.by_ref().take(HEADER_BYTES_MAX).read_until(b'\n', &mut first)?;
    if first.last() != Some(&b'\n') {
        let is_whole = first.len() as u64 == HEADER_BYTES_MAX;
        let kind = if is_whole { ErrorKind::InvalidData } else { CUT_OFF };
        return Err(io::Error::new(kind, "its first line has no end"));
    }
    let header = serde_json::from_slice(&first).map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?;
    let mut file = reader.into_inner();
    let len = file.metadata()?.len().saturating_sub(first.len() as u64);
    file.seek(SeekFrom::Start(first.len() as u64))?;
    Ok(Kept { id, header, len, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(&folder.path().join("data/attachments"));
        assert_eq!(files.list().unwrap().len(), 0, "nothing is made before it is needed");
        let header = Header {
            account: "alice".parse().unwrap(),
            topic: "mail/alice/INBOX".to_owned(),
            filename: Some("a\nb.txt".to_owned()),
            content_type: "text/plain".to_owned(),
            expires: Timestamp::from_second(1000).unwrap(),
        };
        let (one, two) = (AttachmentId::new(), AttachmentId::new());
        let first = header.line().unwrap();
        files.write(one, &first, b"one\ntwo").unwrap();
        files.write(two, &first, b"").unwrap();
        files.sync_folder().unwrap();
        files.confirm(two).unwrap();
        // What a crash may leave, and what is not ours.
        fs::write(files.pending(AttachmentId::new()), b"{\"account\"").unwrap();
        fs::write(files.folder.join("README"), b"x").unwrap();
        let mut found = files.list().unwrap();
        found.sort_by_key(|(id, _)| id.to_string());
        let told: Vec<_> = found.iter().map(|(id, entry)| (*id, entry.bytes, entry.pending.is_some())).collect();
        let empty = first.len() + 4096;
        assert_eq!(told, [(one, empty + 7, true), (two, empty, false)]);
        assert_eq!(fs::read_dir(&files.folder).unwrap().count(), 3, "the torn one is gone");

        let mut kept = files.open(one).unwrap();
        let mut octets = String::new();
        kept.file.read_to_string(&mut octets).unwrap();
        assert_eq!((octets.as_str(), kept.len, kept.header), ("one\ntwo", 7, header));
        files.remove(one).unwrap();
        files.remove(one).unwrap();
        assert_eq!(files.open(one).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_pending_file_that_cannot_be_read_may_be_linked_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let [looped, newer, torn] = [(); 3].map(|()| files.pending(AttachmentId::new()));
        std::os::unix::fs::symlink(&looped, &looped).unwrap();
        fs::write(&newer, "{\"version\":2\n\noctets").unwrap();
        fs::write(&torn, "").unwrap();
        assert!(files.list().unwrap().is_empty());
        let is_there = |path: &PathBuf| fs::symlink_metadata(path).is_ok();
        assert_eq!([&looped, &newer, &torn].map(is_there), [true, true, false]);
    }
}
