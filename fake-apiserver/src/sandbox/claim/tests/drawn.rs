//! Histories drawn by chance: claims against pools, while pods, Sandboxes and claims are deleted, others write what the
//! controllers write, rules let calls wait, fail before and after their effect, cut watches and forget the history, and
//! controllers start again in the midst of a pass or overlap with the next. Whatever happens: no member ever has two claims; in the end every claim has a Sandbox of its own or
//! says why not, the pools are as large as they shall be, and nothing is left whose owner is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
};

use futures::FutureExt;

use super::*;
use crate::{
    actor::Informer,
    rule::{Failure, Guard, Rule},
    sandbox::Workers,
};

/// Who the sandbox controllers are.
const CONTROLLERS: &str = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";

/// Histories in each run, in seconds; `CLAIM_SEEDS` says otherwise (CI asks for more), and `CLAIM_SEED` names one.
const SEEDS: u64 = 10;
/// Histories of one cluster, one after the other, each in a namespace of its own: a cluster takes as long to start as a
/// history.
const GROUP: u64 = 10;
/// What is done in each.
const STEPS: usize = 16;

struct History {
    world: World,
    chance: Ids,
    /// What goes wrong.
    storm: Vec<Guard>,
    /// Controllers that end when the next step is over.
    leaving: Vec<CancellationToken>,
    sandboxes: Informer,
    /// The claims that each Sandbox has had, by UIDs.
    had: BTreeMap<String, BTreeSet<String>>,
    claims: u64,
    /// Whether two controllers have worked at one time, as upstream's leader election makes rare and cannot rule out. A claim
    /// may then get a Sandbox of its own from one and a member from the other, and shows one of them: making a Sandbox and
    /// promising a member are writes of two objects, and upstream has nothing that ties them together either.
    overlapped: bool,
}

/// What goes wrong in a history: of every kind of fault a small part, and in the end others go first now and then.
fn storm(chance: &Ids) -> Vec<Rule> {
    let part = |most: u64| chance.below(most) as f64 / 1000.0;
    let writes = ["create", "update", "patch", "delete"];
    let mut rules = vec![
        Rule::fail(Failure::of(409)).verbs(["update", "patch"]).probability(part(40)),
        Rule::fail(Failure::of(500)).probability(part(20)),
        Rule::fail(Failure::of(504).late()).verbs(writes).probability(part(30)),
        Rule::drop_connection(true).verbs(writes).probability(part(10)),
        Rule::fail(Failure::of(429).retry_after(1)).probability(part(20)),
        Rule::delay(Duration::from_millis(1 + chance.below(400))).probability(part(40)),
        Rule::compact().probability(part(5)),
        Rule::cut_watch(chance.below(4)).probability(part(60)),
        Rule::expire_watch(chance.below(4)).probability(part(40)),
        Rule::give_way(3),
    ];
    rules = rules.into_iter().map(|rule| rule.user(CONTROLLERS)).collect();
    for controller in ["sandboxclaim-controller", "sandbox-controller", "sandboxwarmpool-controller"] {
        rules.push(Rule::restart(controller).times(5).probability(part(10)));
    }
    rules
}

impl History {
    async fn start(mut world: World, seed: u64) -> Self {
        world.enter(&format!("seed-{seed}")).await;
        let sandboxes = Informer::new(world.api.clone(), sandboxes(), &world.namespace, "");
        let chance = Ids::seeded(seed ^ 0x5eed);
        let (leaving, had) = (Vec::new(), BTreeMap::new());
        let storm = storm(&chance).into_iter().map(|rule| world.registry.rules().install(rule)).collect();
        let mut history = Self { world, chance, storm, leaving, sandboxes, had, claims: 0, overlapped: false };
        history.restart();
        history.world.template(json!({"envVarsInjectionPolicy": "Allowed"})).await;
        for (name, replicas) in [("pool", 3), ("other", 1)] {
            let spec = json!({"replicas": replicas, "sandboxTemplateRef": {"name": "tpl"}});
            history.world.extension(warm_pools(), "SandboxWarmPool", name, spec).await;
        }
        history
    }

    /// Starts controllers beside those that run.
    fn start_controllers(&mut self) {
        self.world.controllers = CancellationToken::new(); // whose owner is `leaving`
        self.restart();
    }

    /// Starts other controllers in place of those that run, with some claims at a time.
    fn restart(&mut self) {
        let claims = NonZeroUsize::MIN.saturating_add(usize::try_from(self.chance.below(4)).unwrap());
        let workers = Workers { claims, ..Workers::default() };
        self.world.restart(Settings { workers, ..Settings::default() });
    }

    async fn one_of(&self, gvr: Gvr) -> Option<Object> {
        let all = self.world.list(gvr).await;
        let at = usize::try_from(self.chance.below(all.len().max(1) as u64)).unwrap();
        all.get(at).map(|object| object.object().clone())
    }

    async fn delete_one(&self, gvr: Gvr) {
        let Some(object) = self.one_of(gvr.clone()).await else { return };
        let propagation = [None, Some("Foreground")][usize::try_from(self.chance.below(2)).unwrap()];
        let policy = DeletePolicy { propagation, ..DeletePolicy::default() };
        let _ = self.world.api.delete(&gvr, &self.world.namespace, object.name(), &policy).await;
    }

    async fn touch_one(&self, gvr: Gvr) {
        let Some(object) = self.one_of(gvr.clone()).await else { return };
        let patch = json!({"metadata": {"annotations": {"touched": self.chance.suffix(5)}}});
        let _ = self.world.api.patch(&gvr, &self.world.namespace, object.name(), "", patch).await;
    }

    async fn make_claims(&mut self) {
        for _ in 0..1 + self.chance.below(2) {
            self.claims += 1;
            let name = format!("c{}", self.claims);
            let soon = crate::clock::time_text(self.world.api.clock().now() + jiff::SignedDuration::from_secs(20));
            let more = match self.chance.below(12) {
                0 => json!({"additionalPodMetadata": {"labels": {"plain": "x"}}}),
                1 => json!({"additionalPodMetadata": {"labels": {"sandbox.users.io/who": "me"}}}),
                2 => json!({"env": [{"name": "A", "value": "1"}]}),
                3 => json!({"warmPoolRef": {"name": "other"}}),
                4 => json!({"warmPoolRef": {"name": "none"}}),
                5 => json!({"lifecycle": {"shutdownTime": soon}}),
                6 => json!({"lifecycle": {"shutdownTime": soon, "shutdownPolicy": "Delete"}}),
                _ => json!({}),
            };
            self.world.claim(&name, more).await;
        }
    }

    async fn step(&mut self) {
        let leaving = std::mem::take(&mut self.leaving);
        match self.chance.below(20) {
            0..=6 => self.make_claims().await,
            7 => self.delete_one(claims()).await,
            8 => self.delete_one(sandboxes()).await,
            9 => self.delete_one(pods()).await,
            10 | 11 => self.touch_one(claims()).await,
            12 | 13 => self.touch_one(sandboxes()).await,
            14 => self.restart(),
            15 | 16 => {
                self.leaving.push(self.world.controllers.clone());
                self.overlapped = true;
                self.start_controllers();
            }
            17 => {
                let patch = json!({"spec": {"replicas": 1 + self.chance.below(5)}});
                self.world.patch(warm_pools(), "pool", patch).await;
            }
            18 => {
                let patch = json!({"spec": {"podTemplate": {"metadata": {"labels": {"app": self.chance.suffix(3)}}}}});
                self.world.patch(templates(), "tpl", patch).await;
            }
            _ => {} // time passes
        }
        // Some turns, some milliseconds, or some seconds for the controllers.
        match self.chance.below(4) {
            0 => {
                for _ in 0..self.chance.below(40) {
                    tokio::task::yield_now().await;
                }
            }
            1 => self.world.api.clock().sleep(Duration::from_millis(self.chance.below(50))).await,
            _ => self.world.api.clock().sleep(Duration::from_millis(self.chance.below(4000))).await,
        }
        leaving.iter().for_each(CancellationToken::cancel);
        self.watch();
    }

    /// Takes in every change of every Sandbox: who had it.
    fn watch(&mut self) {
        while let Some(changes) = self.sandboxes.next().now_or_never() {
            for change in changes {
                let sandbox = change.object();
                if let Some(owner) = sandbox.controller().filter(|owner| owner.kind == "SandboxClaim") {
                    let claims = self.had.entry(sandbox.uid().into()).or_default();
                    claims.insert(owner.uid);
                    assert!(claims.len() < 2, "Sandbox {} has had two claims", sandbox.name());
                }
            }
        }
    }

    /// What must hold when all has come to rest.
    async fn judge(&self) {
        let (claims, sandboxes) = (self.world.list(claims()).await, self.world.list(sandboxes()).await);
        let uids = |list: &[Arc<Stored>]| list.iter().map(|object| object.uid().to_owned()).collect::<BTreeSet<_>>();
        let pools = self.world.list(warm_pools()).await;
        let owners = uids(&[claims.clone(), pools.clone()].concat());
        let mut of = BTreeMap::<_, Vec<&str>>::new();
        for sandbox in &sandboxes {
            let owner = sandbox.controller().map(|owner| owner.uid).unwrap_or_default();
            assert!(owners.contains(&owner), "Sandbox {} has lost its owner", sandbox.name());
            of.entry(owner).or_default().push(sandbox.name());
        }
        for pod in self.world.list(pods()).await {
            let owner = pod.controller().map(|owner| owner.uid).unwrap_or_default();
            assert!(uids(&sandboxes).contains(&owner), "pod {} has lost its owner", pod.name());
        }
        for claim in &claims {
            let shown = self.world.shown(claim.name()).await;
            let own = of.remove(claim.uid()).unwrap_or_default();
            let plain = claim.at(&["spec", "additionalPodMetadata", "labels", "plain"]).is_some();
            let expected = match (pool_name(claim), own.as_slice()) {
                _ if claim.at(&["spec", "lifecycle"]).is_some() => "False/ClaimExpired".into(),
                ("none", []) => "False/WarmPoolNotFound".into(),
                (_, []) if plain => "False/InvalidMetadata".into(),
                (_, [own]) => format!("True/DependenciesReady {own}"),
                (_, several)
                    if self.overlapped
                        && several.iter().any(|own| shown == format!("True/DependenciesReady {own}")) =>
                {
                    shown.clone()
                }
                (_, several) => panic!("claim {} has {several:?}, and shows {shown}", claim.name()),
            };
            assert_eq!(shown, expected, "claim {}", claim.name());
        }
        for pool in &pools {
            let wanted = pool.at(&["spec", "replicas"]).and_then(Value::as_u64).unwrap();
            let members = of.remove(pool.uid()).unwrap_or_default();
            assert_eq!(members.len() as u64, wanted, "members of {}: {members:?}", pool.name());
            let shown = pool.at(&["status", "readyReplicas"]).and_then(Value::as_u64);
            assert_eq!(shown, Some(wanted), "ready members of {}", pool.name());
        }
    }
}

/// Runs a history; the cluster it ran in, and everything that is left.
async fn run(world: World, seed: u64) -> (World, Vec<String>) {
    let mut history = History::start(world, seed).await;
    history.world.pass(history.chance.below(5)).await;
    for _ in 0..STEPS {
        history.step().await;
    }
    history.leaving.iter().for_each(CancellationToken::cancel);
    history.storm.clear();
    history.world.restart(Settings::default()); // the last ones are not disturbed, and forget earlier back-offs
    // Long enough for grace periods, and for the last claim to expire.
    history.world.pass(90).await;
    history.watch();
    history.judge().await;
    let everything = history.world.everything().await;
    let world = history.world;
    world.api.delete(&Gvr::new("", "v1", "namespaces"), "", &world.namespace, &DeletePolicy::default()).await.unwrap();
    (world, everything)
}

/// Runs the histories of a group up to one, in a cluster that is the same each time; everything that each left.
fn replayed(seed: u64) -> Vec<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let now = std::sync::atomic::AtomicU64::new(0);
    let group = async {
        let first = seed - seed % GROUP;
        let mut world = World::start(first).await;
        let mut left = Vec::new();
        for seed in first..=seed {
            now.store(seed, std::sync::atomic::Ordering::Relaxed);
            let (same, everything) = run(world, seed).await;
            world = same;
            left.push(everything);
        }
        world.stop().await;
        left
    };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(group)));
    result.unwrap_or_else(|cause| {
        let seed = now.into_inner();
        eprintln!("replay with: CLAIM_SEED={seed} cargo test -p fake-apiserver --lib sandbox::claim::tests::drawn");
        std::panic::resume_unwind(cause)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The last seed of each group to run.
fn groups() -> Vec<u64> {
    match number("CLAIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("CLAIM_SEEDS").unwrap_or(SEEDS).div_ceil(GROUP)).map(|group| group * GROUP - 1).collect(),
    }
}

#[test]
fn no_member_ever_has_two_claims_and_all_comes_to_rest_as_it_should() {
    let groups = groups();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for part in groups.chunks(groups.len().div_ceil(threads)) {
            scope.spawn(move || part.iter().for_each(|last| drop(replayed(*last))));
        }
    });
}

#[test]
fn one_seed_gives_one_history() {
    let last = groups()[0].min(1);
    assert_eq!(replayed(last), replayed(last));
}
