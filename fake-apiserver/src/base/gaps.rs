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
        feature: "admission policies",
        instead: "ValidatingAdmissionPolicy and MutatingAdmissionPolicy are stored and never evaluated",
    },
    Gap {
        feature: "admission webhooks",
        instead: "MutatingWebhookConfiguration and ValidatingWebhookConfiguration are stored and never called",
    },
    Gap {
        feature: "aggregated API servers",
        instead: "an APIService is stored; requests for its group are not passed on",
    },
    Gap {
        feature: "claims, pools and templates of Agent Sandbox, and v1alpha1",
        instead: "only Sandbox v1beta1 is installed, with its controller",
    },
    Gap {
        feature: "conversion webhooks",
        instead: "a custom object is shown in another version with its apiVersion replaced",
    },
    Gap {
        feature: "cost limits of CEL rules",
        instead: "a rule of any cost is accepted and evaluated; two-variable comprehensions are refused as undeclared",
    },
    Gap {
        feature: "evaluation of RBAC rules",
        instead: "whoever has the client certificate or a token may do everything; roles and bindings are stored; access \
                  reviews of a system:masters user say yes, others answer 501",
    },
    Gap { feature: "impersonation", instead: "501 for a request with Impersonate-User or its companions" },
    Gap {
        feature: "limit ranges and resource quotas",
        instead: "both are stored; nothing is defaulted, counted or refused by them",
    },
    Gap { feature: "metrics of the API server", instead: "501 at /metrics" },
    Gap {
        feature: "OpenAPI v2 documents",
        instead: "501 at /openapi/v2; kubectl and client-go take v3, which is there",
    },
    Gap {
        feature: "Pod Security Admission",
        instead: "the labels of a namespace are stored; no pod is refused or warned of",
    },
    Gap { feature: "port-forward", instead: "501; exec reaches what listens inside a real-process pod" },
    Gap {
        feature: "probes, preStop hooks and ephemeral containers",
        instead: "probes count as passed; hooks and ephemeral containers are stored and not run",
    },
    Gap {
        feature: "protobuf",
        instead: "415 for a protobuf body (kubectl create namespace and its like send one: kubectl apply -f sends JSON); \
                  answers are JSON or YAML, and 406 for a client that takes nothing else",
    },
    Gap {
        feature: "scheduling by resources and affinity",
        instead: "a pod goes to a node that its nodeSelector and tolerations allow, whatever else it asks for",
    },
    Gap {
        feature: "server-side apply of the scale subresource",
        instead: "501; patch or update the scale, or apply to the object itself",
    },
    Gap {
        feature: "service account tokens (TokenRequest)",
        instead: "501, and the token mounted in a pod is a placeholder; use the client certificate or --token",
    },
    Gap {
        feature: "streams over SPDY/3.1 (use a client that speaks WebSocket: kubectl 1.31 or newer)",
        instead: "501",
    },
    Gap {
        feature: "the proxy subresources of pods, services and nodes",
        instead: "501; exec reaches what listens inside a real-process pod",
    },
    Gap {
        feature: "validation of rarely written kinds",
        instead: "admission configurations, CSI drivers, flow control and resource.k8s.io kinds are checked by schema alone; \
                  so are the metrics and behavior of autoscalers",
    },
    Gap {
        feature: "workload controllers",
        instead: "deployments, replica sets, jobs, stateful and daemon sets are stored and make no pods",
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
        assert!(calls > 3, "the calls are no longer found; look at this test");
    }

    #[test]
    fn the_list_is_sorted_and_says_of_each_gap_what_happens_instead() {
        assert!(GAPS.is_sorted_by_key(|gap| gap.feature.to_lowercase()));
        assert!(GAPS.iter().all(|gap| !gap.instead.is_empty()));
    }
}
