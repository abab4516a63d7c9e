package launch

import (
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// hideKey takes a secret given as --key out of a command line, since every user of the host can read that in
// /proc/PID/cmdline. The key goes to the program by a file in memory that only the inherited descriptor reaches.
func hideKey(argv []string) ([]string, error) {
	key, found := findKey(argv)
	if !found {
		return argv, nil
	}
	key = strings.Clone(key)
	argv = cloneAll(argv)
	wipe(os.Args)
	if key == "" {
		return replaceKey(argv, ""), nil
	}
	// Not close-on-exec: the program is to inherit it.
	fd, err := unix.MemfdCreate("key", 0)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	// One write to a file in memory is never a short one.
	if _, err := unix.Write(fd, []byte(key)); err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	return replaceKey(argv, "/proc/self/fd/"+strconv.Itoa(fd)), nil
}

// findKey gives the key that counts, the last one on the line, and whether any key on it is worth hiding.
func findKey(argv []string) (key string, found bool) {
	eachOption(argv, func(name, value string, _ []string) {
		if name == "--key" {
			key = value
			found = found || value != ""
		}
	})
	return key, found
}

// replaceKey gives argv without its keys. The last one becomes --key= followed by --keyfile=FILE: the empty key keeps
// a key of ceph.conf or CEPH_ARGS from winning over the file, as the line's key did. For the same reason a key file
// on the line goes: where Ceph has both it takes the key. Without a FILE the last key was empty, and stays so.
func replaceKey(argv []string, file string) []string {
	last := 0
	eachOption(argv, func(name, _ string, words []string) {
		if name == "--key" {
			last++
		}
	})
	out := []string{argv[0]}
	rest := eachOption(argv, func(name, _ string, words []string) {
		switch {
		case name == "--key":
			if last--; last > 0 {
				return
			}
			out = append(out, "--key=")
			if file != "" {
				out = append(out, "--keyfile="+file)
			}
		case (name == "--keyfile" || name == "-K") && file != "":
		default:
			out = append(out, words...)
		}
	})
	return append(out, rest...)
}

// eachOption goes through the words of argv after the first as Ceph does, up to "--": a word that is the value of
// another option of Ceph's is not an option, whatever it looks like. It gives what is left from "--" on.
func eachOption(argv []string, f func(name, value string, words []string)) (rest []string) {
	for i := 1; i < len(argv); {
		if argv[i] == "--" {
			return argv[i:]
		}
		name, value, n := args.CephOption(argv[i:], args.CephValue...)
		if n == 0 || i+n > len(argv) {
			// No such option, or one whose value is missing: passed on.
			name, value, n = "", "", 1
		}
		f(name, value, argv[i:i+n])
		i += n
	}
	return nil
}

// wipe overwrites the memory behind args with zeros. For os.Args that is the memory which /proc/PID/cmdline shows:
// the runtime makes those strings without a copy.
func wipe(args []string) {
	for _, arg := range args {
		clear(unsafe.Slice(unsafe.StringData(arg), len(arg)))
	}
}

func cloneAll(words []string) []string {
	clones := make([]string, len(words))
	for i, w := range words {
		clones[i] = strings.Clone(w)
	}
	return clones
}
