//! `postrider publish`: an event from a script.

use std::io::{self, Read};
use std::process::ExitCode;

use clap::Args;
use postrider::auth::MercureClaims;
use postrider::event::{EventId, Topic, TopicMatcher};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Server, ServerArgs};
use super::{CliError, Global, logging, print};

/// Longest text that is read from standard input; the server's own limit is lower.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Arguments of `postrider publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "EXAMPLES\n  \
    postrider publish builds/postrider --data 'all tests passed'\n  \
    postrider publish builds/postrider --json '{\"passed\": 412}' --type build\n  \
    make test 2>&1 | tail -1 | postrider publish builds/postrider\n\n\
    Prints the new event's identifier, with which a subscriber can resume.")]
pub struct PublishArgs {
    /// What the event is about; several topics are one event
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<Topic>,
    /// The data, as text [default: standard input]
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// The data, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "data")]
    json: Option<String>,
    /// A name for this kind of event; SSE clients listen for it
    #[arg(long = "type", value_name = "NAME")]
    update_type: Option<String>,
    /// Everybody who may subscribe sees it; otherwise only those whose token covers one of the topics
    #[arg(long)]
    public: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Publishes one event and prints its identifier.
pub fn run(global: &Global, args: &PublishArgs) -> Result<ExitCode, CliError> {
    logging::start_quiet(global.verbose);
    let publish = args.topics.iter().map(TopicMatcher::exact).collect();
    let server = Server::new(global, &args.server, MercureClaims { publish, ..MercureClaims::default() })?;
    let body = body(args, &data(args)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::Runtime)?;
    let id = runtime.block_on(publish_to(&server, &body))?;
    print(format!("{id}\n").as_bytes())
}

async fn publish_to(server: &Server, body: &Value) -> Result<EventId, CliError> {
    let response = server.send(server.events(Method::POST).json(body)).await?;
    let answer = response.text().await.map_err(|err| CliError::Unreachable(server.to_string(), err.without_url()))?;
    event_id(&answer).ok_or_else(|| CliError::Answer(server.to_string()))
}

/// The identifier in an answer: JSON's `id`, or the text itself, as Mercure hubs answer.
fn event_id(answer: &str) -> Option<EventId> {
    let json: Option<Value> = serde_json::from_str(answer).ok();
    let id = json.as_ref().and_then(|json| json.get("id")?.as_str());
    id.unwrap_or(answer.trim()).parse().ok()
}

fn data(args: &PublishArgs) -> Result<Value, CliError> {
    match (&args.data, &args.json) {
        (Some(text), _) => Ok(Value::String(text.clone())),
        (None, Some(json)) => serde_json::from_str(json).map_err(CliError::Json),
        (None, None) => {
            let mut text = String::new();
            io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text).map_err(CliError::Input)?;
            // The line feed that ends what `echo` prints is not part of what is said.
            Ok(Value::String(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
        }
    }
}

fn body(args: &PublishArgs, data: &Value) -> Value {
    let mut body = json!({"topics": args.topics, "data": data, "private": !args.public});
    if let (Some(name), Value::Object(fields)) = (&args.update_type, &mut body) {
        fields.insert("type".to_owned(), Value::String(name.clone()));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_an_answer_have_the_identifier() {
        let id = "urn:uuid:0199d2a0-0000-7000-8000-000000000001";
        assert_eq!(event_id(&format!("{id}\n")).unwrap().to_string(), id);
        assert_eq!(event_id(&format!("{{\"id\": \"{id}\"}}")).unwrap().to_string(), id);
        assert_eq!(event_id("<html>"), None);
    }
}
