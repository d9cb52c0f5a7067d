//! Services and what leads to them.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::util::{at, get, int, int_or_zero, items, text, texts},
    label_text, object_age, or, root, selector_text,
};
use crate::base::Object;

/// `Service`.
pub(in crate::kinds) fn service(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let spec = get(&value, "spec");
    let kind = text(spec, "type");
    let ip = items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or(text(spec, "clusterIP"));
    let balancer: Vec<_> = items(at(&value, &["status", "loadBalancer"]), "ingress")
        .iter()
        .map(|ingress| or(text(ingress, "ip"), text(ingress, "hostname")).to_owned())
        .collect();
    let given = texts(spec, "externalIPs").join(",");
    let external = match kind {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => match (balancer.is_empty(), given.is_empty()) {
            (true, true) => "<pending>".into(),
            (true, false) => given,
            (false, true) => balancer.join(","),
            (false, false) => format!("{},{given}", balancer.join(",")),
        },
        _ => or(&given, "<none>").into(),
    };
    let ports: Vec<_> = items(spec, "ports")
        .iter()
        .map(|port| match int_or_zero(port, "nodePort") {
            0 => format!("{}/{}", int_or_zero(port, "port"), text(port, "protocol")),
            node => format!("{}:{node}/{}", int_or_zero(port, "port"), text(port, "protocol")),
        })
        .collect();
    vec![
        object.name().into(),
        kind.into(),
        or(ip, "<none>").into(),
        external.into(),
        or(&ports.join(","), "<none>").into(),
        object_age(object, now),
        label_text(get(spec, "selector")).into(),
    ]
}

/// `NetworkPolicy`.
pub(in crate::kinds) fn network_policy(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let selector = at(&value, &["spec", "podSelector"]);
    vec![object.name().into(), selector_text(selector).into(), object_age(object, now)]
}

/// The first three of a list, and how many more there are.
fn first_three(list: &[String], none: &str) -> String {
    match list.len() {
        0 => none.into(),
        1..=3 => list.join(","),
        more => format!("{} + {} more...", list[..3].join(","), more - 3),
    }
}

/// `Endpoints`.
pub(in crate::kinds) fn endpoints(object: &Object, now: Timestamp) -> Vec<Value> {
    let mut list = Vec::new();
    for subset in items(&root(object), "subsets") {
        let ports = items(subset, "ports");
        for address in items(subset, "addresses") {
            let ip = text(address, "ip");
            if ports.is_empty() {
                list.push(ip.to_owned());
            }
            list.extend(ports.iter().map(|port| format!("{ip}:{}", int_or_zero(port, "port"))));
        }
    }
    vec![object.name().into(), first_three(&list, "<none>").into(), object_age(object, now)]
}

/// `EndpointSlice`.
pub(in crate::kinds) fn endpoint_slice(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let addresses = items(&value, "endpoints").iter().flat_map(|endpoint| texts(endpoint, "addresses"));
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    let ports: Vec<String> = items(&value, "ports")
        .iter()
        .map(|port| int(port, "port").map_or_else(|| "*".to_owned(), |port| port.to_string()))
        .collect();
    vec![
        object.name().into(),
        text(&value, "addressType").into(),
        first_three(&ports, "<unset>").into(),
        first_three(&addresses, "<unset>").into(),
        object_age(object, now),
    ]
}

/// `Ingress`.
pub(in crate::kinds) fn ingress(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let spec = get(&value, "spec");
    let hosts: Vec<String> =
        items(spec, "rules").iter().map(|rule| text(rule, "host").to_owned()).filter(|host| !host.is_empty()).collect();
    let addresses: Vec<_> = items(at(&value, &["status", "loadBalancer"]), "ingress")
        .iter()
        .map(|ingress| or(text(ingress, "ip"), text(ingress, "hostname")))
        .collect();
    vec![
        object.name().into(),
        or(text(spec, "ingressClassName"), "<none>").into(),
        first_three(&hosts, "*").into(),
        addresses.join(",").into(),
        if items(spec, "tls").is_empty() { "80" } else { "80, 443" }.into(),
        object_age(object, now),
    ]
}

/// `IngressClass`.
pub(in crate::kinds) fn ingress_class(object: &Object, now: Timestamp) -> Vec<Value> {
    let value = root(object);
    let parameters = at(&value, &["spec", "parameters"]);
    let shown = if parameters.is_null() {
        "<none>".to_owned()
    } else {
        let (kind, group) = (text(parameters, "kind"), text(parameters, "apiGroup"));
        format!("{kind}{}{group}/{}", if group.is_empty() { "" } else { "." }, text(parameters, "name"))
    };
    vec![object.name().into(), object.str_at(&["spec", "controller"]).into(), shown.into(), object_age(object, now)]
}
