//! What is read and checked before a port is open: who connects to one expects that postrider stays.

use std::path::Path;

use super::{StartError, routing};
use crate::attachments::Attachments;
use crate::auth::Issuer;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::source::dovecot_push;
use crate::source::intake::{Authenticator, Routing};
use crate::source::mail_over_http;
use crate::source::smtp::{Role, ServerTls, Users};

/// The secrets that the configuration names, and what was made of it.
pub(super) struct Prepared {
    pub routing: Routing,
    /// Who may submit mail, if anybody can.
    pub users: Option<Users>,
    pub authenticator: Authenticator,
    pub dovecot: Option<dovecot_push::Secret>,
    pub mail_over_http: mail_over_http::Secrets,
    /// Whose tokens count beside our own.
    pub issuers: Vec<Issuer>,
}

impl Prepared {
    /// # Errors
    /// Any of [`StartError`] but those of the event log, the key and the ports.
    pub(super) async fn read(config: &Config, data_dir: &Path, metrics: &Metrics) -> Result<Self, StartError> {
        let submits = config.smtp.listeners().any(|listener| listener.role == Role::Submission);
        // Each listener reads its own again: a renewal may come in between.
        config.smtp.listeners().filter_map(|listener| listener.tls_files).try_for_each(|files| {
            ServerTls::load(files)?;
            Ok::<_, StartError>(())
        })?;
        let folder = data_dir.join(Attachments::FOLDER);
        // Where it is not there yet, it is made later, and what keeps it from being made is told then.
        if folder.exists()
            && let Err(err) = std::fs::read_dir(&folder)
        {
            return Err(StartError::Attachments(folder, err));
        }
        let mut issuers = Vec::with_capacity(config.auth.issuer.len());
        for issuer in &config.auth.issuer {
            issuers.push(Issuer::load(issuer).await?);
        }
        Ok(Self {
            issuers,
            routing: routing(config).await?,
            users: if submits { Some(Users::load(&config.smtp.user, true).await?) } else { None },
            authenticator: Authenticator::new(&config.smtp.message_authentication, &config.account, metrics)?,
            dovecot: config.dovecot.secret().await?,
            mail_over_http: config.mail_over_http.secrets().await?,
        })
    }
}
