package launch

import (
	"bytes"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"syscall"
)

// ConfigFile has the settings of the launcher, lines of "name = value". A host without the file has the defaults.
const ConfigFile = "/etc/opt-rbd/launcher.conf"

// Config is what the file says.
type Config struct {
	Runtime string // docker, podman or nerdctl: rbd runs in a container of that; "": in the payload
	Image   string // what the container is made of: NAME@sha256:DIGEST or an image's ID
	Direct  bool   // the launcher maps by itself where it can, without asking the cluster
}

// maxConfig is more than any such file needs, in bytes.
const maxConfig = 64 << 10

// ReadConfig reads a file of settings. A file that others than root can change is refused: it says what runs as the
// caller.
func ReadConfig(file string) (c Config, err error) {
	// Not os.ReadFile: for most hosts this one call is all that the file costs.
	fd, err := syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || err == syscall.ENOTDIR {
		return c, nil
	}
	refuse := func(text string, err error) (Config, error) { return Config{}, &Error{exitCannot, text, err} }
	if err != nil {
		return refuse("cannot read "+file, err)
	}
	defer func() { _ = syscall.Close(fd) }()
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		return refuse("cannot read "+file, err)
	}
	if stat.Mode&syscall.S_IFMT != syscall.S_IFREG || stat.Uid != 0 || stat.Mode&0o022 != 0 {
		return refuse(file+" is not a file of root's that only root can write; run chown root and chmod 644 on it", nil)
	}
	text := make([]byte, 0, 4096)
	for {
		chunk := make([]byte, 4096)
		n, err := syscall.Read(fd, chunk)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return refuse("cannot read "+file, err)
		}
		text = append(text, chunk[:n]...)
		if n == 0 {
			break
		}
		if len(text) > maxConfig {
			return refuse(file+" is longer than 64 KiB; is it the right file?", nil)
		}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // an editor's byte order mark
	number := 0
	for len(text) > 0 {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		number++
		if err := c.set(string(line)); err != nil {
			return refuse(file+" line "+strconv.Itoa(number), err)
		}
	}
	if c.Runtime != "" && c.Image == "" {
		return refuse(file+" has a runtime and no image; set image = NAME@sha256:DIGEST or an image's ID", nil)
	}
	return c, nil
}

// set takes one line.
func (c *Config) set(line string) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	name, value, found := strings.Cut(line, "=")
	if !found {
		return errors.New("this is not name = value")
	}
	value = strings.TrimSpace(value)
	switch name = strings.TrimSpace(name); name {
	case "runtime":
		switch value {
		case "none":
			c.Runtime = ""
		case "docker", "podman", "nerdctl":
			c.Runtime = value
		default:
			return errors.New("runtime is none, docker, podman or nerdctl, not " + strconv.Quote(value))
		}
	case "image":
		if !pinned(value) {
			return errors.New("image is NAME@sha256:DIGEST or an image's whole ID (docker image ls --no-trunc), not " + strconv.Quote(value))
		}
		c.Image = value
	case "map":
		switch value {
		case "direct", "rbd":
			c.Direct = value == "direct"
		default:
			return errors.New("map is direct or rbd, not " + strconv.Quote(value))
		}
	default:
		return errors.New("there is no setting " + strconv.Quote(name) + "; known are runtime, image and map")
	}
	return nil
}

// pinned says whether an image is named by its content: a tag can be moved to another image between two calls.
func pinned(image string) bool {
	name, digest, found := strings.Cut(image, "@")
	if !found {
		name, digest = "id", image
	}
	hex, prefixed := strings.CutPrefix(digest, "sha256:")
	if len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" || found && !prefixed {
		return false
	}
	// A name that begins with a dash would be an option of the runtime.
	return name != "" && name[0] != '-' && !strings.ContainsAny(name, " \t@")
}
