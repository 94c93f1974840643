//! Servers that are unpacked beside the system by `tests/support/fetch-servers`, since Debian allows only one IMAP
//! server and only one mail transfer agent to be installed.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Where the packages' files are, as if it were `/`.
pub fn root() -> PathBuf {
    let own = fs::metadata("/proc/self").expect("/proc").uid();
    let servers = std::env::var_os("TEST_SERVERS")
        .map_or_else(|| PathBuf::from(format!("/var/tmp/postrider-test-servers-{own}")), PathBuf::from);
    let root = servers.join("root");
    let owner = fs::metadata(&root).map(|folder| folder.uid());
    assert!(
        owner.is_ok_and(|owner| owner == own),
        "Cyrus, Courier, Exim and OpenSMTPD are not in {}: run tests/support/fetch-servers, which unpacks Debian's packages there",
        root.display()
    );
    root
}

/// A program from there.
pub fn program(path: &str) -> PathBuf {
    let program = root().join(path);
    assert!(program.exists(), "{} is missing: run tests/support/fetch-servers", program.display());
    program
}

/// `LD_LIBRARY_PATH` for programs from there.
pub fn library_path() -> OsString {
    let mut folders = Vec::new();
    for parent in ["usr/lib", "lib"].map(|parent| root().join(parent)) {
        let inner = fs::read_dir(&parent).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        folders.extend(inner.filter(|path| path.to_string_lossy().contains("-linux-gnu")));
        folders.push(parent);
    }
    std::env::join_paths(folders).expect("paths without a colon")
}
