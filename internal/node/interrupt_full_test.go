//go:build full

package node

import "testing"

// TestErrorAnywhereInEachWay takes minutes.
func TestErrorAnywhereInEachWay(t *testing.T) {
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) { interrupted(t, f.fail) })
	}
}
