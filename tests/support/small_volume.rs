//! A server whose data folder is a real volume of a few megabytes, so that it can be full.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use super::server::{Options, Server};

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
        let size = format!("{megabytes}m");
        let mount = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"";
        let words = |flag: &str| ["unshare", flag, "--", "sh", "-c", mount, "sh", &size].map(str::to_owned).to_vec();
        // A user namespace needs no privileges but may be forbidden; root needs none.
        let wrapper = ["-rm", "-m"].map(words).into_iter().map(|mut words| {
            words.push(data_dir.to_str().expect("a path").to_owned());
            words
        });
        let wrapper = wrapper.into_iter().find(|words| {
            let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output();
            tried.is_ok_and(|output| output.status.success())
        });
        let wrapper = wrapper.expect(
            "no small volume can be mounted here, and a full disk must be tested with a real one: run the tests as \
             root, or allow user namespaces (util-linux' `unshare -rm`)",
        );
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
