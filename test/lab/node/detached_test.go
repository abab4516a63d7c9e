package node

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opt-rbd/opt-rbd/test/lab/agent"
	"github.com/opt-rbd/opt-rbd/test/lab/cluster"
)

// TestDetached also shows that the guest's agent serves one host after the
// other, whatever the last one has left in the port.
func TestDetached(t *testing.T) {
	c, err := cluster.New(t.Context(), cluster.Options{Name: fmt.Sprintf("node-test-%d", os.Getpid())})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			c.Close()
		}
	})
	if err := StartDetached(t.Context(), c, Options{}); err != nil {
		t.Fatal(err)
	}
	output := func(client *agent.Client, argv ...string) string {
		t.Helper()
		var out strings.Builder
		if code, err := client.Run(t.Context(), agent.Command{Argv: argv, Stdout: &out}); code != 0 || err != nil {
			t.Fatalf("%q: exit code %d, %v", argv, code, err)
		}
		return out.String()
	}
	for range 3 {
		client, err := Attach(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if out := output(client, "hostname"); out != "node1\n" {
			t.Errorf("hostname says %q", out)
		}
		// This one goes away while output comes in, input goes out and a command
		// runs.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		go client.Run(ctx, agent.Command{Argv: []string{"yes"}})
		go client.Run(ctx, agent.Command{Argv: []string{"cat"}, Stdin: zeros{}})
		go client.Run(ctx, agent.Command{Argv: []string{"sleep", "12345"}})
		time.Sleep(500 * time.Millisecond)
		client.Close()
		cancel()
	}
	client, err := Attach(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if out := output(client, "sh", "-c", "cat /proc/[0-9]*/cmdline"); strings.Contains(out, "sleep\x0012345") {
		t.Error("a command runs on after its host has gone")
	}
	client.Close()

	closed = true
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Attach(t.Context(), c); err == nil {
		t.Error("the node is still there after its cluster")
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }
