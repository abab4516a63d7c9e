// Package matrix runs lines of test/conformance with the libraries, the genuine
// rbd and a cluster of newer Ceph releases: the one binary, built against the
// oldest, has to serve them all. What a release says in another way is in
// test/conformance/testdata/allowed.RELEASE.
//
// As on a node, the release's /usr is bound over the host's, in a mount
// namespace that ends with the test.
//
// It takes long, and some hundred MB of packages: `make test-long` runs it.
package matrix
