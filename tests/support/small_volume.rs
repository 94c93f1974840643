//! A server whose data folder is a real volume of a few megabytes, so that it can be full.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use super::server::{Options, Server};
use super::volume::small_volume;

/// Megabytes of the smallest volume: room for something else, and for the log with some of its events.
const MEGABYTES: usize = 8;

/// A server whose data folder is a small volume of its own, which nobody else sees and which ends with it.
pub struct SmallVolume {
    pub server: Server,
    _folder: tempfile::TempDir,
}

impl SmallVolume {
    /// Eight megabytes, of which something else has half.
    pub async fn start(config: String) -> Self {
        Self::of(MEGABYTES, config).await
    }

    /// So many megabytes, of which something else has half.
    pub async fn of(megabytes: usize, config: String) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = folder.path().join("data");
        fs::create_dir(&data_dir).expect("a folder");
        let wrapper = small_volume(&data_dir, &format!("{megabytes}m"));
        // It says so of each message that it puts off.
        let errors = Some(folder.path().join("errors"));
        let options = Options { data_dir: Some(data_dir), config, wrapper, errors, ..Options::default() };
        let small = Self { server: Server::with(options).await, _folder: folder };
        fs::write(small.volume().join("else"), vec![b'x'; megabytes << 19]).expect("there is space");
        small
    }

    /// The data folder as the server sees it.
    pub fn volume(&self) -> PathBuf {
        let pid = self.server.child.id().expect("it runs");
        let inside = self.server.data_dir.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{pid}/root")).join(inside)
    }

    /// Lets something else grow until no space is left.
    pub fn fill(&self) {
        let mut filler =
            fs::File::options().append(true).create(true).open(self.volume().join("else")).expect("a file");
        for size in [1 << 16, 1 << 12, 1] {
            loop {
                match filler.write_all(&vec![b'x'; size]) {
                    Ok(()) => {}
                    Err(err) if err.kind() == ErrorKind::StorageFull => break,
                    Err(err) => panic!("{err}"),
                }
            }
        }
    }

    /// Removes what is not the log's.
    pub fn free(&self) {
        fs::remove_file(self.volume().join("else")).expect("it was there");
    }
}
