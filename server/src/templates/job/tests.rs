use super::*;

const JOB: &str = "\
container_name: ${{ .user.username }}-${{ .space.name }}
hostname: \"${{ .space.name }}\"
image: ${{ .var.registry }}/ubuntu:24.04
auth:
  username: ${{ .var.registry_user }}
  password: ${{ .var.registry_password }}
ports:
  - 8080:80
volumes:
  - ${{ .space.id }}-home:/home
command: [\"/bin/sh\", \"-c\", \"exec sleep 1000\"]
privileged: ${{ .var.privileged }}
environment:
  - TZ=${{ .user.timezone }}
  - \"BRANCH=${{ .custom.branch }}\"
memory: 512M
cpus: 0.5
";
const VOLUMES: &str = "volumes:\n  ${{ .space.id }}-home:\n    size: 5G\n";

fn facts(branch: &str) -> Facts {
    let variables = [
        ("registry", "r.example:5000"),
        ("registry_user", "ann"),
        ("registry_password", "a: b # c"),
        ("privileged", "false"),
    ];
    Facts {
        space_id: "s1".to_owned(),
        space_name: "web".to_owned(),
        username: "ann".to_owned(),
        user_timezone: "Europe/Berlin".to_owned(),
        custom: [("branch".to_owned(), branch.to_owned())].into(),
        variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Facts::default()
    }
}

fn complaints(job: &str, volumes: &str, facts: &Facts) -> Vec<String> {
    let complaints = Job::read(job, volumes, facts).expect_err("this job is wrong");
    complaints.iter().map(ToString::to_string).collect()
}

#[test]
fn a_job_is_read_with_its_references_resolved() {
    let job = Job::read(JOB, VOLUMES, &facts("main")).unwrap();
    assert_eq!(job.container_name, "ann-web");
    assert_eq!(job.image, "r.example:5000/ubuntu:24.04");
    assert_eq!(job.auth.unwrap().password, "a: b # c");
    assert_eq!((job.ports, job.volumes), (vec!["8080:80".to_owned()], vec!["s1-home:/home".to_owned()]));
    assert_eq!(job.command, ["/bin/sh", "-c", "exec sleep 1000"]);
    assert_eq!(job.environment, ["TZ=Europe/Berlin", "BRANCH=main"]);
    assert_eq!((job.memory.as_str(), job.cpus.as_str(), job.privileged), ("512M", "0.5", false));
    assert_eq!(job.kept, ["s1-home"]);
}

#[test]
fn no_value_adds_to_what_the_template_says() {
    for branch in ["x\nprivileged: true", "x\"\nvolumes:\n  - /:/host", "x, privileged: true}", "${{ .var.registry }}"]
    {
        let job = Job::read(JOB, VOLUMES, &facts(branch)).unwrap();
        assert!(!job.privileged && job.volumes == ["s1-home:/home"], "{branch}: {job:?}");
        assert_eq!(job.environment[1], format!("BRANCH={branch}"));
    }
    let mounted = "image: a\nvolumes:\n  - /srv/${{ .custom.branch }}:/data\n";
    assert!(complaints(mounted, "", &facts("x:/etc"))[0].contains("holds a `:`"));
    assert!(complaints(mounted, "", &facts("../etc"))[0].contains("is no volume"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (job, volumes, said) in [
        ("", "", "job line 1, image: is missing; write `image: name:tag`"),
        ("image: a\nmemory: lots\n", "", "job line 2, memory: is no amount of memory; write it as `512M`"),
        (
            "image: a\nvolumes:\n - home:/home\n",
            "",
            "job line 3, volumes[0]: no volume is called \"home\"; add `home: {}`",
        ),
        ("image: a\nprivileged: maybe\n", "", "job line 2, privileged: must be true or false"),
        ("image: a\nports: 80\n", "", "job line 2, ports: must be a list, found a single value"),
        ("image: a\nenvironment:\n  A: 1\n", "", "job line 3, environment: must be a list, found a table"),
        ("image: a\ncommand:\n  - echo: 1\n", "", "job line 3, command[0]: must be a text, found a table"),
        ("image: a\nauth:\n  usrname: b\n", "", "job line 3, auth.usrname: unknown key; did you mean `username`?"),
        ("image: a\nport:\n  - 1:1\n", "", "job line 2, port: unknown key; did you mean `ports`?"),
        ("image: [a\n", "", "job line 2: this is no YAML"),
        (
            "image: ${{ .space.nam }}\n",
            "",
            "job line 1, image: there is no variable `.space.nam`; did you mean `.space.name`?",
        ),
        ("image: a\n", "paths:\n  - /a\n", "volumes line 1, paths: unknown key; there are volumes"),
        ("image: a\n", "volumes:\n  \"a b\": {}\n", "job line 1, volumes: the volume \"a b\" has no valid name"),
        ("- image: a\n", "", "job line 1: must be a table of names and values; write `name: value`"),
    ] {
        let complaints = complaints(job, volumes, &facts("main"));
        assert!(complaints.len() == 1 && complaints[0].starts_with(said), "{job}{volumes}{said}\n{complaints:#?}");
    }
}

#[test]
fn complaints_are_bounded() {
    let many: String = (0..200).map(|at| format!("key{at}: 1\n")).collect();
    assert_eq!(complaints(&many, "", &facts("main")).len(), COMPLAINTS_MAX);
    let long = format!("image: {}\n", "a".repeat(2000));
    assert!(complaints(&long, "", &facts("main"))[0].contains("has at most 1024 bytes, not 2000"));
    let references = format!("image: a\nenvironment:\n  - A={}\n", "${{ .a }}".repeat(9000));
    assert_eq!(complaints(&references, "", &facts("main")).len(), 1);
    assert_eq!(check(&references, "", &Known::default()).len(), COMPLAINTS_MAX);
    let ports: String = (1..200).map(|at| format!("  - {at}:{at}\n")).collect();
    assert!(complaints(&format!("image: a\nports:\n{ports}"), "", &facts("main"))[0].contains("at most 64 entries"));
}

#[test]
fn whatever_is_written_is_read_or_complained_of() {
    const WORDS: [&str; 32] = [
        "image",
        "volumes",
        "ports",
        "environment",
        "privileged",
        "auth",
        "a",
        "1",
        "true",
        "${{",
        "}}",
        ".var.registry",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\n- ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "|",
        ">",
        "#",
        "&x",
        "*x",
        "!t",
        "é\u{feff}",
    ];
    fn property(words: Vec<usize>) -> bool {
        let text: String = words.iter().map(|at| WORDS[at % WORDS.len()]).collect();
        let checked = check(&text, &text, &Known::default());
        let read = Job::read(&text, "", &facts("main"));
        checked.iter().chain(read.iter().flat_map(|_| &[])).all(|complaint| !complaint.message.is_empty())
    }
    quickcheck::QuickCheck::new().tests(3000).quickcheck(property as fn(Vec<usize>) -> bool);
}
