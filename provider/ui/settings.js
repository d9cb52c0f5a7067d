// The settings page. It knows nothing that the JSON API does not tell.

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];

/** Calls the API and gives its data; an error carries the server's words. */
async function api(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.status === 401) {
    location.reload(); // the server answers with the page to log in on
  }
  const answer = await response.json().catch(() => ({ ok: false, error: { message: `HTTP ${response.status}` } }));
  if (!answer.ok) {
    throw Object.assign(new Error(answer.error.message), answer.error);
  }
  return answer.data;
}

function showError(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

/** Runs what a button is for: Saving…, then Saved! for two seconds, or the error. */
async function saving(button, work) {
  const words = button.textContent;
  button.disabled = true;
  button.textContent = "Saving…";
  try {
    await work();
    showError(null);
    button.textContent = "Saved!";
    setTimeout(() => { button.textContent = words; }, 2000);
  } catch (error) {
    showError(error);
    button.textContent = words;
  } finally {
    button.disabled = false;
  }
}

/** Buttons of which one is pressed. */
function choice(attribute, onChange) {
  const buttons = all(`[data-${attribute}]`);
  const value = (button) => button.getAttribute(`data-${attribute}`);
  const group = {
    get value() {
      const pressed = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
      return pressed ? value(pressed) : null;
    },
    set value(wanted) {
      for (const button of buttons) button.setAttribute("aria-pressed", String(value(button) === wanted));
      onChange?.(wanted);
    },
  };
  for (const button of buttons) button.addEventListener("click", () => { group.value = value(button); });
  return group;
}

const isKubernetes = (provider) => provider === "kubernetes";

const mode = choice("mode");
const view = choice("provider", (provider) => {
  for (const part of all("[data-view]")) part.hidden = part.getAttribute("data-view") !== provider;
  if (isKubernetes(provider)) refresh();
});
const defaultProvider = choice("default-provider", (provider) => {
  for (const part of all("[data-only]")) part.hidden = (part.getAttribute("data-only") === "kubernetes") !== isKubernetes(provider);
  const viewed = isKubernetes(provider) ? "kubernetes" : "docker";
  if (view.value !== viewed) view.value = viewed;
});
const profileType = choice("type", (type) => {
  for (const part of all("[data-type-only]")) part.hidden = part.getAttribute("data-type-only") !== type;
});

/** Selects a value that may not be among the usual ones. */
function select(element, value, unit) {
  const text = String(value);
  if (![...element.options].some((option) => option.value === text)) {
    element.add(new Option(`${text}${unit}`, text));
  }
  element.value = text;
}

// What is stored, so that members without a control are kept.
let stored = { defaults: {}, kubernetes: {} };

async function load() {
  const { settings } = await api("GET", "/api/settings");
  const defaults = settings["sandbox.defaults"] ?? {};
  const kubernetes = settings["sandbox.kubernetes"] ?? {};
  stored = { defaults, kubernetes };
  $("enabled").checked = defaults.enabled ?? true;
  select($("memory"), defaults.memoryMb ?? 4096, " MB");
  select($("cpu"), defaults.cpuCores ?? 2, " cores");
  select($("timeout"), defaults.idleTimeoutMinutes ?? 30, " minutes");
  $("default-namespace").value = defaults.namespace ?? "";
  $("fallback").checked = defaults.fallbackToDocker ?? false;
  mode.value = settings["sandbox.mode"] ?? defaults.containerMode ?? "per-project";
  $("path").value = kubernetes.kubeConfigPath ?? "";
  $("namespace").value = kubernetes.namespace ?? "";
  $("runtime").value = kubernetes.runtimeClassName ?? "none";
  $("skip-tls").checked = kubernetes.skipTLSVerify ?? false;
  $("pool").checked = kubernetes.enableWarmPool ?? false;
  $("pool-size").value = kubernetes.warmPoolSize ?? 2;
  showPool();
  defaultProvider.value = defaults.provider ?? "kubernetes";
}

/** What stands in the controls of the cluster's section. */
function kubernetesValues() {
  const text = (id) => $(id).value.trim() || null;
  return {
    ...stored.kubernetes,
    kubeConfigPath: text("path"),
    kubeContext: contextChosen ? text("context") : (stored.kubernetes.kubeContext ?? null),
    namespace: text("namespace"),
    runtimeClassName: $("runtime").value,
    skipTLSVerify: $("skip-tls").checked,
    enableWarmPool: $("pool").checked,
    warmPoolSize: Number($("pool-size").value),
  };
}

async function saveDefaults() {
  const defaults = {
    ...stored.defaults,
    enabled: $("enabled").checked,
    provider: defaultProvider.value,
    memoryMb: Number($("memory").value),
    cpuCores: Number($("cpu").value),
    idleTimeoutMinutes: Number($("timeout").value),
    namespace: $("default-namespace").value.trim() || null,
    containerMode: mode.value,
    fallbackToDocker: $("fallback").checked,
  };
  const settings = { "sandbox.defaults": defaults, "sandbox.mode": mode.value };
  if (isKubernetes(defaults.provider)) settings["sandbox.kubernetes"] = kubernetesValues();
  await api("PUT", "/api/settings", { settings });
  await saved(settings);
}

/** The provider that is looked at becomes the one that is used, with its settings. */
async function saveProvider() {
  const keeps = view.value === "docker" && defaultProvider.value === "devcontainer";
  const provider = keeps ? "devcontainer" : view.value;
  const settings = {
    "sandbox.defaults": { ...stored.defaults, provider, fallbackToDocker: $("fallback").checked },
  };
  if (isKubernetes(provider)) settings["sandbox.kubernetes"] = kubernetesValues();
  await api("PUT", "/api/settings", { settings });
  defaultProvider.value = provider;
  await saved(settings);
}

async function saved(settings) {
  stored.defaults = settings["sandbox.defaults"] ?? stored.defaults;
  stored.kubernetes = settings["sandbox.kubernetes"] ?? stored.kubernetes;
  await showProvider();
}

/** Tells who makes sandboxes; asks again while that is being settled. */
async function showProvider() {
  for (;;) {
    const now = await api("GET", "/api/sandbox/provider");
    const words = { ready: `${now.provider} is used`, choosing: "being set up…", unavailable: "no provider" };
    const text = now.choosing ? words.choosing : words[now.state];
    $("provider-now").textContent = text;
    $("stat-provider").textContent = now.provider ?? (now.state === "unavailable" ? "none" : "…");
    $("init-error").hidden = now.choosing || !now.error;
    $("init-error").textContent = now.error ? `There is no sandbox provider: ${now.error.message}` : "";
    if (!now.choosing) return;
    await new Promise((done) => setTimeout(done, 500));
  }
}

// The cluster.

let contextChosen = false;
let asked = 0;

function query() {
  const parameters = new URLSearchParams();
  if ($("path").value.trim()) parameters.set("kubeconfigPath", $("path").value.trim());
  const context = contextChosen ? $("context").value : stored.kubernetes.kubeContext;
  if (context) parameters.set("context", context);
  if ($("skip-tls").checked) parameters.set("skipTLSVerify", "true");
  const text = parameters.toString();
  return text ? `?${text}` : "";
}

function badge(text, state) {
  $("k8s-badge").textContent = text;
  $("k8s-badge").dataset.state = state;
  $("stat-status-row").hidden = !isKubernetes(view.value);
  $("stat-status").textContent = text;
}

async function refresh() {
  const round = ++asked;
  const current = () => round === asked;
  $("refresh").disabled = true;
  $("cluster-line").textContent = $("controller-line").textContent = "Checking…";
  badge("Checking…", "");
  await contexts(current);
  await Promise.all([cluster(current), controller(current)]);
  if (current()) $("refresh").disabled = false;
}

async function contexts(current) {
  const element = $("context");
  element.disabled = true;
  const path = $("path").value.trim();
  const parameters = path ? `?kubeconfigPath=${encodeURIComponent(path)}` : "";
  const found = await api("GET", `/api/sandbox/k8s/contexts${parameters}`).catch(() => ({ contexts: [], current: null }));
  if (!current()) return;
  const wanted = contextChosen ? element.value : (stored.kubernetes.kubeContext ?? found.current);
  element.replaceChildren(...found.contexts.map(({ name, cluster }) => new Option(`${name} (${cluster})`, name)));
  if (!found.contexts.length) element.add(new Option("No contexts available", ""));
  element.disabled = !found.contexts.length;
  if (found.contexts.some(({ name }) => name === wanted)) element.value = wanted;
}

async function cluster(current) {
  try {
    const now = await api("GET", `/api/sandbox/k8s/status${query()}`);
    if (!current()) return;
    badge("Connected", "good");
    $("cluster-line").textContent = `Connected: ${now.cluster} (${now.serverVersion})`;
    const rows = {
      Server: now.server,
      Version: now.serverVersion,
      Namespace: `${now.namespace} (${now.namespaceExists ? "exists" : "will be created"})`,
      Pods: `${now.podsRunning} of ${now.pods} running`,
    };
    $("cluster-details").replaceChildren(...Object.entries(rows).map(([name, value]) => {
      const [row, term, detail] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      [term.textContent, detail.textContent] = [name, value];
      row.append(term, detail);
      return row;
    }));
    $("cluster-details").hidden = false;
  } catch (error) {
    if (!current()) return;
    badge("Disconnected", "bad");
    $("cluster-line").textContent = `Not connected: ${error.message}`;
    $("cluster-details").hidden = true;
  }
}

async function controller(current) {
  let text;
  try {
    const now = await api("GET", `/api/sandbox/k8s/controller${query()}`);
    const version = now.version ? ` ${now.version}` : "";
    const kinds = now.crdRegistered ? `CRD ${now.crdApiVersion}` : "CRD not registered";
    if (now.installed) {
      text = `Agent Sandbox Controller${version} · ${kinds}${now.ready ? "" : " · not ready"}`;
    } else if (now.installed === null) {
      text = `Controller unknown (workloads may not be listed) · ${kinds}`;
    } else {
      text = `Controller not installed · ${kinds}. Apply a release of Agent Sandbox to the cluster.`;
    }
  } catch (error) {
    text = `Controller unknown: ${error.message}`;
  }
  if (current()) $("controller-line").textContent = text;
}

function showPool() {
  const on = $("pool").checked;
  $("pool-size-row").hidden = !on;
  $("pool-size-text").textContent = $("pool-size").value;
  $("pool-text").textContent = on ? `${$("pool-size").value} sandboxes wait to be asked for` : "Sandboxes that wait to be asked for";
}

// Profiles.

let edited = null;

async function showProfiles() {
  const { items, totalCount } = await api("GET", "/api/sandbox-configs?limit=1000");
  $("stat-profiles").textContent = totalCount;
  $("profiles").replaceChildren(...items.map(profileCard));
}

function profileCard(profile) {
  const card = document.createElement("div");
  card.className = "card";
  card.dataset.testid = `sandbox-config-${profile.id}`;
  const title = document.createElement("strong");
  title.textContent = profile.name + (profile.isDefault ? " (default)" : "");
  const about = document.createElement("small");
  about.textContent = `${profile.type} · ${profile.baseImage} · ${profile.memoryMb} MB · ${profile.cpuCores} cores`;
  const button = (words, testid, work) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.dataset.testid = `${testid}-${profile.id}`;
    made.addEventListener("click", () => work().catch(showError));
    return made;
  };
  card.append(title, about, button("Edit", "edit", async () => edit(profile)), button("Delete", "delete", async () => {
    if (!confirm(`Delete the profile ${profile.name}?`)) return;
    await api("DELETE", `/api/sandbox-configs/${profile.id}`);
    showError(null);
    await showProfiles();
  }));
  return card;
}

const SLIDERS = { memory: "memoryMb", cpu: "cpuCores", processes: "maxProcesses", timeout: "timeoutMinutes" };
const TEXTS = { image: "baseImage", volume: "volumeMountPath", path: "kubeConfigPath", context: "kubeContext", namespace: "kubeNamespace" };
const NEW = { type: "docker", memoryMb: 4096, cpuCores: 2, maxProcesses: 256, timeoutMinutes: 60, isDefault: false };

function showSlider(slider) {
  slider.previousElementSibling.textContent = slider.value + slider.dataset.unit;
}

function profileError(message) {
  $("profile-error").textContent = message;
  $("profile-error").hidden = !message;
}

function edit(profile) {
  edited = profile;
  const values = profile ?? NEW;
  $("editor-title").textContent = profile ? `Edit ${profile.name}` : "New profile";
  $("profile-name").value = values.name ?? "";
  for (const [id, member] of Object.entries(TEXTS)) $(`profile-${id}`).value = values[member] ?? "";
  for (const [id, member] of Object.entries(SLIDERS)) {
    const slider = $(`profile-${id}`);
    slider.value = values[member];
    showSlider(slider);
  }
  $("profile-default").checked = values.isDefault;
  profileType.value = values.type;
  profileError("");
  $("editor").showModal();
}

async function saveProfile(event) {
  event.preventDefault();
  const name = $("profile-name").value.trim();
  if (!name) return profileError("A name is required.");
  const body = { name, type: profileType.value, isDefault: $("profile-default").checked };
  for (const [id, member] of Object.entries(TEXTS)) body[member] = $(`profile-${id}`).value.trim() || null;
  for (const [id, member] of Object.entries(SLIDERS)) body[member] = Number($(`profile-${id}`).value);
  try {
    if (edited) await api("PATCH", `/api/sandbox-configs/${edited.id}`, body);
    else await api("POST", "/api/sandbox-configs", body);
    $("editor").close();
    await showProfiles();
  } catch (error) {
    profileError(error.message);
  }
}

// The key.

async function showKey() {
  const { items } = await api("GET", "/api/api-keys");
  const known = items.find(({ service }) => service === "anthropic");
  $("key-state").textContent = known ? `stored ${known.updatedAt.slice(0, 10)}` : "none is stored; the server's environment may have one";
}

async function saveKey(event) {
  event.preventDefault();
  try {
    await api("PUT", "/api/api-keys/anthropic", { value: $("key").value.trim() });
    showError(null);
    await showKey();
  } catch (error) {
    showError(error);
  } finally {
    $("key").value = "";
  }
}

$("save-defaults").addEventListener("click", () => saving($("save-defaults"), saveDefaults));
$("save-provider").addEventListener("click", () => saving($("save-provider"), saveProvider));
$("refresh").addEventListener("click", refresh);
$("path").addEventListener("change", () => { contextChosen = false; refresh(); });
$("context").addEventListener("change", () => { contextChosen = true; refresh(); });
$("skip-tls").addEventListener("change", refresh);
$("pool").addEventListener("change", showPool);
$("pool-size").addEventListener("input", showPool);
for (const id of Object.keys(SLIDERS)) $(`profile-${id}`).addEventListener("input", ({ target }) => showSlider(target));
$("create-profile").addEventListener("click", () => edit(null));
$("cancel-profile").addEventListener("click", () => $("editor").close());
$("editor-form").addEventListener("submit", saveProfile);
$("key-form").addEventListener("submit", saveKey);

for (const start of [load, showProvider, showProfiles, showKey]) start().catch(showError);
