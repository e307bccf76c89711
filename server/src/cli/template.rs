//! `knot template`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Map, Value};

use super::CliError;
use super::client::{Client, ClientArgs};
use super::output::{print, print_table, table, text};
use super::people::{change, get, rows, said};
use crate::templates::{FILE_BYTES_MAX, Template, read_file, to_toml, to_yaml};

#[derive(Debug, Subcommand)]
pub(super) enum TemplateCommand {
    /// List the templates that you may use
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a template from a file, or make the one of its name what the file says
    Apply {
        /// A TOML or YAML file
        file: PathBuf,
        /// Only say whether the file is right
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Print a template as a file
    Export {
        /// The name or id
        template: String,
        /// As what
        #[arg(long, value_enum, default_value_t = Format::Toml)]
        format: Format,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Delete a template; spaces that were made from it stay
    Delete {
        /// The name or id
        template: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// What a file is written in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    Toml,
    Yaml,
}

pub(super) const EXAMPLES: &str = "EXAMPLES:
  knot template apply php.toml
  knot template apply php.yaml --check
  knot template export php > php.toml
docs/templates.md says what a file may hold.";

pub(super) async fn run(command: TemplateCommand) -> Result<(), CliError> {
    match command {
        TemplateCommand::List { client } => list(&client).await,
        TemplateCommand::Apply { file, check, client } => apply(&file, check, &client).await,
        TemplateCommand::Export { template, format, client } => {
            let asked = Client::from_args(&client)?;
            let found = find(&asked, &template).await?;
            if client.json {
                return print(found);
            }
            let found = Template::read(&found);
            let file = match format {
                Format::Toml => to_toml(&found),
                Format::Yaml => to_yaml(&found),
            };
            print(file.trim_end())
        }
        TemplateCommand::Delete { template, client } => {
            let asked = Client::from_args(&client)?;
            let path = format!("/api/templates/{}", text(&find(&asked, &template).await?, "template_id"));
            let answer = change(&asked, Method::DELETE, &path, Map::new()).await?;
            said(&client, &answer, format_args!("deleted the template {template}"))
        }
    }
}

async fn list(args: &ClientArgs) -> Result<(), CliError> {
    let answer = get(&Client::from_args(args)?, "/api/templates").await?;
    if args.json {
        return print(answer);
    }
    let mut shown = table(&["NAME", "PLATFORM", "ACTIVE", "ZONES", "DESCRIPTION", "ID"]);
    for template in rows(&answer, "templates") {
        let zones: Vec<_> = rows(template, "zones").iter().filter_map(Value::as_str).collect();
        let zones = if zones.is_empty() { "all".to_owned() } else { zones.join(" ") };
        let active = if template.get("active") == Some(&Value::Bool(true)) { "yes" } else { "no" }.to_owned();
        let [name, platform, description, id] =
            ["name", "platform", "description", "template_id"].map(|name| text(template, name));
        shown.add_row([name, platform, active, zones, description, id]);
    }
    print_table(shown)
}

async fn apply(file: &std::path::Path, only_check: bool, args: &ClientArgs) -> Result<(), CliError> {
    let failed = |source| CliError::Io { what: format!("cannot read {}", file.display()), source };
    if std::fs::metadata(file).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(CliError::Usage(format!("{} is over {FILE_BYTES_MAX} bytes", file.display())));
    }
    let content = std::fs::read_to_string(file).map_err(failed)?;
    // Which variables there are the server knows.
    let template = read_file(file, &content, None).map_err(|error| CliError::Usage(error.to_string()))?;
    let asked = Client::from_args(args)?;
    let mut body = match serde_json::to_value(&template) {
        Ok(Value::Object(body)) => body,
        _ => Map::new(),
    };
    body.remove("template_id");
    let validation = change(&asked, Method::POST, "/api/templates/validate", body.clone()).await?;
    let wrong: Vec<String> = rows(&validation, "errors").iter().map(complaint).collect();
    if !wrong.is_empty() {
        return Err(CliError::Usage(format!("{}:\n  {}", file.display(), wrong.join("\n  "))));
    }
    if only_check {
        return said(args, &validation, format_args!("{} is right", file.display()));
    }
    let known = get(&asked, "/api/templates").await?;
    let id = rows(&known, "templates").iter().find(|row| text(row, "name") == template.name);
    let (answer, done) = match id.map(|row| text(row, "template_id")) {
        Some(id) => (change(&asked, Method::PUT, &format!("/api/templates/{id}"), body).await?, "changed"),
        None => (change(&asked, Method::POST, "/api/templates", body).await?, "made"),
    };
    said(args, &answer, format_args!("{done} the template {}", template.name))
}

/// What is wrong with a template, as people read it.
fn complaint(wrong: &Value) -> String {
    let mut sentence = text(wrong, "field");
    if let Some(line) = wrong.get("line").and_then(Value::as_u64) {
        sentence += &format!(" line {line}");
    }
    sentence += &format!(": {}", text(wrong, "message"));
    if wrong.get("hint").is_some_and(Value::is_string) {
        sentence += &format!("; {}", text(wrong, "hint"));
    }
    sentence
}

pub(super) async fn find(client: &Client, wanted: &str) -> Result<Value, CliError> {
    let known = get(client, "/api/templates").await?;
    let is_meant = |row: &&Value| text(row, "template_id") == wanted || text(row, "name") == wanted;
    let found = rows(&known, "templates").iter().find(is_meant).cloned();
    found.ok_or_else(|| CliError::Absent(format!("no template is called {wanted}; `knot template list` names them")))
}
