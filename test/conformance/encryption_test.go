package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// The passphrase that comes by a descriptor is the one that opens the image.
// The genuine tool of Ceph 16 opens none, so librbd itself does.
func TestEncryptionPassphrase(t *testing.T) {
	if err := ours.emptyPool(); err != nil {
		t.Fatal(err)
	}
	if r := ours.cluster.Rbd("create", "secret", "--size", "32M"); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	path := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(path, []byte("open\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := ours.cluster.Command(t.Context(), ours.program, "encryption", "format", "secret", "luks1", "/dev/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err = ours.cluster.Do(func() error {
		conn, err := rados.NewConn()
		if err != nil {
			return err
		}
		if err := conn.ReadConfigFile(ours.cluster.Conf()); err != nil {
			return err
		}
		if err := conn.Connect(); err != nil {
			return err
		}
		defer conn.Shutdown()
		pool, err := conn.OpenIOContext("rbd")
		if err != nil {
			return err
		}
		defer pool.Destroy()
		for passphrase, opens := range map[string]bool{"open\n": true, "open": false} {
			image, err := rbd.OpenImage(pool, "secret", rbd.NoSnapshot)
			if err != nil {
				return err
			}
			err = image.EncryptionLoad(rbd.EncryptionOptionsLUKS1{Passphrase: []byte(passphrase)})
			if opens != (err == nil) {
				t.Errorf("with the passphrase %q: %v", passphrase, err)
			}
			if err := image.Close(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
