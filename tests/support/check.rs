//! `postrider check` of a configuration whose data folder nobody else uses.

use tempfile::TempDir;
use tokio::process::Command;

use super::within;

/// A folder for the configuration, its data folder, and the files that it names.
pub struct Checked {
    pub folder: TempDir,
}

impl Checked {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The path of a file with this text.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The exit code and all that is said of this configuration, to which ports are added that are free.
    pub async fn check(&self, config: &str) -> (Option<i32>, String) {
        let ports = "http.listen = \"127.0.0.1:0\"\nsmtp.listen = \"127.0.0.1:0\"\n";
        let file = self.file("postrider.toml", &format!("{ports}{config}"));
        let data = self.folder.path().join("data");
        let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["--config", &file, "--data-dir", data.to_str().unwrap(), "check"])
            .output();
        let output = within("postrider check", output).await.unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&told).into_owned())
    }
}
