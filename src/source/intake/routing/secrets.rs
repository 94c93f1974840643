//! The secrets of addresses, read from their files before the routing is made: it does no I/O itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{AddressSecret, RouteConfig, RoutingError};
use crate::registry::{Account, first_line_of};

/// What each file says that a configuration names.
#[derive(Debug, Clone, Default)]
pub struct AddressSecrets {
    by_file: HashMap<PathBuf, AddressSecret>,
}

impl AddressSecrets {
    /// Reads all files.
    ///
    /// # Errors
    /// [`RoutingError::SecretFile`] and [`RoutingError::Secret`].
    pub async fn read(accounts: &[Account], routes: &[RouteConfig]) -> Result<Self, RoutingError> {
        let mut secrets = Self::default();
        for file in files(accounts, routes) {
            let text = first_line_of(file).await?;
            secrets.insert(file, &text)?;
        }
        Ok(secrets)
    }

    /// As if each file said something: to find contradictions where the files need not be readable.
    ///
    /// # Errors
    /// None; it is the type of [`Self::read`].
    pub fn assumed(accounts: &[Account], routes: &[RouteConfig]) -> Result<Self, RoutingError> {
        let mut secrets = Self::default();
        for file in files(accounts, routes) {
            secrets.insert(file, &SecretString::from("0123456789abcdef"))?;
        }
        Ok(secrets)
    }

    /// Whether no address has one.
    pub fn is_empty(&self) -> bool {
        self.by_file.is_empty()
    }

    pub(super) fn insert(&mut self, file: &Path, text: &SecretString) -> Result<(), RoutingError> {
        let secret = AddressSecret::parse(text).map_err(|why| RoutingError::Secret { file: file.to_owned(), why })?;
        self.by_file.insert(file.to_owned(), secret);
        Ok(())
    }

    /// What a file says.
    pub(super) fn of(&self, file: &Path) -> Result<AddressSecret, RoutingError> {
        let unread = || RoutingError::Secret { file: file.to_owned(), why: "was not read".to_owned() };
        self.by_file.get(file).cloned().ok_or_else(unread)
    }
}

fn files<'a>(accounts: &'a [Account], routes: &'a [RouteConfig]) -> impl Iterator<Item = &'a Path> {
    let of_accounts = accounts.iter().filter_map(|account| account.address_secret_file.as_deref());
    of_accounts.chain(routes.iter().filter_map(|route| route.secret_file.as_deref()))
}
