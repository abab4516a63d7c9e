package conformance

import (
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/ceph"
)

// Where the genuine tool says only that something failed, ours says what to do.
func TestHints(t *testing.T) {
	vars, err := ours.vars()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"ls --id none --key $NONE_KEY -p rbd -l":                             "hint: client.none lacks the capability",
		"ls --id kube --key $KEY":                                            "hint: the monitors refused client.kube: compare its key here with \"ceph auth get client.kube\"",
		"ls --id kube --key abc":                                             "hint: " + ceph.ErrKey.Line,
		"ls -c /dev/null --id kube --key $KUBE_KEY":                          "hint: no monitor is known",
		"ls -c /dev/null -m $MON --id kube":                                  "hint: no key for client.kube",
		"ls -c /dev/null -m 127.0.0.1:1 --client-mount-timeout 1 --key $KEY": "hint: monitor 127.0.0.1:1 cannot be reached: connection refused",
		"ls -c /dev/null -m no.such.host.invalid --id kube --key $KUBE_KEY":  "hint: monitor \"no.such.host.invalid\": ",
		"ls":              "",
		"--user admin ls": "",
		"ls nopool":       "hint: pools of this cluster: rbd",
		"ls --bogus":      "",
		"bogus":           "",
	} {
		words, err := splitWords(line)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range words {
			words[i] = expand(w, vars)
		}
		cmd := ours.cluster.Command(t.Context(), ours.program, words...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		got := stderr.String()
		if i := strings.Index(got, "hint: "); i >= 0 {
			got = got[i:]
		} else {
			got = ""
		}
		switch {
		case want == "" && got != "":
			t.Errorf("%s: an unwanted hint: %s", line, got)
		case !strings.Contains(got, want):
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}

// A reader that goes away early is no failure, as with "rbd ls | head -1".
func TestClosedPipe(t *testing.T) {
	for _, args := range []string{"ls", "ls --format json", "help", "help map"} {
		var codes []string
		for _, s := range []*side{genuine, ours} {
			cmd := s.cluster.Command(t.Context(), "sh", "-c", `(sleep 0.3; "$0" "$@" 2>&1; echo "exit code $?" >&2) | true`, s.program)
			cmd.Args = append(cmd.Args, strings.Fields(args)...)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			codes = append(codes, stderr.String())
		}
		if codes[0] != codes[1] {
			t.Errorf("rbd %s: genuine %q, ours %q", args, codes[0], codes[1])
		}
	}
}

// Output that cannot be written is a failure, other than with the genuine tool,
// which does not notice.
func TestFullDisk(t *testing.T) {
	cmd := ours.cluster.Command(t.Context(), "sh", "-c", `"$0" help > /dev/full`, ours.program)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no space left on device") {
		t.Errorf("%v: %s", err, out)
	}
}
