use super::super::{CustomField, Port, ScheduleDay};
use super::*;

fn template() -> Template {
    Template {
        name: "php".to_owned(),
        description: "PHP, \"8\": with # and\ttabs".to_owned(),
        platform: "podman".to_owned(),
        zones: vec!["!gb".to_owned()],
        groups: vec!["web & more".to_owned()],
        compute_units: 4,
        with_ssh: true,
        job: "image: php:8\n# a comment\nenvironment:\n  - A=b\n".to_owned(),
        volumes: "volumes: {}".to_owned(),
        custom_fields: vec![CustomField { name: "branch".to_owned(), description: "what\nto run".to_owned() }],
        ports: vec![
            Port { name: "Web".to_owned(), port: 80, protocol: "http".to_owned() },
            Port { name: "db".to_owned(), port: 5432, protocol: "tcp".to_owned() },
        ],
        schedule_enabled: true,
        schedule: vec![ScheduleDay { enabled: true, from: "9:00am".to_owned(), to: "5:30pm".to_owned() }],
        ..Template::default()
    }
}

fn read(name: &str, text: &str) -> Result<Template, FileError> {
    read_file(Path::new(name), text, None)
}

#[test]
fn what_is_written_is_read_again() {
    let template = template();
    for (name, text) in [("t.yaml", to_yaml(&template)), ("t.toml", to_toml(&template))] {
        let again = read(name, &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again, template, "{text}");
    }
    let yaml = to_yaml(&template);
    assert!(yaml.starts_with("name: \"php\"\ndescription: "), "{yaml}");
    assert!(yaml.contains("job: |2\n  image: php:8\n  # a comment\n"), "{yaml}");
    assert!(to_toml(&template).contains("image: php:8\n# a comment\n"), "{}", to_toml(&template));
    assert_eq!(to_yaml(&Template::default()), "name: \"\"\nplatform: \"container\"\nactive: true\n");
}

#[test]
fn any_text_survives_both_formats() {
    fn property(description: String, job: Vec<String>, ending: bool) -> bool {
        let clean = |text: &str| text.replace('\0', "");
        let job = clean(&job.join("\n")) + if ending { "\n" } else { "" };
        let template = Template {
            name: "a".to_owned(),
            platform: "manual".to_owned(),
            description: clean(&description),
            job,
            ..Template::default()
        };
        let fits = template.description.len() <= DESCRIPTION_BYTES_MAX;
        let reads = |name, text: String| read(name, &text).is_ok_and(|read| read == template);
        !fits || (reads("t.yaml", to_yaml(&template)) && reads("t.toml", to_toml(&template)))
    }
    quickcheck::quickcheck(property as fn(String, Vec<String>, bool) -> bool);
}

#[test]
fn exports_of_other_versions_are_read() {
    let text = "\
name: ubuntu
description: An editor in the browser
platform: docker
active: true
compute_units: 2
features:
  with_terminal: true
  with_code_server: true
groups: []
custom_fields:
  - name: branch
job: |
  image: paularlott/knot-ubuntu:24.04
  environment:
    - KNOT_SERVER=${{ .server.url }}
volumes: |
  volumes: {}
";
    let template = read("t.yml", text).unwrap();
    assert!(template.with_terminal && template.with_code_server && !template.with_ssh);
    assert!(template.job.starts_with("image: paularlott"));
}

#[test]
fn mistakes_are_shown_where_they_are() {
    for (name, text, said) in [
        ("t.txt", "", "t.txt is neither TOML nor YAML by its name"),
        ("t.yaml", "name: a\nplatfrom: podman\njob: \"image: a\"\n", "t.yaml:2:1: platfrom: unknown key"),
        ("t.yaml", "name: a\nplatfrom: podman\njob: \"image: a\"\n", "= did you mean `platform`?"),
        ("t.toml", "name = 'a'\nplatfrom = 'podman'\n", "t.toml:2:1: platfrom: unknown key"),
        ("t.toml", "name = 'a'\nactive = 'yes'\n", "t.toml:2:10: active: must be true or false"),
        ("t.toml", "name = 'a'\n[[ports]]\nport = 70000\n", "t.toml:3:8: ports[0].port: must be a whole number"),
        ("t.toml", "name = 'a'\nname = 'b'\n", "t.toml:2:1: this is no TOML: duplicate key"),
        ("t.toml", "platform = 'manual'\n", "t.toml:1:1: name: is missing"),
        ("t.yaml", "name: a\nzones: [gb, \"!gb\"]\nplatform: manual\n", "t.yaml:2:13: zones[1]: gb is both named"),
        ("t.yaml", "name: a\njob: |\n  image: a\n  prots: []\n", "t.yaml:4:3: job, prots: unknown key"),
        ("t.toml", "name = 'a'\njob = '''\nimage: a\nprots: []\n'''\n", "t.toml:4:1: job, prots: unknown key"),
        ("t.toml", "name = 'a'\njob = 'image: a b'\n", "t.toml:2:1: job, image: is no image"),
        ("t.yaml", "name: a\nschedule:\n  - from: 25:00\n", "t.yaml:3:11: schedule[0].from: is no time"),
    ] {
        let error = read(name, text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}\n{said}\n{error}");
    }
    let many: String = (0..40).map(|at| format!("key{at} = 1\n")).collect();
    let error = read("t.toml", &many).unwrap_err().to_string();
    assert!(error.ends_with("and 24 more"), "{error}");
}
