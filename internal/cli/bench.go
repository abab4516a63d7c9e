package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var benchOptions = slices.Concat([]args.Option{
	poolOption, namespaceOption, imageOption,
	{Name: "io-size", Arg: "arg", Help: "IO size (in B/K/M/G/T) [default: 4K]", Check: isA(bytes)},
	{Name: "io-threads", Arg: "arg", Help: "ios in flight [default: 16]", Check: isA(unsigned32)},
	{Name: "io-total", Arg: "arg", Help: "total size for IO (in B/K/M/G/T) [default: 1G]", Check: isA(bytes)},
	{
		Name: "io-pattern", Arg: "arg", Help: "IO pattern (rand, seq, or full-seq) [default: seq]",
		Check: oneOf("rand", "seq", "full-seq"),
	},
	{Name: "rw-mix-read", Arg: "arg", Help: "read proportion in readwrite (<= 100) [default: 50]", Check: isA(unsigned32)},
}, since(20, args.Option{
	Name: "pattern-byte", Arg: "arg", Check: isA(patternByte),
	Help: "which byte value to write (integer between 0-255, rand\nor rand-str [default: rand]",
}))

var benchCommand = &command{
	Command: args.Command{
		Path:     []string{"bench"},
		Operands: []args.Operand{imageSpec},
		Options: slices.Concat(benchOptions, []args.Option{
			{
				Name: "io-type", Arg: "arg", Required: true, Help: "IO type (read, write, or readwrite(rw))",
				Check: oneOf("read", "write", "readwrite", "rw"),
			},
		}),
		Short: "Simple benchmark.",
	},
	run: func(c *call) error { return bench(c, c.String("io-type")) },
}

// benchWriteCommand is what bench was before it could read.
var benchWriteCommand = &command{
	Command: args.Command{
		Path: []string{"bench-write"}, Operands: []args.Operand{imageSpec}, Hidden: true,
		Options: benchOptions,
		Short:   "Simple write benchmark. (Deprecated, please use `rbd bench --io-type write` instead.)",
	},
	run: func(c *call) error {
		fmt.Fprintln(c.stderr, "rbd: bench-write is deprecated, use rbd bench --io-type write ...")
		return bench(c, "write")
	},
}

// anyByte is what is written where nothing is said: the lowest byte of a number
// of the C library's rand(), which the genuine tool of Ceph 16 asks before it
// has given it a seed. Then it is always the same.
func anyByte() uint64 {
	if librbd.Release < 18 {
		return 'g'
	}
	return uint64(rand.N(256))
}

// randomBytes is what patternByte reads where there is no one byte to write.
const randomBytes = math.MaxUint8 + 1

func patternByte(text string) (uint64, error) {
	switch text {
	case "rand":
		return anyByte(), nil
	case "rand-str":
		return randomBytes, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, args.ErrArgument
	}
	return n, nil
}

// benchmark is what is asked for.
type benchmark struct {
	kind, pattern  string
	size, total    uint64 // bytes of one request and of all
	threads, reads uint64 // requests under way; percent that read where both is done
}

func bench(c *call, kind string) error {
	b := benchmark{
		kind: kind, pattern: cmp.Or(c.String("io-pattern"), "seq"),
		size: 4 << 10, total: 1 << 30, threads: 16, reads: 50,
	}
	if b.kind == "" {
		return errno.Errorf(syscall.EINVAL, "--io-type must be specified.")
	}
	form := spec.Form{}
	if b.kind == "read" {
		form.Snap = spec.MaySnap
	}
	s, err := c.spec(form)
	if err != nil {
		return err
	}
	for _, o := range []struct {
		name  string
		value *uint64
		read  func(string) (uint64, error)
	}{
		{"io-size", &b.size, bytes}, {"io-threads", &b.threads, unsigned32}, {"io-total", &b.total, bytes}, {"rw-mix-read", &b.reads, unsigned32},
	} {
		if c.IsSet(o.name) {
			*o.value = c.number(o.name, o.read)
		}
	}
	switch b.kind {
	case "read":
		b.reads = 100
	case "write":
		b.reads = 0
	}
	switch {
	case b.size == 0:
		return errno.Errorf(syscall.EINVAL, "--io-size should be greater than zero.")
	case b.threads == 0:
		return errno.Errorf(syscall.EINVAL, "--io-threads should be greater than zero.")
	case b.reads > 100:
		return errno.Errorf(syscall.EINVAL, "--rw-mix-read should not be larger than 100.")
	}
	// The cache stays as it is configured: it is part of what is measured.
	return c.change(s, func(image *rbd.Image) error { return b.run(c, image) })
}

// counts are how much was done.
type counts struct{ reads, writes uint64 }

func (n counts) all() uint64 { return n.reads + n.writes }

// run does the benchmark. A signal ends it early, with the numbers so far.
func (b *benchmark) run(c *call, image *rbd.Image) error {
	size, err := image.GetSize()
	if err != nil {
		return bareError(err, "bench failed")
	}
	switch {
	case b.size > size:
		err = errno.Errorf(syscall.EINVAL, "io-size %s larger than image size %s", output.Size(b.size), output.Size(size))
	case librbd.Release >= 18 && b.size > math.MaxUint32:
		err = errno.Errorf(syscall.EINVAL, "io-size should be less than 4G")
	}
	if err != nil {
		return errors.Join(err, bareError(err, "bench failed"))
	}
	b.heading(c)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	written, err := librbd.Buffer(b.size)
	if err != nil {
		return bareError(err, "bench failed")
	}
	value := anyByte()
	if c.IsSet("pattern-byte") {
		value = c.number("pattern-byte", patternByte)
	}
	if value == randomBytes {
		_, _ = rand.NewChaCha8([32]byte{}).Read(written) // it does not fail
	} else {
		for i := range written {
			written[i] = byte(value)
		}
	}
	read, err := librbd.Buffer(b.size)
	if err != nil {
		return bareError(err, "bench failed")
	}
	requests, err := librbd.NewRequests(image, min(b.threads, b.total/b.size+1))
	if err != nil {
		return bareError(err, "bench failed")
	}
	defer requests.Close()
	// So that the cache need not wait for the first flush to keep what is written.
	if err := image.Flush(); err != nil && (b.kind != "read" || errno.Code(err) != syscall.EROFS) {
		return errors.Join(errno.Wrap(err, "failed to flush"), bareError(err, "bench failed"))
	}
	var done counts
	var offsets []uint64 // where each thread goes on
	var list []librbd.Request
	start := time.Now()
	shown := rates{at: []time.Duration{0}, ops: []uint64{0}}
	for done.all()*b.size < b.total && len(signals) == 0 {
		// As many at once as take a hundredth of a second, by the rate so far.
		list = list[:0]
		many := min(1024, 1+uint64(float64(done.all())*0.01/max(time.Since(start).Seconds(), 0.01)))
		for range many {
			if done.all()*b.size >= b.total {
				break
			}
			i := done.all() % b.threads
			if i == uint64(len(offsets)) {
				offsets = append(offsets, b.first(i, size))
			}
			if b.pattern == "rand" {
				offsets[i] = rand.Uint64N(size/b.size) * b.size
			}
			write := b.reads <= rand.Uint64N(100)
			if write {
				done.writes++
			} else {
				done.reads++
			}
			list = append(list, librbd.NewRequest(offsets[i], write))
			offsets[i] = b.next(offsets[i], i, size)
		}
		if err := requests.Do(list, written, read); err != nil {
			return requestFailed(c, err)
		}
		if now := time.Since(start); now.Truncate(time.Second) != shown.last().Truncate(time.Second) {
			rate := shown.add(now, done.all())
			fmt.Fprintf(c.stdout, "%5d%10d%10s%10s/s\n", int(now.Seconds()), done.all(), sixDigits(rate), output.Size(uint64(rate*float64(b.size))))
			c.stdout.Flush()
		}
	}
	if err := requests.Wait(); err != nil {
		return requestFailed(c, err)
	}
	if b.kind != "read" {
		if err := image.Flush(); err != nil {
			return bareError(err, "bench failed")
		}
	}
	b.summary(c, done, time.Since(start).Seconds())
	return nil
}

func (b *benchmark) heading(c *call) {
	kind := b.kind
	if kind == "rw" || kind == "readwrite" {
		kind = fmt.Sprintf("readwrite read:write=%d:%d", b.reads, 100-b.reads)
	}
	pattern := map[string]string{"rand": "random", "seq": "sequential", "full-seq": "full sequential"}[b.pattern]
	fmt.Fprintf(c.stdout, "bench  type %s io_size %d io_threads %d bytes %d pattern %s\n", kind, b.size, b.threads, b.total, pattern)
	fmt.Fprintln(c.stdout, "  SEC       OPS   OPS/SEC   BYTES/SEC")
	c.stdout.Flush()
}

func (b *benchmark) summary(c *call, done counts, seconds float64) {
	line := func(what string, n uint64, sec string, bytes string) {
		rate := float64(n) / seconds
		fmt.Fprintf(c.stdout, "%s: %d   %s: %s   %s: %s/s\n", what, n, sec, sixDigits(rate), bytes, output.Size(uint64(rate*float64(b.size))))
	}
	fmt.Fprintf(c.stdout, "elapsed: %d   ", int(seconds))
	line("ops", done.all(), "ops/sec", "bytes/sec")
	if b.kind == "read" || b.kind == "write" {
		return
	}
	line("read_ops", done.reads, "read_ops/sec", "read_bytes/sec")
	line("write_ops", done.writes, "write_ops/sec", "write_bytes/sec")
}

// sixDigits writes a number as C++ streams do: with six digits.
func sixDigits(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// first is where the thread of that number begins. In sequence each goes over a part of its own of the image; in full
// sequence they take turns in going over all of it.
func (b *benchmark) first(thread, size uint64) uint64 {
	if b.pattern == "full-seq" {
		return thread % (size / b.size) * b.size
	}
	return size / b.size / b.threads * thread * b.size
}

// next is where a thread goes on after an offset.
func (b *benchmark) next(offset, thread, size uint64) uint64 {
	switch b.pattern {
	case "seq":
		offset += b.size
	case "full-seq":
		offset += b.size * b.threads
	}
	if offset > size-b.size {
		offset = b.first(thread, size)
	}
	return offset
}

// requestFailed says what went wrong with a request, among the numbers.
func requestFailed(c *call, err error) error {
	what := "read"
	if failed := (*librbd.RequestError)(nil); errors.As(err, &failed) && failed.Write {
		what = "write"
	}
	code := errno.Code(err)
	fmt.Fprintf(c.stdout, "%s error: %s\n", what, errno.Text(code))
	return &errno.Error{Code: code, Err: err}
}

// rates are when how much had been done, for the last few seconds.
type rates struct {
	at  []time.Duration
	ops []uint64
}

func (r *rates) last() time.Duration { return r.at[len(r.at)-1] }

// add gives the rate per second over the time that is remembered.
func (r *rates) add(at time.Duration, ops uint64) float64 {
	const seconds = 5
	r.at, r.ops = append(r.at, at), append(r.ops, ops)
	if old := len(r.at) - seconds - 1; old > 0 {
		r.at, r.ops = r.at[old:], r.ops[old:]
	}
	span := (at - r.at[0]).Seconds()
	return float64(ops-r.ops[0]) / math.Max(span, 1e-9)
}
