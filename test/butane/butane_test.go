package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every file is one that butane --strict takes, and says what it is for: the
// archive by its digest, the keyring for root alone, the unit enabled.
func TestFiles(t *testing.T) {
	names, err := filepath.Glob(folder + "/*.bu")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 2 {
		t.Fatalf("there are %q: want Flatcar and Fedora CoreOS", names)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c, err := translate(name, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(c.Ignition.Version, "3.") {
				t.Errorf("version of Ignition %q", c.Ignition.Version)
			}
			keyring, remote := false, 0
			for _, f := range c.Storage.Files {
				if strings.HasSuffix(f.Path, ".keyring") {
					keyring = true
					if f.Mode != 0o600 {
						t.Errorf("%s has mode %04o", f.Path, f.Mode)
					}
				}
				if strings.HasPrefix(f.Contents.Source, "https:") {
					remote++
					if !strings.HasPrefix(f.Contents.Verification.Hash, "sha256-") {
						t.Errorf("%s is fetched and not verified", f.Path)
					}
				}
			}
			if !keyring || remote != 1 {
				t.Errorf("keyring: %v, files fetched: %d", keyring, remote)
			}
			for _, u := range c.Systemd.Units {
				if !u.Enabled || !strings.Contains(u.Contents, "\nBefore=kubelet.service\n") {
					t.Errorf("%s: enabled %v\n%s", u.Name, u.Enabled, u.Contents)
				}
			}
			if len(c.Systemd.Units) == 0 {
				t.Error("nothing installs")
			}
		})
	}
}

// What butane only warns of is an error here.
func TestStrict(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "x.bu")
	if err := os.WriteFile(name, []byte("variant: flatcar\nversion: 1.1.0\nstorage:\n  files:\n    - path: /etc/x\n      mode: 644\n      nosuch: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := translate(name, dir); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("%v", err)
	}
}
