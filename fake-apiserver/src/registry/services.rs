//! What the server hands out to services: addresses of the cluster and ports of the nodes.
//!
//! Upstream: `pkg/registry/core/service/storage/alloc.go`.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::{Value, json};

use super::{Registry, Resource};
use crate::{
    base::{
        FieldError, Object, Status,
        value::{get, int_or_zero, items, text, texts},
    },
    kinds,
};

/// The service range 10.96.0.0/12; its first addresses are kept for those who ask for one.
const RANGE: (u32, u32) = (0x0a60_0000, 0x0a6f_ffff);
const RANGE_TEXT: &str = "10.96.0.0/12";
const KEPT_ADDRESSES: u32 = 16;

/// Ports of nodes that services may have.
const NODE_PORTS: (i64, i64) = (30000, 32767);
/// How many of the first of them are kept for those who ask for one.
const KEPT_PORTS: i64 = 86;

fn invalid(service: &Object, errors: &[FieldError]) -> Status {
    Status::invalid("", "Service", service.name(), errors)
}

impl Registry {
    /// Hands out addresses and ports to a new or changed service; nothing to other kinds.
    ///
    /// # Errors
    /// 422 for families, addresses and ports that cannot be had.
    pub(super) fn allocate(
        &self,
        resource: &Resource,
        new: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<(), Status> {
        if &*resource.bucket != "services" {
            return Ok(());
        }
        let errors = kinds::choose_families(new, old);
        if !errors.is_empty() {
            return Err(invalid(new, &errors));
        }
        self.allocate_address(new, old)?;
        self.allocate_ports(new, old, dry_run)
    }

    fn other_services(&self, service: &Object) -> Vec<Value> {
        let all = self.0.store.list("services", None).1;
        let other = |stored: &Object| (stored.namespace(), stored.name()) != (service.namespace(), service.name());
        all.iter().filter(|entry| other(&entry.value)).map(|entry| entry.value.to_value()).collect()
    }

    fn allocate_address(&self, new: &mut Object, old: Option<&Object>) -> Result<(), Status> {
        let external = |service: &Object| service.str_at(&["spec", "type"]) == "ExternalName";
        let given = new.str_at(&["spec", "clusterIP"]).to_owned();
        if external(new) || given == "None" || old.is_some_and(|old| !external(old)) {
            return Ok(());
        }
        let services = self.other_services(new);
        let taken: BTreeSet<&str> =
            services.iter().flat_map(|service| texts(get(service, "spec"), "clusterIPs")).collect();
        let address = if given.is_empty() {
            loop {
                let count = u64::from(RANGE.1 - RANGE.0 - KEPT_ADDRESSES);
                let offset = u32::try_from(self.ids().below(count)).expect("the range is smaller than 2^32");
                let address = Ipv4Addr::from(RANGE.0 + KEPT_ADDRESSES + offset).to_string();
                if !taken.contains(address.as_str()) {
                    break address;
                }
            }
        } else {
            let number = given.parse::<Ipv4Addr>().ok().map(u32::from);
            // neither the network's own address nor its broadcast address
            let why = if number.is_none_or(|number| number <= RANGE.0 || number >= RANGE.1) {
                Some(format!(
                    "the provided IP ({given}) is not in the valid range. The range of valid IPs is {RANGE_TEXT}"
                ))
            } else {
                taken.contains(given.as_str()).then(|| "provided IP is already allocated".to_owned())
            };
            if let Some(why) = why {
                let why = format!("failed to allocate IP {given}: {why}");
                let shown = new.at(&["spec", "clusterIPs"]).cloned().unwrap_or_default();
                return Err(invalid(new, &[FieldError::invalid("spec.clusterIPs", &shown, &why)]));
            }
            given
        };
        new.set_at(&["spec", "clusterIPs"], json!([address]));
        new.set_at(&["spec", "clusterIP"], address);
        Ok(())
    }

    fn allocate_ports(&self, new: &mut Object, old: Option<&Object>, dry_run: bool) -> Result<(), Status> {
        let value = new.to_value();
        let spec = get(&value, "spec");
        let on_nodes = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
        let checked = text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local";
        if !on_nodes {
            return Ok(());
        }
        let ports_of = |service: &Value| -> BTreeSet<i64> {
            let spec = get(service, "spec");
            let ports = items(spec, "ports").iter().map(|port| int_or_zero(port, "nodePort"));
            ports.chain([int_or_zero(spec, "healthCheckNodePort")]).filter(|port| *port != 0).collect()
        };
        let mut taken: BTreeSet<i64> = self.other_services(new).iter().flat_map(ports_of).collect();
        let own = old.map(|old| ports_of(&old.to_value())).unwrap_or_default();
        taken.extend(&own);
        let wants =
            get(spec, "allocateLoadBalancerNodePorts") != &Value::Bool(false) || text(spec, "type") == "NodePort";
        let mut ports = items(spec, "ports").to_vec();
        let mut by_port: Vec<(i64, i64)> = Vec::new();
        let mut given: Vec<i64> = Vec::new();
        for i in 0..ports.len() {
            let (port, asked) = (int_or_zero(&ports[i], "port"), int_or_zero(&ports[i], "nodePort"));
            if asked == 0 && !wants {
                continue;
            }
            // one number for a port of several protocols
            let shared = by_port.iter().find(|(known, _)| *known == port).map(|(_, node)| *node);
            let same = |other: &&Value| int_or_zero(other, "port") == port && int_or_zero(other, "nodePort") != 0;
            let asked = match (asked, shared) {
                (0, Some(shared)) => {
                    ports[i]["nodePort"] = shared.into();
                    continue;
                }
                (asked, Some(shared)) if asked == shared => continue,
                (0, None) => ports.iter().find(same).map_or(0, |other| int_or_zero(other, "nodePort")),
                (asked, _) => asked,
            };
            let number = if asked == 0 {
                self.free_port(&taken, &given, dry_run)?
            } else {
                if !own.contains(&asked)
                    && let Some(why) = port_refused(asked, &taken, dry_run)
                {
                    let field = format!("spec.ports[{i}].nodePort");
                    return Err(invalid(new, &[FieldError::invalid(&field, &asked.into(), &why)]));
                }
                asked
            };
            taken.insert(number);
            given.push(number);
            if shared.is_none() {
                by_port.push((port, number));
            }
            ports[i]["nodePort"] = number.into();
        }
        if !ports.is_empty() {
            new.set_at(&["spec", "ports"], ports);
        }
        if !checked {
            return Ok(());
        }
        let asked = int_or_zero(spec, "healthCheckNodePort");
        if asked == 0 {
            let number = self.free_port(&taken, &given, dry_run)?;
            new.set_at(&["spec", "healthCheckNodePort"], number);
        } else if !own.contains(&asked)
            && let Some(why) = port_refused(asked, &taken, dry_run)
        {
            return Err(Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}")));
        }
        Ok(())
    }

    /// A port to hand out; in a dry run, where nothing is, a number beyond the range that was not given just now.
    fn free_port(&self, taken: &BTreeSet<i64>, given: &[i64], dry_run: bool) -> Result<i64, Status> {
        if dry_run {
            return Ok(given.iter().copied().max().unwrap_or(NODE_PORTS.1) + 1);
        }
        let free: Vec<i64> = (NODE_PORTS.0 + KEPT_PORTS..=NODE_PORTS.1).filter(|port| !taken.contains(port)).collect();
        let count = u64::try_from(free.len()).unwrap_or(0);
        if count == 0 {
            return Err(Status::internal("failed to allocate a nodePort: range is full"));
        }
        let pick = usize::try_from(self.ids().below(count)).unwrap_or(0);
        Ok(free[pick])
    }
}

fn port_refused(port: i64, taken: &BTreeSet<i64>, dry_run: bool) -> Option<String> {
    let (low, high) = NODE_PORTS;
    // a dry run asks only whether the port is taken
    if !dry_run && !(low..=high).contains(&port) {
        return Some(format!("provided port is not in the valid range. The range of valid ports is {low}-{high}"));
    }
    taken.contains(&port).then(|| "provided port is already allocated".into())
}
