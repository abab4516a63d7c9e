//go:build tools

// Package kubelet pins the kubelet that the node tests run. It is a module of
// its own so that Kubernetes' dependencies stay out of the product's go.mod.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet"
