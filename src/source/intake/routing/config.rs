//! `[[smtp.route]]`: where mail goes beyond what an account's `addresses` say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::event::AccountName;
use crate::registry::ForwardTo;

/// `[[smtp.route]]`: recipients that go to an account, named by a pattern or a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// An address; `*` in its local part stands for anything, and `@domain` for all of a domain. One of `match` and
    /// `regex` is needed.
    #[serde(default, rename = "match")]
    pub pattern: Option<String>,
    /// A regular expression that the whole address matches, without regard to case.
    #[serde(default)]
    pub regex: Option<String>,
    /// The account that the mail is for.
    pub account: AccountName,
    /// The mailbox; `$1`, `${name}` and `$detail` stand for what was captured. Default: what follows a `+` in the
    /// address, else INBOX.
    #[serde(default)]
    pub mailbox: Option<String>,
    /// Topics that the events carry beside that of the mailbox, with captures as in `mailbox`. Default: none.
    #[serde(default)]
    pub topics: Vec<String>,
    /// A file whose first line is a secret that the address has to end with, behind `+` or `.`. Default: the account's
    /// `address_secret_file`.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Where the mail goes on to. Default: as the account says.
    #[serde(default)]
    pub forward: Option<ForwardTo>,
}

impl RouteConfig {
    /// A route of what matches `pattern` to an account, with every default.
    pub fn matching(pattern: &str, account: AccountName) -> Self {
        Self {
            pattern: Some(pattern.to_owned()),
            regex: None,
            account,
            mailbox: None,
            topics: Vec::new(),
            secret_file: None,
            forward: None,
        }
    }
}
