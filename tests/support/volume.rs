//! A small volume, which nobody but one program sees and which ends with it.

use std::path::Path;
use std::process::Command;

/// The words before a command line that mount a volume of `size` (`"8m"`) at `folder`; see `Options::wrapper`.
pub fn small_volume(folder: &Path, size: &str) -> Vec<String> {
    let mount = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && shift 2 && exec \"$@\"";
    let words = |flag: &str| ["unshare", flag, "--", "sh", "-c", mount, "sh", size].map(str::to_owned).to_vec();
    // A user namespace needs no privileges but may be forbidden; root needs none.
    let wrapper = ["-rm", "-m"].map(words).into_iter().map(|mut words| {
        words.push(folder.to_str().expect("a path").to_owned());
        words
    });
    let mut possible = wrapper.filter(|words| {
        let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    });
    possible.next().expect(
        "no small volume can be mounted here, and a full disk must be tested with a real one: run the tests as root, \
         or allow user namespaces (util-linux' `unshare -rm`)",
    )
}
