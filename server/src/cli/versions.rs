//! `knot doc diff`, and a document as of a version.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::CliError;
use super::client::{Ask, Client, ClientArgs, ClientError, with_query};
use super::output::{print, printable};
use crate::differences::{Difference, Differences};

/// Prints what differs between two versions of the document at `path`; the later is the present one where none is named.
pub(super) async fn diff(path: &str, from: &str, to: Option<&str>, args: &ClientArgs) -> Result<(), CliError> {
    let client = Client::from_args(args)?;
    let before = value(&client, path, Some(from)).await?;
    let after = value(&client, path, to).await?;
    let found = Differences::between(&before, &after);
    if args.json {
        let row = |Difference { pointer, kind, before, after }: Difference| json!({"pointer": pointer, "kind": kind.word(), "before": before, "after": after});
        let data: Vec<Value> = found.shown.into_iter().map(row).collect();
        return print(json!({"data": data, "more": found.more}));
    }
    if found.is_empty() {
        return print("no member differs");
    }
    for difference in found.shown {
        print(printable(&line(difference)))?;
    }
    if found.more > 0 { print(format_args!("and {} more", found.more)) } else { Ok(()) }
}

/// What the document is or was; nothing where it was deleted.
async fn value(client: &Client, path: &str, at: Option<&str>) -> Result<Value, CliError> {
    let ask = Ask::new(Method::GET, with_query(path, &[("at", at.map(str::to_owned))]));
    match client.ask(ask).await {
        Ok(reply) => Ok(reply.body),
        Err(ClientError::Refused { status: StatusCode::GONE, .. }) => Ok(json!({})),
        Err(error) => Err(error.into()),
    }
}

fn line(difference: Difference) -> String {
    let Difference { pointer, kind, before, after } = difference;
    let pointer = if pointer.is_empty() { "the whole" } else { &pointer };
    let values: Vec<String> = [before, after].into_iter().flatten().map(|value| value.to_string()).collect();
    format!("{:<8} {pointer}  {}", kind.word(), values.join(" -> "))
}
