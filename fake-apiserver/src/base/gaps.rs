//! What is not faked, as data: the docs print this list, 501 answers quote it, and a test reads it.

/// Something the real API server has and this one does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// What is missing, as it stands in a 501's message.
    pub feature: &'static str,
    /// What happens instead, and what to do.
    pub instead: &'static str,
}

/// All known gaps, by feature.
pub const GAPS: &[Gap] = &[
    Gap {
        feature: "aggregated API servers",
        instead: "an APIService is stored; requests for its group are not passed on",
    },
    Gap { feature: "audit log", instead: "nothing is recorded: audit annotations of policies and webhooks go nowhere" },
    Gap {
        feature: "enforcement of network policies",
        instead: "stored, and told by the dump of the cluster (who may talk to whom); nothing is held back",
    },
    Gap {
        feature: "most metrics of the API server",
        instead: "/metrics has requests, their durations by the cluster's clock, stored objects and the build, and no others",
    },
    Gap {
        feature: "node authorization",
        instead: "users of system:nodes have what roles and bindings give them; the cluster's own kubelet is not asked",
    },
    Gap {
        feature: "OpenAPI v2 in protobuf",
        instead: "406 at /openapi/v2 for who takes nothing else; JSON is there, and v3 for kubectl and client-go",
    },
    Gap {
        feature: "pod failure policies, success policies and back-off per index of jobs",
        instead: "stored; a job ends by its completions, backoffLimit and deadline alone",
    },
    Gap {
        feature: "policies and webhooks on CONNECT",
        instead: "exec, attach, port-forward and proxy are asked about by no policy and no webhook",
    },
    Gap {
        feature: "preemption and topology spread in scheduling",
        instead: "no pod is ended for one of higher priority, spread constraints are not looked at, and of namespace \
                  selectors of pod affinity only the one that selects all is",
    },
    Gap {
        feature: "probes and hooks over HTTPS, to other hosts, and to images' own programs",
        instead: "an HTTPS probe passes where somebody listens; the others pass, unless the pod's script says that they fail",
    },
    Gap {
        feature: "protobuf answers",
        instead: "bodies of requests are read as protobuf; answers are JSON or YAML, which clients that send protobuf take \
                  too, and 406 for one that takes nothing else",
    },
    Gap {
        feature: "quotas of device claims",
        instead: "resource claims are counted by number, not by the devices that they ask for",
    },
    Gap {
        feature: "the proxy of nodes, and HTTPS from the proxy of pods and services",
        instead: "501; the proxy of pods and services speaks HTTP to pods, and leaves the links in their HTML as they are",
    },
    Gap {
        feature: "tokens in Secrets of type kubernetes.io/service-account-token",
        instead: "the Secret is stored as it is; kubectl create token and pods' volumes give real tokens",
    },
    Gap {
        feature: "validation of rarely written kinds",
        instead: "CSI drivers, flow control and resource.k8s.io kinds are checked by schema alone",
    },
    Gap {
        feature: "webhooks that change scales, bindings and evictions",
        instead: "mutating webhooks and policies are not asked about these; validating ones are",
    },
];

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn sources(folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn every_501_of_the_source_is_a_row_of_the_list() {
        let mut texts = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
        let call = ["not_implemented", "(\""].concat(); // put together, so that this line is no call
        let mut calls = 0;
        for text in &texts {
            for (at, _) in text.match_indices(&call) {
                let feature = text[at + call.len()..].split('"').next().unwrap();
                assert!(GAPS.iter().any(|gap| gap.feature == feature), "{feature:?} is no row of GAPS");
                calls += 1;
            }
        }
        assert!(calls > 0, "the calls are no longer found; look at this test");
    }

    #[test]
    fn the_list_is_sorted_and_says_of_each_gap_what_happens_instead() {
        assert!(GAPS.is_sorted_by_key(|gap| gap.feature.to_lowercase()));
        assert!(GAPS.iter().all(|gap| !gap.instead.is_empty()));
    }
}
