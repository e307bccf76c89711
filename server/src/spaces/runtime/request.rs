//! A container as a runtime is asked for it.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::ContainerSpec;
use crate::templates::{Bind, Device, PortMapping, Protocol};

pub(super) fn body(spec: &ContainerSpec, labels: HashMap<String, String>) -> ContainerCreateBody {
    let mut ports: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        let binding = PortBinding { host_ip: None, host_port: Some(port.host.to_string()) };
        ports.entry(inside(port)).or_default().get_or_insert_default().push(binding);
    }
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        hostname: Some(spec.hostname.clone()),
        cmd: some(&spec.command),
        env: some(&spec.environment),
        exposed_ports: (!ports.is_empty()).then(|| ports.keys().cloned().collect()),
        labels: Some(labels),
        host_config: Some(HostConfig {
            binds: some(&spec.binds.iter().map(bound).collect::<Vec<_>>()),
            port_bindings: (!ports.is_empty()).then_some(ports),
            privileged: spec.is_privileged.then_some(true),
            network_mode: (!spec.network.is_empty()).then(|| spec.network.clone()),
            cap_add: some(&spec.cap_add),
            cap_drop: some(&spec.cap_drop),
            devices: some(&spec.devices.iter().map(device).collect::<Vec<_>>()),
            dns: some(&spec.dns),
            dns_search: some(&spec.dns_search),
            extra_hosts: some(&spec.extra_hosts),
            memory: spec.memory_bytes,
            nano_cpus: spec.nano_cpus,
            restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// An image's name and what stands behind it: its tag, its digest, or `latest`.
pub(super) fn image_and_tag(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        // What a registry's port stands in front of is no tag.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn inside(port: &PortMapping) -> String {
    match port.protocol {
        Protocol::Tcp => format!("{}/tcp", port.container),
        Protocol::Udp => format!("{}/udp", port.container),
    }
}

fn bound(bind: &Bind) -> String {
    let options = bind.options.as_ref().map(|options| format!(":{options}")).unwrap_or_default();
    format!("{}:{}{options}", bind.source, bind.target)
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some("rwm".to_owned()),
    }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_name_and_a_tag() {
        for (image, parts) in [
            ("php", ("php", "latest")),
            ("php:8", ("php", "8")),
            ("r.example:5000/a/php", ("r.example:5000/a/php", "latest")),
            ("r.example:5000/a/php:8", ("r.example:5000/a/php", "8")),
            ("php:8@sha256:0a", ("php:8", "sha256:0a")),
        ] {
            assert_eq!(image_and_tag(image), parts, "{image}");
        }
    }

    #[test]
    fn what_is_not_said_is_left_to_the_runtime_but_a_restart() {
        let body = body(&ContainerSpec { image: "php".to_owned(), ..ContainerSpec::default() }, HashMap::new());
        let json = serde_json::to_value(&body).unwrap();
        assert_eq!(json["HostConfig"], serde_json::json!({"RestartPolicy": {"Name": "no"}}));
        assert_eq!((json.get("Cmd"), json.get("Env"), json.get("ExposedPorts")), (None, None, None));
    }

    #[test]
    fn several_ports_may_lead_to_one() {
        let port = |host, protocol| PortMapping { host, container: 53, protocol };
        let ports = vec![port(53, Protocol::Udp), port(5353, Protocol::Udp), port(53, Protocol::Tcp)];
        let json = serde_json::to_value(body(&ContainerSpec { ports, ..ContainerSpec::default() }, HashMap::new()));
        let bindings = &json.unwrap()["HostConfig"]["PortBindings"];
        assert_eq!(bindings["53/udp"], serde_json::json!([{"HostPort": "53"}, {"HostPort": "5353"}]));
        assert_eq!(bindings["53/tcp"], serde_json::json!([{"HostPort": "53"}]));
    }
}
