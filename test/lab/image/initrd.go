package image

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// writeInitrd writes an initramfs with the init program and the modules that
// it loads, numbered in their order.
func writeInitrd(out, init string, mods modules) error {
	paths, err := mods.closure(initModules)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	w := &cpio{w: bufio.NewWriter(f)}
	for _, dir := range []string{"dev", "proc", "sys", "root", "state", "modules"} {
		w.add(dir, 0o040755, nil)
	}
	w.add("init", 0o100755, w.read(init))
	for i, path := range paths {
		w.add(fmt.Sprintf("modules/%02d-%s.ko", i, moduleName(path)), 0o100644, w.read(filepath.Join(mods.dir, path)))
	}
	w.add("TRAILER!!!", 0, nil)
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return errors.Join(w.err, f.Close())
}

// cpio writes the archive format that the kernel reads, "newc" of cpio(5) and
// of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	w      *bufio.Writer
	inode  int
	offset int
	err    error
}

func (c *cpio) read(path string) []byte {
	data, err := os.ReadFile(path)
	c.err = errors.Join(c.err, err)
	return data
}

func (c *cpio) add(name string, mode uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.inode++
	links := 1
	// inode, mode, uid, gid, links, mtime, size, 4 device numbers, name's length with its zero, no checksum
	fields := []int{c.inode, int(mode), 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
	header := "070701"
	for _, f := range fields {
		header += fmt.Sprintf("%08X", f)
	}
	c.write(header + name + "\x00")
	c.pad()
	c.write(string(data))
	c.pad()
}

func (c *cpio) write(s string) {
	if c.err == nil {
		var n int
		n, c.err = io.WriteString(c.w, s)
		c.offset += n
	}
}

// pad fills up to a multiple of four bytes.
func (c *cpio) pad() {
	c.write("\x00\x00\x00"[:(4-c.offset%4)%4])
}
