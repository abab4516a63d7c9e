// Package payload makes and checks what goes on a node: the folder with usr/ that the launcher binds over the
// host's /usr. It holds rbd, every library that rbd loads, and modprobe; nothing else of a distribution.
//
// It is not for running anything (internal/launch does that) and not for copying to a node (internal/node does).
package payload

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// ManifestName is the manifest's file in a payload's folder, beside usr/.
const ManifestName = "payload.json"

// Manifest says what a payload holds.
type Manifest struct {
	// ID names the content: the first 12 hex digits of Digest.
	ID string `json:"id"`
	// Digest is the SHA-256 over path, mode and content of every entry of Files.
	Digest string `json:"sha256"`
	// Ceph is the release of the libraries, such as 16.2.15; empty where it could not be asked.
	Ceph string `json:"ceph"`
	// Machine is the architecture as the ELF header has it, such as EM_X86_64.
	Machine string `json:"machine"`
	// Size is the sum of the regular files in bytes.
	Size int64 `json:"size"`
	// Files has every entry below the payload's folder but the manifest, sorted by path; folders too.
	Files []File `json:"files"`
}

// File is one entry of a payload.
type File struct {
	// Path is relative to the payload's folder, with slashes.
	Path string `json:"path"`
	// Mode is the type and the permissions as ls -l prints them: drwxr-xr-x, -rw-r--r--, Lrwxrwxrwx.
	Mode string `json:"mode"`
	// Size is in bytes, of regular files only.
	Size int64 `json:"size,omitempty"`
	// SHA256 is of regular files only.
	SHA256 string `json:"sha256,omitempty"`
	// Link is where a symbolic link points to.
	Link string `json:"link,omitempty"`
}

func (f File) withMode(mode string) File {
	f.Mode = mode
	return f
}

// Read gives the manifest of the payload in dir, as it is written there. Verify compares it with the files.
func Read(dir string) (*Manifest, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not a payload: make one with make payload: %w", dir, err)
	}
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, ManifestName), err)
	}
	if len(m.Digest) != hex.EncodedLen(sha256.Size) || m.ID != m.Digest[:12] {
		return nil, fmt.Errorf("%s: the id does not belong to the digest", filepath.Join(dir, ManifestName))
	}
	return &m, nil
}

// Verify reads every file of the payload in dir and says what differs from its manifest: a file that is missing, new
// or changed. Owners and times are not looked at.
func Verify(dir string) error {
	want, err := Read(dir)
	if err != nil {
		return err
	}
	got, err := Scan(os.DirFS(dir))
	if err != nil {
		return err
	}
	for i := 0; i < len(want.Files) || i < len(got.Files); i++ {
		switch {
		case i == len(got.Files) || i < len(want.Files) && want.Files[i].Path < got.Files[i].Path:
			return fmt.Errorf("%s is missing: install the payload again", filepath.Join(dir, want.Files[i].Path))
		case i == len(want.Files) || got.Files[i].Path < want.Files[i].Path:
			return fmt.Errorf("%s does not belong to the payload: install the payload again", filepath.Join(dir, got.Files[i].Path))
		case got.Files[i] != want.Files[i] && got.Files[i].withMode(want.Files[i].Mode) == want.Files[i]:
			return fmt.Errorf("%s has mode %s and not %s: unpack the payload again as root or with tar -p, which keeps modes",
				filepath.Join(dir, want.Files[i].Path), got.Files[i].Mode, want.Files[i].Mode)
		case got.Files[i] != want.Files[i]:
			return fmt.Errorf("%s is not what the payload was made with: install the payload again", filepath.Join(dir, want.Files[i].Path))
		}
	}
	if got.Digest != want.Digest {
		return fmt.Errorf("%s: the digest does not belong to the files", filepath.Join(dir, ManifestName))
	}
	return nil
}

// Scan reads the payload in a folder and fills ID, Digest, Size and Files.
func Scan(folder fs.FS) (*Manifest, error) {
	m := &Manifest{}
	err := fs.WalkDir(folder, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." || path == ManifestName {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := File{Path: path, Mode: info.Mode().String()}
		switch {
		case info.Mode().IsRegular():
			if f.SHA256, err = digest(folder, path); err != nil {
				return err
			}
			f.Size = info.Size()
			m.Size += f.Size
		case info.Mode()&fs.ModeSymlink != 0:
			if f.Link, err = fs.ReadLink(folder, path); err != nil {
				return err
			}
		case !info.IsDir():
			return fmt.Errorf("%s is neither a file, a folder nor a symbolic link", path)
		}
		m.Files = append(m.Files, f)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(m.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	sum := sha256.New()
	for _, f := range m.Files {
		// Quoted, so that no name can look like two entries.
		fmt.Fprintf(sum, "%q %s %s %q\n", f.Path, f.Mode, f.SHA256, f.Link)
	}
	m.Digest = hex.EncodeToString(sum.Sum(nil))
	m.ID = m.Digest[:12]
	return m, nil
}

func digest(folder fs.FS, path string) (string, error) {
	f, err := folder.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// write puts the manifest into dir.
func (m *Manifest) write(dir string) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	if err := e.Encode(m); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, ManifestName), b.Bytes(), 0o644)
}
