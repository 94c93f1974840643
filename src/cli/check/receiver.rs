//! What `postrider check` says of all that takes mail in: listeners, who may use them, secrets, name servers, folders.

use std::path::Path;

use postrider::attachments::Attachments;
use postrider::config::Config;
use postrider::source::forward;
use postrider::source::intake::{AddressSecrets, Intake, probe_name_servers};
use postrider::source::smtp::{ListenerSettings, Role, SocketAddress};

use super::super::CliError;
use super::{Findings, places, told};

/// Tries all of it. What is switched off is not looked at.
pub async fn check(config: &Config, data_dir: &Path, findings: &mut Findings) -> Result<(), CliError> {
    for listener in config.smtp.listeners() {
        self::listener(config, &listener, findings).await?;
    }
    users(config, findings).await?;
    secrets(config, findings).await?;
    if config.smtp.listeners().any(|listener| listener.may_verify()) {
        name_servers(config, findings).await?;
    }
    if let Some(forward) = &config.smtp.forward {
        let found = forward::probe(forward, &config.smtp.announced_name()).await.map_err(told);
        findings.tell("smart host", found)?;
    }
    if config.smtp.listeners().next().is_some() {
        findings.tell("spool", places::folder(&data_dir.join(Intake::SPOOL_FOLDER)))?;
    }
    if config.account.iter().any(|account| account.attachments) {
        findings.tell("attachments", places::folder(&data_dir.join(Attachments::FOLDER)))?;
    }
    Ok(())
}

async fn listener(config: &Config, listener: &ListenerSettings, findings: &mut Findings) -> Result<(), CliError> {
    let found = match &listener.listen {
        SocketAddress::Tcp(address) => places::port(*address).await,
        SocketAddress::Unix(path) => places::unix_socket(path),
    };
    findings.tell(listener.role.name(), found)?;
    if let Some(files) = &listener.tls_files {
        findings.detail(files.explain(&config.smtp.announced_name()))?;
    }
    listener.risk().map_or(Ok(()), |risk| findings.note(risk))
}

/// Who submits mail, where that is possible.
async fn users(config: &Config, findings: &mut Findings) -> Result<(), CliError> {
    if config.smtp.listeners().all(|listener| listener.role != Role::Submission) {
        return Ok(());
    }
    for user in &config.smtp.user {
        let found = user.password().await.map(|_| "the password can be read".to_owned()).map_err(told);
        findings.tell(&format!("user {}", user.name), found)?;
    }
    Ok(())
}

/// What others prove themselves with.
async fn secrets(config: &Config, findings: &mut Findings) -> Result<(), CliError> {
    match config.dovecot.secret().await {
        Ok(None) => {}
        Ok(Some(_)) => findings.tell("Dovecot", Ok("the secret of its pushes can be read".to_owned()))?,
        Err(err) => findings.tell("Dovecot", Err(format!("{}; see `[dovecot]`", told(err))))?,
    }
    match config.mail_over_http.secrets().await.map(|secrets| secrets.providers()) {
        Ok(providers) if providers.is_empty() => {}
        Ok(providers) => findings.tell("mail over HTTP", Ok(format!("{} may post", providers.join(", "))))?,
        Err(err) => findings.tell("mail over HTTP", Err(told(err)))?,
    }
    match AddressSecrets::read(&config.account, &config.smtp.route).await {
        Ok(secrets) if secrets.is_empty() => Ok(()),
        Ok(_) => findings.tell("secrets", Ok("those of addresses can be read".to_owned())),
        Err(err) => findings.tell("secrets", Err(told(err))),
    }
}

/// Whom it is asked what senders may do.
async fn name_servers(config: &Config, findings: &mut Findings) -> Result<(), CliError> {
    for (server, found) in probe_name_servers(&config.smtp.message_authentication).await {
        let name = server.map_or_else(|| "the system's".to_owned(), String::from);
        let found = match found {
            Ok(took) => Ok(format!("{name} answered after {} ms", took.as_millis())),
            Err(err) => Err(format!("{name}: {}", told(err))),
        };
        findings.tell("name server", found)?;
    }
    Ok(())
}
