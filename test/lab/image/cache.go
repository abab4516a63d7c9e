package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is the cache folder, opt-rbd in $XDG_CACHE_HOME or ~/.cache.
func Dir() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "opt-rbd"), err
}

// key is the digest of all that an entry of the cache is made from.
type key struct{ hash.Hash }

func newKey(parts ...string) key {
	k := key{sha256.New()}
	for _, p := range parts {
		fmt.Fprintf(k, "%d %s\n", len(p), p)
	}
	return k
}

// addFolders adds the names, modes and contents of all files below the folders
// that are named relative to root. Tests do not count.
func (k key) addFolders(root string, folders ...string) error {
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			// The umask decides on the other bits.
			fmt.Fprintf(k, "%s %v %d\n%s\n", rel, info.Mode()&0o100, len(data), data)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cached returns the folder of an entry, made by build if it is not there.
// build fills a folder that gets its name only when build is done.
func cached(ctx context.Context, kind string, k key, build func(dir string) error) (string, error) {
	base, err := Dir()
	if err != nil {
		return "", err
	}
	entry := filepath.Join(base, kind+"-"+hex.EncodeToString(k.Sum(nil))[:16])
	if exists(entry) {
		now := time.Now()
		return entry, os.Chtimes(entry, now, now) // see prune
	}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, filepath.Join(base, kind+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(entry) { // another process has just built it
		return entry, nil
	}
	// With the lock held, this can only be what a killed build has left.
	temp := filepath.Join(base, kind+".tmp")
	if err := os.RemoveAll(temp); err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := os.Mkdir(temp, 0o755); err != nil {
		return "", err
	}
	if err := build(temp); err != nil {
		return "", err
	}
	if err := os.Rename(temp, entry); err != nil {
		return "", err
	}
	return entry, prune(base, kind)
}

// unused is the age at which an entry that nobody has asked for goes.
const unused = 7 * 24 * time.Hour

// prune removes a kind's old entries: each change of the lab's sources makes a
// new one of some 300 MB. A running node keeps what it has open.
func prune(base, kind string) error {
	entries, err := filepath.Glob(filepath.Join(base, kind+"-*"))
	for _, entry := range entries {
		info, statErr := os.Stat(entry)
		if statErr == nil && time.Since(info.ModTime()) > unused {
			err = errors.Join(err, os.RemoveAll(entry))
		}
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lock takes a lock that ends with the process, however that ends.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
