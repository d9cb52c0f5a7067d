// What programs do with client-go: typed and dynamic clients, shared informers, typed apply, leader election, exec.
//
// It works in the namespace "go", which it makes and takes away.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	applyapps "k8s.io/client-go/applyconfigurations/apps/v1"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/remotecommand"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"
)

const (
	namespace = "go"
	group     = "go.example.com"
	limit     = time.Minute
)

type program struct {
	ctx     context.Context
	config  *rest.Config
	typed   kubernetes.Interface
	dynamic dynamic.Interface
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(holds bool, format string, values ...any) {
	if !holds {
		panic(fmt.Sprintf(format, values...))
	}
}

func step(text string) { fmt.Println("  " + text) }

// until waits for a condition.
func (p *program) until(what string, condition func() bool) {
	err := wait.PollUntilContextTimeout(p.ctx, 20*time.Millisecond, limit, true, func(context.Context) (bool, error) {
		return condition(), nil
	})
	expect(err == nil, "it does not come to be that %s", what)
}

func (p *program) typedObjects() {
	step("the typed client: create, get, update on conflict, patch of each type, pages, delete with preconditions")
	maps := p.typed.CoreV1().ConfigMaps(namespace)
	one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one"}, Data: map[string]string{"a": "1"}}
	made := must(maps.Create(p.ctx, one, metav1.CreateOptions{}))
	expect(made.UID != "" && made.ResourceVersion != "", "%v", made)
	_, err := maps.Create(p.ctx, one, metav1.CreateOptions{})
	expect(apierrors.IsAlreadyExists(err), "%v", err)
	_, err = maps.Get(p.ctx, "nobody", metav1.GetOptions{})
	expect(apierrors.IsNotFound(err), "%v", err)
	must(maps.Patch(p.ctx, "one", types.MergePatchType, []byte(`{"data":{"b":"2"}}`), metav1.PatchOptions{}))
	must(maps.Patch(p.ctx, "one", types.StrategicMergePatchType, []byte(`{"data":{"c":"3"}}`), metav1.PatchOptions{}))
	must(maps.Patch(p.ctx, "one", types.JSONPatchType, []byte(`[{"op":"remove","path":"/data/b"}]`), metav1.PatchOptions{}))
	made.Data["a"] = "stale"
	_, err = maps.Update(p.ctx, made, metav1.UpdateOptions{})
	expect(apierrors.IsConflict(err), "%v", err)
	check(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current := must(maps.Get(p.ctx, "one", metav1.GetOptions{}))
		current.Data["a"] = "4"
		_, err := maps.Update(p.ctx, current, metav1.UpdateOptions{})
		return err
	}))
	current := must(maps.Get(p.ctx, "one", metav1.GetOptions{}))
	expect(fmt.Sprint(current.Data) == "map[a:4 c:3]", "%v", current.Data)
	_, err = maps.Create(p.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "Not A Name"}}, metav1.CreateOptions{})
	expect(apierrors.IsInvalid(err), "%v", err)

	for number := range 7 {
		page := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("page-", number), Labels: map[string]string{"of": "pages"}}}
		must(maps.Create(p.ctx, page, metav1.CreateOptions{}))
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return maps.List(ctx, options)
	})
	pages.PageSize = 3
	count := 0
	check(pages.EachListItem(p.ctx, metav1.ListOptions{LabelSelector: "of=pages"}, func(runtime.Object) error {
		count++
		return nil
	}))
	expect(count == 7, "%d", count)
	check(maps.DeleteCollection(p.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "of=pages"}))
	wrong := metav1.NewUIDPreconditions("another")
	err = maps.Delete(p.ctx, "one", metav1.DeleteOptions{Preconditions: wrong})
	expect(apierrors.IsConflict(err), "%v", err)
	check(maps.Delete(p.ctx, "one", metav1.DeleteOptions{}))
}

func (p *program) applies() {
	step("typed apply: ownership, conflicts, and what is extracted of what one applied")
	maps := p.typed.CoreV1().ConfigMaps(namespace)
	config := applycore.ConfigMap("applied", namespace).WithData(map[string]string{"a": "1", "b": "1"})
	must(maps.Apply(p.ctx, config, metav1.ApplyOptions{FieldManager: "one"}))
	other := applycore.ConfigMap("applied", namespace).WithData(map[string]string{"a": "2"})
	_, err := maps.Apply(p.ctx, other, metav1.ApplyOptions{FieldManager: "two"})
	expect(apierrors.IsConflict(err) && strings.Contains(err.Error(), `conflict with "one"`), "%v", err)
	live := must(maps.Apply(p.ctx, other, metav1.ApplyOptions{FieldManager: "two", Force: true}))
	mine := must(applycore.ExtractConfigMap(live, "one"))
	expect(fmt.Sprint(mine.Data) == "map[b:1]", "%v", mine.Data)

	container := applycore.Container().WithName("main").WithImage("nginx")
	template := applycore.PodTemplateSpec().WithLabels(map[string]string{"app": "web"}).WithSpec(applycore.PodSpec().WithContainers(container))
	selector := applymeta.LabelSelector().WithMatchLabels(map[string]string{"app": "web"})
	web := applyapps.Deployment("web", namespace).WithSpec(applyapps.DeploymentSpec().WithReplicas(2).WithSelector(selector).WithTemplate(template))
	deployments := p.typed.AppsV1().Deployments(namespace)
	must(deployments.Apply(p.ctx, web, metav1.ApplyOptions{FieldManager: "go"}))
	must(deployments.Apply(p.ctx, web, metav1.ApplyOptions{FieldManager: "go"}))
	p.until("two are ready", func() bool {
		return must(deployments.Get(p.ctx, "web", metav1.GetOptions{})).Status.ReadyReplicas == 2
	})
	scale := must(deployments.GetScale(p.ctx, "web", metav1.GetOptions{}))
	scale.Spec.Replicas = 1
	must(deployments.UpdateScale(p.ctx, "web", scale, metav1.UpdateOptions{}))
	p.until("one is left", func() bool {
		return must(deployments.Get(p.ctx, "web", metav1.GetOptions{})).Status.Replicas == 1
	})
	foreground := metav1.DeletePropagationForeground
	check(deployments.Delete(p.ctx, "web", metav1.DeleteOptions{PropagationPolicy: &foreground}))
	p.until("none is left", func() bool {
		return len(must(p.typed.CoreV1().Pods(namespace).List(p.ctx, metav1.ListOptions{LabelSelector: "app=web"})).Items) == 0
	})
}

func (p *program) informers() {
	step("shared informers: they sync, see changes, index, and list from their cache")
	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	factory := informers.NewSharedInformerFactoryWithOptions(p.typed, 0, informers.WithNamespace(namespace))
	secrets := factory.Core().V1().Secrets()
	jobs := factory.Batch().V1().Jobs().Informer()
	changes := make(chan string, 100)
	must(secrets.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { changes <- "add " + object.(*corev1.Secret).Name },
		UpdateFunc: func(_, object any) { changes <- "update " + object.(*corev1.Secret).Name },
		DeleteFunc: func(object any) { changes <- "delete " + object.(*corev1.Secret).Name },
	}))
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		expect(synced, "%v is not synced", kind)
	}
	api := p.typed.CoreV1().Secrets(namespace)
	for _, name := range []string{"a", "b"} {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}, StringData: map[string]string{"k": "v"}}
		must(api.Create(p.ctx, secret, metav1.CreateOptions{}))
	}
	must(api.Patch(p.ctx, "a", types.MergePatchType, []byte(`{"stringData":{"k":"w"}}`), metav1.PatchOptions{}))
	check(api.Delete(p.ctx, "a", metav1.DeleteOptions{}))
	var seen []string
	for len(seen) < 4 {
		select {
		case change := <-changes:
			seen = append(seen, change)
		case <-time.After(limit):
			panic(fmt.Sprint("no further change after ", seen))
		}
	}
	expect(fmt.Sprint(seen) == "[add a add b update a delete a]", "%v", seen)
	found := must(secrets.Lister().Secrets(namespace).List(labels.SelectorFromSet(labels.Set{"name": "b"})))
	expect(len(found) == 1 && string(found[0].Data["k"]) == "v", "%v", found)

	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever,
		Containers:    []corev1.Container{{Name: "main", Image: "busybox", Command: []string{"echo", "hello"}}},
	}}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "once"}, Spec: batchv1.JobSpec{Template: template}}
	must(p.typed.BatchV1().Jobs(namespace).Create(p.ctx, job, metav1.CreateOptions{}))
	p.until("the job is done", func() bool {
		object, there, _ := jobs.GetStore().GetByKey(namespace + "/once")
		return there && object.(*batchv1.Job).Status.Succeeded == 1
	})
	streaming := must(watchtools.NewRetryWatcherWithContext(ctx, "1", &cache.ListWatch{WatchFuncWithContext: p.typed.CoreV1().Namespaces().Watch}))
	streaming.Stop()
}

func (p *program) dynamicClient() {
	step("the dynamic client, mapped by discovery, with an informer of its own and server-side apply")
	discover := discovery.NewDiscoveryClientForConfigOrDie(p.config)
	version := must(discover.ServerVersion())
	expect(version.Major == "1", "%v", version)
	must(discover.OpenAPIV3().Paths())
	definitions := p.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	object := func(value map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: value}
	}
	members := map[string]any{
		"spec":   map[string]any{"type": "object", "properties": map[string]any{"level": map[string]any{"type": "integer"}}},
		"status": map[string]any{"type": "object", "properties": map[string]any{"level": map[string]any{"type": "integer"}}},
	}
	served := map[string]any{
		"name": "v1", "served": true, "storage": true, "subresources": map[string]any{"status": map[string]any{}},
		"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "properties": members}},
	}
	name := "gauges." + group
	must(definitions.Create(p.ctx, object(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"group": group, "scope": "Namespaced", "versions": []any{served},
			"names": map[string]any{"plural": "gauges", "singular": "gauge", "kind": "Gauge", "listKind": "GaugeList"},
		},
	}), metav1.CreateOptions{}))
	defer func() { check(definitions.Delete(p.ctx, name, metav1.DeleteOptions{})) }()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discover))
	var resource schema.GroupVersionResource
	p.until("the kind is served", func() bool {
		mapper.Reset()
		mapping, err := mapper.RESTMapping(schema.GroupKind{Group: group, Kind: "Gauge"})
		if err == nil {
			resource = mapping.Resource
		}
		return err == nil
	})
	gauges := p.dynamic.Resource(resource).Namespace(namespace)
	ctx, stop := context.WithCancel(p.ctx)
	defer stop()
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(p.dynamic, 0, namespace, nil)
	lister := factory.ForResource(resource).Lister().ByNamespace(namespace)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	gauge := func(level int64) *unstructured.Unstructured {
		return object(map[string]any{
			"apiVersion": group + "/v1", "kind": "Gauge", "metadata": map[string]any{"name": "one"}, "spec": map[string]any{"level": level},
		})
	}
	must(gauges.Apply(p.ctx, "one", gauge(1), metav1.ApplyOptions{FieldManager: "one"}))
	_, err := gauges.Apply(p.ctx, "one", gauge(2), metav1.ApplyOptions{FieldManager: "two"})
	expect(apierrors.IsConflict(err), "%v", err)
	live := must(gauges.Get(p.ctx, "one", metav1.GetOptions{}))
	check(unstructured.SetNestedField(live.Object, int64(1), "status", "level"))
	must(gauges.UpdateStatus(p.ctx, live, metav1.UpdateOptions{}))
	p.until("the informer has it with its status", func() bool {
		found, err := lister.Get("one")
		if err != nil {
			return false
		}
		level, _, _ := unstructured.NestedInt64(found.(*unstructured.Unstructured).Object, "status", "level")
		return level == 1
	})
	partial := must(metadata.NewForConfigOrDie(p.config).Resource(resource).Namespace(namespace).List(p.ctx, metav1.ListOptions{}))
	expect(len(partial.Items) == 1 && partial.Items[0].Name == "one", "%v", partial)
	check(gauges.Delete(p.ctx, "one", metav1.DeleteOptions{}))
}

func (p *program) leads() {
	step("leader election: one leads, the other when it stops")
	run := func(ctx context.Context, identity string, led chan<- string) {
		lock := must(resourcelock.New(resourcelock.LeasesResourceLock, namespace, "lock", p.typed.CoreV1(), p.typed.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: identity}))
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 100 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { led <- identity },
				OnStoppedLeading: func() {},
			},
		})
	}
	led := make(chan string, 2)
	first, resign := context.WithCancel(p.ctx)
	second, stop := context.WithCancel(p.ctx)
	defer stop()
	go run(first, "one", led)
	expect(<-led == "one", "another leads")
	go run(second, "two", led)
	resign()
	expect(<-led == "two", "another leads")
	lease := must(p.typed.CoordinationV1().Leases(namespace).Get(p.ctx, "lock", metav1.GetOptions{}))
	expect(*lease.Spec.HolderIdentity == "two" && *lease.Spec.LeaseTransitions >= 1, "%v", lease.Spec)
}

func (p *program) runs() {
	step("a pod runs, is looked into, logs, and goes; events tell of it")
	pods := p.typed.CoreV1().Pods(namespace)
	container := corev1.Container{Name: "main", Image: "busybox", Command: []string{"sh", "-c", "echo started; sleep 3600"}}
	must(pods.Create(p.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "shell"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{container}, TerminationGracePeriodSeconds: ptr.To[int64](0),
	}}, metav1.CreateOptions{}))
	p.until("it runs", func() bool {
		return must(pods.Get(p.ctx, "shell", metav1.GetOptions{})).Status.Phase == corev1.PodRunning
	})
	exec := func(command ...string) (string, string, error) {
		request := p.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name("shell").SubResource("exec").
			VersionedParams(&corev1.PodExecOptions{Command: command, Stdin: true, Stdout: true, Stderr: true}, scheme.ParameterCodec)
		executor := must(remotecommand.NewWebSocketExecutor(p.config, "GET", request.URL().String()))
		var out, err bytes.Buffer
		ended := executor.StreamWithContext(p.ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("in\n"), Stdout: &out, Stderr: &err})
		return out.String(), err.String(), ended
	}
	out, errors, err := exec("sh", "-c", "cat; echo wrong >&2")
	expect(err == nil && out == "in\n" && errors == "wrong\n", "%q %q %v", out, errors, err)
	_, _, err = exec("sh", "-c", "exit 3")
	expect(err != nil && strings.Contains(err.Error(), "exit code 3"), "%v", err)
	log := must(pods.GetLogs("shell", &corev1.PodLogOptions{}).DoRaw(p.ctx))
	expect(string(log) == "started\n", "%q", log)
	broadcaster := record.NewBroadcaster()
	broadcaster.StartRecordingToSink(&typedEvents{p})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "go"})
	recorder.Event(must(pods.Get(p.ctx, "shell", metav1.GetOptions{})), corev1.EventTypeNormal, "Seen", "it runs")
	p.until("the event is there", func() bool {
		events := must(p.typed.CoreV1().Events(namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "reason=Seen"}))
		return len(events.Items) == 1
	})
	broadcaster.Shutdown()
	check(pods.Delete(p.ctx, "shell", metav1.DeleteOptions{}))
	p.until("it is gone", func() bool {
		_, err := pods.Get(p.ctx, "shell", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

// typedEvents writes events as controllers do.
type typedEvents struct{ p *program }

func (t *typedEvents) Create(event *corev1.Event) (*corev1.Event, error) {
	return t.p.typed.CoreV1().Events(event.Namespace).CreateWithEventNamespace(event)
}

func (t *typedEvents) Update(event *corev1.Event) (*corev1.Event, error) {
	return t.p.typed.CoreV1().Events(event.Namespace).UpdateWithEventNamespace(event)
}

func (t *typedEvents) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return t.p.typed.CoreV1().Events(event.Namespace).PatchWithEventNamespace(event, data)
}

func main() {
	config := must(clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG")))
	config.QPS, config.Burst = 1000, 1000
	proto := rest.CopyConfig(config)
	// What typed clients of controllers ask for: protobuf, and JSON where there is none.
	proto.AcceptContentTypes, proto.ContentType = "application/vnd.kubernetes.protobuf,application/json", "application/vnd.kubernetes.protobuf"
	p := &program{context.Background(), config, kubernetes.NewForConfigOrDie(proto), dynamic.NewForConfigOrDie(config)}
	made := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	must(p.typed.CoreV1().Namespaces().Create(p.ctx, made, metav1.CreateOptions{}))
	p.until("its account is there", func() bool {
		_, err := p.typed.CoreV1().ServiceAccounts(namespace).Get(p.ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	p.typedObjects()
	p.applies()
	p.informers()
	p.dynamicClient()
	p.leads()
	p.runs()
	check(p.typed.CoreV1().Namespaces().Delete(p.ctx, namespace, metav1.DeleteOptions{}))
	p.until("its namespace is gone", func() bool {
		_, err := p.typed.CoreV1().Namespaces().Get(p.ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}
