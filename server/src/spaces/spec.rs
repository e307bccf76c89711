//! From a template and what is known of a space to the container that a runtime is asked for.

use crate::templates::{
    Bind, Complaint, Device, Facts, Job, PortMapping, Template, bind, cpus, device, memory, port_mapping,
};

/// A container to run. Everything in it was understood: what was not is a complaint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// What the runtime is to call it; empty leaves that to [`Runtime`](super::runtime::Runtime).
    pub name: String,
    /// What it calls itself.
    pub hostname: String,
    /// What it is made of.
    pub image: String,
    /// Who asks the image's registry.
    pub registry: Option<Credentials>,
    /// What is run instead of what the image says; empty for that.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub environment: Vec<String>,
    /// Ports of the server that lead into it.
    pub ports: Vec<PortMapping>,
    /// What it sees of volumes and of the server's folders.
    pub binds: Vec<Bind>,
    /// The volumes that are kept with the space.
    pub volumes: Vec<String>,
    /// Devices of the server.
    pub devices: Vec<Device>,
    /// Whether it may do all that the server may.
    pub is_privileged: bool,
    /// What it may do besides.
    pub cap_add: Vec<String>,
    /// What it may not do.
    pub cap_drop: Vec<String>,
    /// The runtime's network; empty for its default.
    pub network: String,
    /// Name servers; none for the runtime's.
    pub dns: Vec<String>,
    /// Domains to look in.
    pub dns_search: Vec<String>,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// How much memory it may have; `None` for as much as there is.
    pub memory_bytes: Option<i64>,
    /// How much of a core it may have, in billionths; `None` for all.
    pub nano_cpus: Option<i64>,
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Variables by which programs inside learn which ports are shown outside.
const PORT_VARIABLES: [(&str, &str); 3] =
    [("http", "KNOT_HTTP_PORT"), ("https", "KNOT_HTTPS_PORT"), ("tcp", "KNOT_TCP_PORT")];

/// The container of a space.
///
/// # Errors
/// With all that is wrong with the template, or with what was filled in.
pub fn container(template: &Template, facts: &Facts) -> Result<ContainerSpec, Vec<Complaint>> {
    let job = Job::read(&template.job, &template.volumes, facts)?;
    let understood = "the job was checked for this when it was read";
    let hostname = if job.hostname.is_empty() { facts.space_id.clone() } else { job.hostname };
    let amount =
        |text: &str, read: fn(&str) -> Result<i64, String>| (!text.is_empty()).then(|| read(text).ok()).flatten();
    Ok(ContainerSpec {
        name: job.container_name,
        hostname,
        image: job.image,
        registry: job.auth.map(|auth| Credentials { username: auth.username, password: auth.password }),
        command: job.command,
        environment: environment(template, job.environment),
        ports: job.ports.iter().map(|text| port_mapping(text).expect(understood)).collect(),
        binds: job.volumes.iter().map(|text| bind(text).expect(understood)).collect(),
        volumes: job.kept,
        devices: job.devices.iter().map(|text| device(text).expect(understood)).collect(),
        is_privileged: job.privileged,
        cap_add: job.cap_add,
        cap_drop: job.cap_drop,
        network: job.network,
        dns: job.dns,
        dns_search: job.dns_search,
        extra_hosts: job.add_host,
        memory_bytes: amount(&job.memory, memory),
        nano_cpus: amount(&job.cpus, cpus),
    })
}

/// What the job says, with the template's ports in the place of what it says of those: `80=Web,3000=App`.
fn environment(template: &Template, mut said: Vec<String>) -> Vec<String> {
    for (protocol, variable) in PORT_VARIABLES {
        said.retain(|entry| entry.split('=').next() != Some(variable));
        let ports: Vec<String> = template
            .ports
            .iter()
            .filter(|port| port.protocol == protocol)
            .map(|port| format!("{}={}", port.port, port.name))
            .collect();
        if !ports.is_empty() {
            said.push(format!("{variable}={}", ports.join(",")));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::templates::{Port, Protocol};

    #[test]
    fn a_template_becomes_a_container() {
        let port =
            |name: &str, port, protocol: &str| Port { name: name.to_owned(), port, protocol: protocol.to_owned() };
        let template = Template {
            job: "\
image: r.example/${{ .var.image }}
auth: {username: ann, password: secret}
ports: [\"8080:80\", \"5353:53/udp\"]
volumes: [\"${{ .space.id }}-home:/home:rw\", \"/srv:/srv:ro\"]
environment: [\"A=b\", \"KNOT_HTTP_PORT=1=x\"]
devices: [\"/dev/fuse:/dev/fuse\"]
cap_add: [CAP_NET_ADMIN]
add_host: [\"db:10.0.0.5\"]
dns: [10.0.0.53]
memory: 2G
cpus: 1.5
privileged: true
"
            .to_owned(),
            volumes: "volumes:\n  ${{ .space.id }}-home:\n".to_owned(),
            ports: vec![port("Web", 80, "http"), port("App", 3000, "http"), port("DB", 5432, "tcp")],
            ..Template::default()
        };
        let facts = Facts {
            space_id: "s1".to_owned(),
            variables: [("image".to_owned(), "php:8".to_owned())].into(),
            ..Facts::default()
        };
        let spec = container(&template, &facts).unwrap();
        assert_eq!((spec.image.as_str(), spec.hostname.as_str(), spec.name.as_str()), ("r.example/php:8", "s1", ""));
        assert_eq!(spec.environment, ["A=b", "KNOT_HTTP_PORT=80=Web,3000=App", "KNOT_TCP_PORT=5432=DB"]);
        assert_eq!(spec.ports[1], PortMapping { host: 5353, container: 53, protocol: Protocol::Udp });
        assert_eq!((spec.binds[0].source.as_str(), spec.binds[1].options.as_deref()), ("s1-home", Some("ro")));
        assert_eq!((spec.memory_bytes, spec.nano_cpus, spec.is_privileged), (Some(2 << 30), Some(1_500_000_000), true));
        assert_eq!(spec.volumes, ["s1-home"]);
        assert!(!format!("{spec:?}").contains("secret"));
    }

    #[test]
    fn what_cannot_be_understood_becomes_no_container() {
        let template = Template { job: "image: ${{ .var.image }}\nmemory: a lot\n".to_owned(), ..Template::default() };
        let complaints = container(&template, &Facts::default()).unwrap_err();
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].to_string().starts_with("job line 1, image: there is no variable `.var.image`"));
    }
}
