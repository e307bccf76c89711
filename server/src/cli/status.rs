//! `knot status`: one screen. Its first line is a verdict, its last the next command to try.

use serde_json::{Value, json};

use super::CliError;
use super::client::{Client, ClientArgs};
use super::output::{print, print_table, table, text};
use super::people::{get, rows};

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot status
  knot status --server https://knot1.internal:3000 --json
The exit code is 0 where all is well, and 1 where something needs a person.";

/// By how much clocks may differ before that needs a person.
const CLOCK_OFF_MS: u64 = 60_000;

/// What is wrong, and what to try.
struct Finding {
    says: String,
    next: String,
}

pub(super) async fn run(args: &ClientArgs) -> Result<bool, CliError> {
    let client = Client::from_args(args)?;
    let status = get(&client, "/api/cluster/status").await?;
    let members = get(&client, "/api/cluster").await?;
    let findings = findings(&status, &members);
    let is_well = findings.is_empty();
    if args.json {
        let findings: Vec<Value> =
            findings.iter().map(|found| json!({"says": found.says, "next": found.next})).collect();
        print(
            json!({"well": is_well, "url": client.url(), "findings": findings, "status": status, "members": members}),
        )?;
        return Ok(is_well);
    }
    print(match findings.first() {
        None => format!("well: {}", in_one_line(&status, &members)),
        Some(found) => format!("{}: {}", if findings.len() == 1 { "trouble" } else { "troubles" }, found.says),
    })?;
    findings.iter().skip(1).try_for_each(|found| print(format_args!("  {}", found.says)))?;
    print("")?;
    let mut shown = table(&[]);
    for (label, name) in [("server", "name"), ("zone", "zone"), ("version", "version"), ("up, s", "uptime_s")] {
        shown.add_row([label.to_owned(), text(&status, name)]);
    }
    for scope in rows(&status, "scopes") {
        let [name, documents, deleted] = ["scope", "documents", "deleted"].map(|name| text(scope, name));
        shown.add_row([name, format!("{documents} documents, {deleted} deleted")]);
    }
    for member in rows(&members, "data") {
        let [name, zone, state] = ["name", "zone", "status"].map(|name| text(member, name));
        let rtt = member.get("rtt_ms").and_then(Value::as_f64).map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
        shown.add_row([format!("member {name}"), format!("{state}, zone {zone}{rtt}")]);
    }
    print_table(shown)?;
    print("")?;
    print(match findings.first() {
        Some(found) => format!("next: {}", found.next),
        None => "next: knot cluster members".to_owned(),
    })?;
    Ok(is_well)
}

fn in_one_line(status: &Value, members: &Value) -> String {
    let alive = rows(members, "data").iter().filter(|member| text(member, "status") == "alive").count();
    let documents: u64 =
        rows(status, "scopes").iter().filter_map(|scope| scope.get("documents").and_then(Value::as_u64)).sum();
    let servers = if alive == 1 { "1 server".to_owned() } else { format!("{alive} servers") };
    format!("{servers} alive as seen by {}, {documents} documents", text(status, "name"))
}

/// What needs a person, the worst first.
fn findings(status: &Value, members: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |says: String, next: &str| findings.push(Finding { says, next: next.to_owned() });
    if status.get("disk_full") == Some(&Value::Bool(true)) {
        find("the disk is full: this server takes no writes".to_owned(), "df -h; writes return when there is room");
    }
    for (state, next) in [("failed", "knot cluster members --status failed"), ("suspect", "knot cluster members")] {
        let in_state = rows(members, "data").iter().filter(|member| text(member, "status") == state);
        let names: Vec<String> = in_state.map(|member| text(member, "name")).collect();
        if !names.is_empty() {
            find(format!("{state}: {}", names.join(", ")), next);
        }
    }
    let ahead = |member: &Value| member.get("clock_ahead_ms").and_then(Value::as_i64);
    let is_off = |member: &&Value| ahead(member).is_some_and(|ms| ms.unsigned_abs() > CLOCK_OFF_MS);
    if let Some(member) = rows(members, "data").iter().filter(|member| text(member, "status") == "alive").find(is_off) {
        let ms = ahead(member).unwrap_or_default();
        let (seconds, which) = (ms.unsigned_abs() / 1_000, if ms > 0 { "ahead of" } else { "behind" });
        let (name, mine) = (text(member, "name"), text(status, "name"));
        find(format!("clocks differ: {name} is {seconds} s {which} {mine}"), "timedatectl, on both servers");
    }
    if !rows(status, "quarantined").is_empty() {
        find("changes are in quarantine".to_owned(), "knot cluster quarantine list");
    }
    if let Some(trouble) = rows(members, "troubles").first() {
        let says = format!("no stream with {}: {}", text(trouble, "address"), text(trouble, "error"));
        find(says, "knot cluster members");
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worst_comes_first_and_nothing_is_well() {
        let status = json!({"disk_full": true, "name": "n1", "scopes": [{"documents": 3}]});
        let members = json!({"data": [{"name": "n1", "status": "alive"}, {"name": "n2", "status": "failed"}]});
        let found = findings(&status, &members);
        assert!(found[0].says.contains("disk") && found[1].says == "failed: n2", "{}", found.len());
        let well = json!({"disk_full": false, "name": "n1", "scopes": [{"documents": 3}]});
        let off = json!({"data": [{"name": "n2", "status": "alive", "clock_ahead_ms": -90_500}]});
        assert_eq!(findings(&well, &off)[0].says, "clocks differ: n2 is 90 s behind n1");
        let alone = json!({"data": [{"name": "n1", "status": "alive", "clock_ahead_ms": 900}]});
        assert!(findings(&well, &alone).is_empty());
        assert_eq!(in_one_line(&well, &alone), "1 server alive as seen by n1, 3 documents");
    }
}
