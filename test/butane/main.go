// Command butane reads the Butane files of deploy/butane as butane --strict
// does and prints the text of the units that are in them:
//
//	go run . flatcar.bu
//
// It is a module of its own so that Butane's dependencies stay out of the
// product's.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"
)

// ignition is what the tests want to know of an Ignition configuration.
type ignition struct {
	Ignition struct{ Version string }
	Storage  struct {
		Files []struct {
			Path     string
			Mode     int
			Contents struct {
				Source       string
				Verification struct{ Hash string }
			}
		}
	}
	Systemd struct {
		Units []struct {
			Name     string
			Enabled  bool
			Contents string
		}
	}
}

const folder = "../../deploy/butane"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "butane:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("name a file of deploy/butane")
	}
	// Its configuration and key are the cluster's, which the tests have elsewhere.
	files, err := os.MkdirTemp("", "butane")
	if err != nil {
		return err
	}
	defer os.RemoveAll(files)
	c, err := translate(filepath.Join(folder, os.Args[1]), files)
	if err != nil {
		return err
	}
	for _, u := range c.Systemd.Units {
		fmt.Print(u.Contents)
	}
	return nil
}

// translate is butane --strict --files-dir FILES; the files that are named
// there are made.
func translate(name, files string) (*ignition, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"ceph.conf", "ceph.client.kube.keyring"} {
		if err := os.WriteFile(filepath.Join(files, f), []byte("# "+f+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	options := common.TranslateBytesOptions{}
	options.FilesDir = files
	out, report, err := config.TranslateBytes(text, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, report.String())
	}
	if len(report.Entries) > 0 { // what --strict is
		return nil, fmt.Errorf("%s: %s", name, report.String())
	}
	var c ignition
	return &c, json.Unmarshal(out, &c)
}
