//! The configuration as a command sees it: file, environment, and the command line over both.

use std::path::PathBuf;

use postrider::config::{Loaded, Source};

use super::{CliError, Global};

impl Global {
    /// Reads and checks the configuration.
    pub(super) fn load(&self) -> Result<Loaded, CliError> {
        let mut loaded = Source::of_process(self.config.clone()).load()?;
        if self.data_dir.is_some() {
            loaded.config.data_dir.clone_from(&self.data_dir);
        }
        Ok(loaded)
    }

    /// The data folder, without a look at the configuration where the command line names it.
    pub(super) fn data_dir(&self) -> Result<PathBuf, CliError> {
        match &self.data_dir {
            Some(folder) => Ok(folder.clone()),
            None => Ok(self.load()?.config.data_dir()?),
        }
    }
}
