//! `postrider token`: a token on standard output, alone, so that scripts can take it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use postrider::auth::{Claims, MercureClaims, PostriderClaims, SigningKey};
use postrider::event::{AccountName, TopicMatcher};
use uuid::Uuid;

use super::{CliError, Global, print};

/// Arguments of `postrider token`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider token --subscribe 'mail/alice/{mailbox}' mail/alice\n  \
    postrider token --subscribe '*' --expires 1h\n  \
    postrider token --publish 'builds/{name}' --expires never\n  \
    curl -H \"Authorization: Bearer $(postrider token --subscribe '*')\" \\\n      \
      'http://127.0.0.1:8025/events?topic=*'\n\n\
    A MATCHER is a topic, a URI template (RFC 6570) or *. Quote it: shells have plans of their own with { and *.")]
pub struct TokenArgs {
    /// Topics whose events may be seen
    #[arg(long, value_name = "MATCHER", num_args = 1..)]
    subscribe: Vec<TopicMatcher>,
    /// Topics on which may be published
    #[arg(long, value_name = "MATCHER", num_args = 1..)]
    publish: Vec<TopicMatcher>,
    /// Accounts whose state may be read, or *
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = account)]
    account: Vec<String>,
    /// May administrate everything
    #[arg(long)]
    admin: bool,
    /// How long it counts: 90s, 12h, 30d, or `never`
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = lifetime)]
    expires: Lifetime,
    /// Whose it is, for your own records
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
}

/// How long a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Never,
    For(Duration),
}

fn account(text: &str) -> Result<String, postrider::event::NameError> {
    AccountName::parse(text).map(|name| name.as_str().to_owned())
}

fn lifetime(text: &str) -> Result<Lifetime, String> {
    if text == "never" {
        return Ok(Lifetime::Never);
    }
    let lifetime = humantime_serde::re::humantime::parse_duration(text).map_err(|err| err.to_string())?;
    if lifetime < Duration::from_secs(1) {
        return Err("it would be over at once".to_owned());
    }
    Ok(Lifetime::For(lifetime))
}

/// Prints a token.
pub fn run(global: &Global, args: &TokenArgs) -> Result<ExitCode, CliError> {
    let claims = claims(args, Timestamp::now()).ok_or(CliError::NoRights)?;
    let key = SigningKey::load_or_create(&global.data_dir()?)?;
    print(format!("{}\n", key.sign(&claims)).as_bytes())
}

/// What the token says; nothing if it would allow nothing.
fn claims(args: &TokenArgs, now: Timestamp) -> Option<Claims> {
    let has_rights = !(args.subscribe.is_empty() && args.publish.is_empty() && args.account.is_empty());
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    (has_rights || args.admin).then(|| Claims {
        mercure: MercureClaims {
            subscribe: args.subscribe.clone(),
            publish: args.publish.clone(),
            ..MercureClaims::default()
        },
        postrider: PostriderClaims { accounts: args.account.clone(), admin: args.admin },
        exp: match args.expires {
            Lifetime::Never => None,
            Lifetime::For(lifetime) => Some(now.saturating_add(lifetime.as_secs())),
        },
        iat: Some(now),
        jti: Some(Uuid::now_v7().to_string()),
        sub: args.subject.clone(),
        ..Claims::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_durations_or_never() {
        assert_eq!(lifetime("never"), Ok(Lifetime::Never));
        assert_eq!(lifetime("30d"), Ok(Lifetime::For(Duration::from_hours(720))));
        assert!(lifetime("0s").is_err() && lifetime("soon").is_err());
    }
}
