// Package conformance compares the genuine rbd with ours: the same lines, each
// on a real cluster of its own, and then stdout, stderr, exit code and what is
// left in the cluster.
//
// The lines are data in testdata/*.txt; README.md says how to write them. What
// needs a kernel with the rbd module is compared in test/krbd.
package conformance
