// Command deploy builds the manifests of deploy/ as kubectl does and reads them
// as an API server does that takes no unknown field:
//
//	go run . OVERLAY          the objects of deploy/overlays/OVERLAY, as kubectl kustomize prints them
//	go run . -pod OVERLAY     the pod of its template, in the form that kubelet reads from a file
//
// It is a module of its own so that Kubernetes' and kustomize's dependencies
// stay out of the product's.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	pod := flag.Bool("pod", false, "print the pod of the template, for kubelet to read from a file")
	flag.Parse()
	if err := run(flag.Arg(0), *pod); err != nil {
		fmt.Fprintln(os.Stderr, "deploy:", err)
		os.Exit(1)
	}
}

func run(overlay string, pod bool) error {
	if overlay == "" {
		return errors.New("name an overlay, such as flatcar/install")
	}
	// This module's folder is where go run -C leaves us.
	b, err := build(filepath.Join("../../deploy/overlays", overlay))
	if err != nil || !pod {
		fmt.Print(string(b.text))
		return err
	}
	text, err := json.MarshalIndent(b.pod("node1"), "", "\t")
	if err != nil {
		return err
	}
	fmt.Println(string(text))
	return nil
}

// built is what the API server would get of one folder.
type built struct {
	text      []byte
	namespace *corev1.Namespace
	daemonSet *appsv1.DaemonSet
	job       *batchv1.Job
}

// build builds a folder with kustomize. A field that the API does not have, or
// that stands there twice, is an error.
func build(dir string) (built, error) {
	var b built
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return b, err
	}
	if b.text, err = resources.AsYaml(); err != nil {
		return b, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return b, err
		}
	}
	strict := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, r := range resources.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return b, err
		}
		object, _, err := strict.Decode(text, nil, nil)
		if err != nil {
			return b, fmt.Errorf("%s %s: %w", r.GetKind(), r.GetName(), err)
		}
		switch o := object.(type) {
		case *corev1.Namespace:
			b.namespace = o
		case *appsv1.DaemonSet:
			b.daemonSet = o
		case *batchv1.Job:
			b.job = o
		default:
			return b, fmt.Errorf("%s %s: nobody expects one", r.GetKind(), r.GetName())
		}
	}
	return b, nil
}

// template is that of the DaemonSet or of the Job.
func (b built) template() corev1.PodTemplateSpec {
	if b.daemonSet != nil {
		return b.daemonSet.Spec.Template
	}
	return b.job.Spec.Template
}

// pod is what a controller would make of the template for one node.
func (b built) pod(node string) *corev1.Pod {
	t := b.template()
	p := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	p.APIVersion, p.Kind = "v1", "Pod"
	p.Name, p.Namespace = "opt-rbd", "opt-rbd"
	p.Spec.NodeName = node
	return p
}
