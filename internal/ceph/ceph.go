// Package ceph configures librados as Ceph's own tools configure themselves
// (files, environment, command line), connects, and opens pools. What librbd
// does with images is not its business.
package ceph

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
	"golang.org/x/sys/unix"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/conf"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/krbd"
)

// #cgo LDFLAGS: -lrados
// #include <stdlib.h>
// #include <string.h>
// #include <rados/librados.h>
import "C"

// Cluster is a cluster as files, environment and command line describe it.
// Pool and Connect connect when they are first called.
type Cluster struct {
	conn      *rados.Conn
	name      string // "client.admin"
	connected bool
	err       error // why connecting cannot work, known before it is tried
	words     []string
	timeout   string // what SetTimeout was given
	verbose   bool   // see Verbose

	// UserGiven says that the deprecated --user was on the line.
	UserGiven bool
}

// ErrPool and ErrNamespace are in the errors of a Pool that found no pool or no
// namespace of that name.
var (
	ErrPool      = errors.New("no such pool")
	ErrNamespace = errors.New("no such namespace")
)

// ErrConnect is in the error of a Connect that failed.
var ErrConnect = errors.New("connecting failed")

// ErrVersion is New's answer to a line that asks for the version.
var ErrVersion = errors.New("the version is asked for")

// ErrShown is New's answer to a line that asks for the value of an option, which it has shown.
var ErrShown = errors.New("an option is shown")

// early are the options that decide which files are read, and so come before
// all others.
type early struct {
	conf, cluster, name string
	user, showArgs      bool
	shown               string // the option whose value is to be shown
}

// New reads argv (without the program's name) and the environment, and gives
// the words of argv that are not Ceph's. Its errors are complete lines. Only
// --show-args and --show-config-value write to stdout.
func New(argv []string, stdout io.Writer) (*Cluster, []string, error) {
	argv = args.Environ(argv, os.Getenv("CEPH_ARGS"))
	e, rest, err := readEarly(argv)
	if err != nil {
		return nil, nil, err
	}
	if e.showArgs {
		fmt.Fprintln(stdout, "args: "+strings.Join(argv, " "))
	}
	conn, err := rados.NewConnWithClusterAndUser(e.cluster, e.name)
	if err != nil {
		return nil, nil, &errno.Error{Code: 1, Line: "couldn't initialize rados!", Err: err}
	}
	// It is in argv. librados would read it again with the configuration, and children should not see it.
	os.Unsetenv("CEPH_ARGS")
	c := &Cluster{conn: conn, name: e.name, UserGiven: e.user}
	if err := c.readConfig(e.conf); err != nil {
		return nil, nil, err
	}
	if rest, err = c.parseArgv(rest); err != nil {
		return nil, nil, err
	}
	if e.shown != "" {
		return nil, nil, c.showOption(e.shown, stdout)
	}
	if err := c.dropPrivileges(os.Stderr); err != nil {
		return nil, nil, err
	}
	c.showLog()
	c.err = c.checkKey()
	c.words = less(argv, rest)
	return c, rest, nil
}

// less gives the words of all that are not in some, which are all in their
// order.
func less(all, some []string) (words []string) {
	for _, w := range all {
		if len(some) > 0 && w == some[0] {
			some = some[1:]
		} else {
			words = append(words, w)
		}
	}
	return words
}

// Words are the words of the line and of CEPH_ARGS that were Ceph's, for
// another program of Ceph's, less those with a key: that is given apart, for
// there is a way to hand it on that others cannot see.
func (c *Cluster) Words() (words []string, key string) {
	for i := 0; i < len(c.words); {
		name, value, n := args.CephOption(c.words[i:], args.CephValue...)
		switch {
		case n == 0 || i+n > len(c.words):
			n = 1
			words = append(words, c.words[i])
		case name == "--key":
			key = value
		default:
			words = append(words, c.words[i:i+n]...)
		}
		i += n
	}
	return words, key
}

func readEarly(argv []string) (early, []string, error) {
	e := early{name: "client.admin"} // without its name librados takes the cluster for the one of -c's file, or for ceph
	var rest []string
	for i := 0; i < len(argv); i++ {
		if argv[i] == "--" {
			return e, append(rest, argv[i:]...), nil
		}
		switch argv[i] {
		case "-v", "--version":
			return e, nil, ErrVersion
		case "--show_args", "--show-args":
			e.showArgs = true
			continue
		}
		name, value, words := args.CephOption(argv[i:], "--conf", "-c", "--cluster", "--id", "--user", "--name", "-n", "--show-config-value")
		if words == 0 {
			rest = append(rest, argv[i])
			continue
		}
		if i+words > len(argv) {
			return e, nil, &errno.Error{Code: 1, Bare: true, Line: "Option " + argv[i] + " requires an argument."}
		}
		i += words - 1
		switch name {
		case "--conf", "-c":
			e.conf = value
		case "--cluster":
			e.cluster = value
		case "--show-config-value":
			e.shown = value
		case "--id", "--user":
			kind, _, _ := strings.Cut(e.name, ".")
			e.name = kind + "." + value
			e.user = e.user || name == "--user"
		case "--name", "-n":
			kind, _, dotted := strings.Cut(value, ".")
			if !dotted || !strings.Contains(" auth mon osd mds mgr client ", " "+kind+" ") {
				return e, nil, &errno.Error{Code: 1, Bare: true, Line: "error parsing '" + value +
					"': expected string of the form TYPE.ID, valid types are: auth, mon, osd, mds, mgr, client"}
			}
			e.name = value
		}
	}
	return e, rest, nil
}

// showOption prints the value of an option.
func (c *Cluster) showOption(name string, stdout io.Writer) error {
	value, err := c.conn.GetConfigOption(name)
	if err != nil {
		return &errno.Error{Code: 1, Bare: true, Line: "failed to get config option '" + name + "': option not found", Err: err}
	}
	fmt.Fprintln(stdout, value)
	return ErrShown
}

// readConfig reads the files of conf (a list) or, where that is empty, of
// CEPH_CONF or the usual places. That there are none is fine unless conf
// names them: everything can be on the command line.
func (c *Cluster) readConfig(conf string) error {
	var err error
	if conf != "" {
		err = c.conn.ReadConfigFile(conf)
	} else {
		err = c.conn.ReadDefaultConfigFile()
	}
	bare := func(line string) error { return &errno.Error{Code: 1, Bare: true, Line: line, Err: err} }
	switch {
	case err == nil:
		return nil
	case errno.Code(err) == syscall.ENOENT:
		if conf == "" {
			return nil
		}
		return bare("global_init: unable to open config file from search list " + conf)
	case errno.Code(err) == syscall.EDOM:
		return bare("global_init: error parsing config file.")
	}
	return bare("global_init: error reading config file.")
}

// parseArgv lets librados take its options out of argv.
func (c *Cluster) parseArgv(argv []string) ([]string, error) {
	// What a program, unlike a library, does: say errors on stderr. What is set here counts more than the line.
	if !slices.ContainsFunc(argv, func(w string) bool { return strings.Contains(w, "err") }) {
		_ = c.SetConfig("err_to_stderr", "true")
	} else {
		argv = append([]string{"--err-to-stderr=true"}, argv...)
	}
	// librados tries each word as each of its options, which takes half a
	// millisecond a word: those before the first that may be one are not for it.
	first := slices.IndexFunc(argv, func(w string) bool { return strings.HasPrefix(w, "-") })
	if first < 0 {
		return argv, nil
	}
	rest, err := c.takeOptions(argv[first:])
	return append(slices.Clone(argv[:first]), rest...), err
}

// takeOptions lets librados take its options out of argv, as they are. Those
// from the first on that has no value it can have are not taken, nor is that
// one left: librados has told of it on stderr.
func (c *Cluster) takeOptions(argv []string) ([]string, error) {
	rest, r := c.tryOptions(argv)
	if r >= 0 {
		return rest, nil
	}
	// It does not say how far it came.
	silence, err := unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(silence)
	stderr, err := unix.FcntlInt(2, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	defer unix.Close(stderr)
	if err := unix.Dup2(silence, 2); err != nil {
		return nil, err
	}
	for rest = nil; len(argv) > 0; {
		// With the next word, which may be its value.
		n := 1
		if strings.HasPrefix(argv[0], "-") && !strings.Contains(argv[0], "=") {
			n = min(2, len(argv))
		}
		left, r := c.tryOptions(argv[:n])
		if r < 0 && n == 2 && strings.HasPrefix(argv[1], "-") {
			// It may be the next one's that is wrong, which then comes by itself.
			if alone, ok := c.tryOptions(argv[:1]); ok >= 0 {
				left, r, n = alone, ok, 1
			}
		}
		switch {
		case argv[0] == "--":
			rest = append(rest, argv...)
			argv = nil
		case r < 0:
			rest = append(rest, argv[n:]...)
			argv = nil
		case len(left) == n: // none of Ceph's
			rest = append(rest, argv[0])
			argv = argv[1:]
		case n == 2 && len(left) == 1 && left[0] == argv[0]: // the next one was
			rest = append(rest, argv[0])
			argv = argv[2:]
		default:
			argv = argv[n-len(left):]
		}
	}
	return rest, unix.Dup2(stderr, 2)
}

// tryOptions is takeOptions for options that librados can take; it gives
// librados' answer.
func (c *Cluster) tryOptions(argv []string) (rest []string, answer C.int) {
	// librados skips the first word.
	in := make([]*C.char, 0, len(argv)+1)
	for _, a := range append([]string{"rbd"}, argv...) {
		in = append(in, C.CString(a))
	}
	// The words that are left point into those that were given.
	out := make([]*C.char, len(in))
	answer = C.rados_conf_parse_argv_remainder(c.handle(), C.int(len(in)), &in[0], &out[0])
	for _, a := range out[1:] {
		if a != nil && answer >= 0 {
			rest = append(rest, C.GoString(a))
		}
	}
	for _, a := range in {
		wipe(a)
		C.free(unsafe.Pointer(a))
	}
	return rest, answer
}

func wipe(s *C.char) {
	clear(unsafe.Slice((*byte)(unsafe.Pointer(s)), C.strlen(s)))
}

func (c *Cluster) handle() C.rados_t { return C.rados_t(c.conn.Cluster()) }

// Config is the value of a configuration option; after Connect also those
// that the monitors keep for clients count.
func (c *Cluster) Config(option string) string {
	value, err := c.conn.GetConfigOption(option)
	if err != nil {
		return ""
	}
	return value
}

// HasConfig says whether Ceph knows a configuration option.
func (c *Cluster) HasConfig(option string) bool {
	_, err := c.conn.GetConfigOption(option)
	return err == nil
}

// SetConfig overrides a configuration option.
func (c *Cluster) SetConfig(option, value string) error {
	return c.conn.SetConfigOption(option, value)
}

// levels are the options that say how much the parts of a client log ("20/20",
// or "1/5" where what is of level 1 is logged, and what is of up to 5 is only
// kept in memory, to be written should the process crash), with the standard.
var levels = []struct {
	option string
	level  int
}{{"debug_rbd", 0}, {"debug_rados", 0}, {"debug_objecter", 0}, {"debug_ms", 0}, {"debug_monc", 0}, {"debug_auth", 1}}

// showLog does with the log what a program does, unlike a library: it goes to
// stderr unless the configuration has another place for it. That is so only
// where somebody wants to see more than the standard, of which stderr has the
// errors anyway.
func (c *Cluster) showLog() {
	if c.verbose {
		return
	}
	for _, l := range levels {
		logged, _, _ := strings.Cut(c.Config(l.option), "/")
		if level, err := strconv.Atoi(logged); err == nil && level > l.level {
			c.verbose = true
			if _, r := c.tryOptions([]string{"--default-log-to-stderr=true"}); r < 0 {
				// Connected, as the monitors keep the level: it is too late for a default.
				_ = c.SetConfig("log_to_stderr", "true")
			}
			return
		}
	}
}

// Verbose says that there is a log, of which only Shutdown writes the end.
func (c *Cluster) Verbose() bool { return c.verbose }

// Monitors gives the monitors' addresses that the configuration names in
// mon_host, for both versions of the messenger protocol.
func (c *Cluster) Monitors() ([]krbd.Monitor, error) {
	list, err := conf.Monitors(c.Config("mon_host"), net.LookupHost)
	if err != nil {
		return nil, errno.Errorf(syscall.EINVAL, "%v", err)
	}
	return list, nil
}

// Name is the client's name, "client.admin"; ID is it without the type.
func (c *Cluster) Name() string { return c.name }

// ID is what the client is called without its type: "admin".
func (c *Cluster) ID() string {
	_, id, _ := strings.Cut(c.name, ".")
	return id
}

// DefaultTimeout is how long the cluster may leave a request without an answer,
// in seconds, where nobody says anything else: what Ceph has as a bound for
// connecting. For all others it has none.
const DefaultTimeout = "300"

// requestTimeouts bound a request to the monitors and one to an OSD, in
// seconds; 0 is no bound. A request that takes longer ends with ETIMEDOUT. Long
// work is made of many requests, so only a cluster that stands still ends it.
var requestTimeouts = []string{"rados_mon_op_timeout", "rados_osd_op_timeout"}

// SetTimeout bounds how long connecting may take, and how long the cluster may
// leave a request without an answer, in seconds; "0" is no bound. It counts
// more than the configuration, and has to come before the cluster is used.
func (c *Cluster) SetTimeout(seconds string) { c.timeout = seconds }

// boundRequests bounds the requests: by the default where neither the line nor
// the configuration has a bound, of which the monitors may keep a part.
func (c *Cluster) boundRequests() {
	for _, option := range requestTimeouts {
		value, err := strconv.ParseFloat(c.Config(option), 64)
		switch {
		case c.timeout != "":
			_ = c.SetConfig(option, c.timeout)
		case err == nil && value == 0:
			_ = c.SetConfig(option, DefaultTimeout)
		}
	}
}

// forgetConnecting has nothing kept in memory of the way to the monitors, which
// costs as much as a thirtieth of a short call. What is logged stays the same;
// only what the monitors themselves keep of these two options comes too late.
func (c *Cluster) forgetConnecting() {
	for _, option := range []string{"debug_monc", "debug_auth"} {
		if logged, kept, ok := strings.Cut(c.Config(option), "/"); ok && logged != kept {
			_ = c.SetConfig(option, logged+"/"+logged)
		}
	}
}

// Connect connects, once.
func (c *Cluster) Connect() (*rados.Conn, error) {
	if c.connected {
		return c.conn, nil
	}
	err := c.err
	if err == nil {
		// Writes of a tool are few and few wait for a flush.
		_ = c.SetConfig("rbd_cache_writethrough_until_flush", "false")
		if c.timeout != "" {
			_ = c.SetConfig("client_mount_timeout", c.timeout)
		}
		c.forgetConnecting()
		err = c.conn.Connect()
		c.boundRequests()
		c.showLog() // the monitors may keep levels, too
	}
	if err != nil {
		return nil, &errno.Error{Code: errno.Code(err), Line: "couldn't connect to the cluster!", Err: fmt.Errorf("%w: %w", ErrConnect, err)}
	}
	c.connected = true
	return c.conn, nil
}

// Pool opens a pool, the default one where pool is empty, and in it a
// namespace, which has to exist where it is not empty.
func (c *Cluster) Pool(pool, namespace string) (*rados.IOContext, error) {
	conn, err := c.Connect()
	if err != nil {
		return nil, err
	}
	// Asked for after connecting: monitors may say which pool it is.
	standard := c.Config("rbd_default_pool")
	if pool == "" {
		pool = standard
	}
	io, err := conn.OpenIOContext(pool)
	if err != nil {
		code := errno.Code(err)
		if code == syscall.ENOENT {
			err = fmt.Errorf("%w: %w", ErrPool, err)
		}
		if code == syscall.ENOENT && pool == standard {
			return nil, errors.Join(
				&errno.Error{Code: code, Line: "error opening default pool '" + pool + "'", Err: err},
				&errno.Error{Code: code, Bare: true, Line: "Ensure that the default pool has been created or specify an alternate pool name."})
		}
		return nil, errno.Wrap(err, "error opening pool '"+pool+"'")
	}
	if namespace == "" {
		return io, nil
	}
	exists, err := rbd.NamespaceExists(io, namespace)
	switch {
	case err != nil:
		err = errno.Wrap(err, "error asserting namespace")
	case !exists:
		err = &errno.Error{Code: syscall.ENOENT, Line: "namespace '" + namespace + "' does not exist.", Err: ErrNamespace}
	}
	if err != nil {
		io.Destroy()
		return nil, err
	}
	io.SetNamespace(namespace)
	return io, nil
}

// Leave takes away what would stay of a connection after the process: the
// socket of the option admin_socket. It is for a command that succeeded, which
// need not call Shutdown: the process ends sooner without, and everything else
// of it ends with the process.
func (c *Cluster) Leave() {
	path := c.Config("admin_socket")
	if path == "" {
		return
	}
	// One that another process listens at is that one's.
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && int(peer.Pid) == os.Getpid() {
			_ = os.Remove(path) // librados' own would not be told either
		}
	})
}

// Shutdown takes librados down, which writes out what its log still holds. The
// rest is as with Leave.
func (c *Cluster) Shutdown() {
	// go-ceph's own does nothing to what is not connected, and its finalizer would do this a second time.
	c.Leave() // librados leaves it to whatever holds on to the connection
	runtime.SetFinalizer(c.conn, nil)
	C.rados_shutdown(c.handle())
}
