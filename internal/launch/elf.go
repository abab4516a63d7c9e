package launch

import (
	"bytes"
	"encoding/binary"
	"syscall"
)

// readInterpreter gives the dynamic loader that an ELF program names, or "" for a program that names none or is not
// ELF of this machine's kind; execve(2) is left to judge those. debug/elf would do the same at four times the size of
// the launcher.
func readInterpreter(path string) (string, error) {
	// Not os.Open, which sets up polling first.
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = syscall.Close(fd) }()
	// elf(5): the header has the place, the size and the number of the program headers.
	head := make([]byte, 4096)
	n, err := syscall.Pread(fd, head, 0)
	if err != nil {
		return "", err
	}
	if n < 64 || string(head[:5]) != "\x7fELF\x02" {
		return "", nil
	}
	order := binary.NativeEndian
	at, size, count := order.Uint64(head[32:]), order.Uint16(head[54:]), order.Uint16(head[56:])
	for i := range uint64(count) {
		from := at + i*uint64(size)
		if size < 56 || from > uint64(n)-56 {
			return "", nil
		}
		const ptInterp = 3
		entry := head[from:]
		if order.Uint32(entry) != ptInterp {
			continue
		}
		name := make([]byte, min(order.Uint64(entry[32:]), syscall.PathMax))
		n, err := syscall.Pread(fd, name, int64(order.Uint64(entry[8:])))
		if err != nil {
			return "", err
		}
		name, _, _ = bytes.Cut(name[:n], []byte{0})
		return string(name), nil
	}
	return "", nil
}
