package launch

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
)

// hideKey takes a secret given as --key out of a command line, since every user of the host can read that in
// /proc/PID/cmdline. The key goes to the program by a file in memory that only the inherited descriptor reaches.
// cephArgs is $CEPH_ARGS.
func hideKey(argv []string, cephArgs string) ([]string, error) {
	key, found := findKey(argv)
	if !found {
		return argv, nil
	}
	key = strings.Clone(key)
	argv = cloneAll(argv)
	wipe(os.Args)
	if key == "" {
		return replaceKey(argv, "", cephArgs), nil
	}
	// Not close-on-exec: the program is to inherit it. Kernels before 6.3 do not know the flag; later ones with the
	// sysctl vm.memfd_noexec=2 insist on it.
	fd, err := unix.MemfdCreate("key", unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate("key", 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	if err := writeKey(fd, key); err != nil {
		return nil, err
	}
	return replaceKey(argv, "/proc/self/fd/"+strconv.Itoa(fd), cephArgs), nil
}

// writeKey writes a key to a file in memory. The limit of a file's size (ulimit -f) holds for that, too: it is lifted
// for this write, as far as the caller may. A pipe, which has no limit, does not do: Ceph asks for the size of a key
// file, and reads it more than once.
func writeKey(fd int, key string) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	if need := uint64(len(key)); limit.Cur < need {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: need, Max: max(need, limit.Max)}); err != nil {
			return errors.New("the limit of a file's size (ulimit -f) is below the key's; raise it, or give a --keyfile")
		}
		defer func() { _ = unix.Setrlimit(unix.RLIMIT_FSIZE, &limit) }()
	}
	// One write to a file in memory is never a short one.
	_, err := unix.Write(fd, []byte(key))
	return os.NewSyscallError("write", err)
}

// HideKey overwrites the keys on the process's command line where other users can see them. os.Args has them as before.
func HideKey() {
	argv := cloneAll(os.Args)
	for _, s := range args.Secrets(os.Args) {
		wipe([]string{os.Args[s.Index][s.From:]})
	}
	os.Args = argv
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

// replaceKey gives argv with its keys replaced by --keyfile=FILE. Without a FILE the key that counts is the empty one,
// and only those that do not count go.
//
// Ceph takes a key file that it can read before a key, whatever their order, and of several key files the last. So FILE
// comes before all others, those of CEPH_ARGS too, which Ceph reads before the line.
func replaceKey(argv []string, file, cephArgs string) []string {
	out := []string{argv[0]}
	place := func() {
		if file == "" {
			return
		}
		out = append(out, "--keyfile="+file)
		file = ""
		eachOption(append([]string{""}, strings.Fields(cephArgs)...), func(name, _ string, words []string) {
			if isKeyFile(name) {
				out = append(out, words...)
			}
		})
	}
	rest := eachOption(argv, func(name, value string, words []string) {
		if name == "--key" || isKeyFile(name) {
			place()
		}
		if name != "--key" || value == "" {
			out = append(out, words...)
		}
	})
	return append(out, rest...)
}

func isKeyFile(option string) bool { return option == "--keyfile" || option == "-K" }

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
