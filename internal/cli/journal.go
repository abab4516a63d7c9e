package cli

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/encoding"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/journal"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

const journalExample = "journal specification\n(example: [<pool-name>/[<namespace>/]]<journal-name>)"

var (
	journalSpec          = args.Operand{Name: "journal-spec", Help: journalExample}
	journalNameOption    = args.Option{Name: "journal", Arg: "arg", Help: "journal name"}
	journalSpecOptions   = []args.Option{poolOption, namespaceOption, imageOption, journalNameOption}
	noErrorOption        = args.Option{Name: "no-error", Help: "continue after error"}
	journalFormatOptions = append(journalSpecOptions[:4:4], formatOption, prettyOption)
)

var journalCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"journal", "client", "disconnect"},
			Operands: []args.Operand{journalSpec},
			Options: append(journalSpecOptions[:4:4],
				args.Option{Name: "client-id", Arg: "arg", Help: "client ID (or leave unspecified to disconnect all)"}),
			Short: "Flag image journal client as disconnected.",
		},
		run: journalRun("journal client disconnect", journalDisconnect),
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "export"},
			Operands: []args.Operand{{Name: "source-journal-spec", Help: "source " + journalExample}, exportPath},
			Options: []args.Option{
				sourcePoolOption, sourceNamespaceOption, sourceImageOption,
				{Name: "journal", Arg: "arg", Help: "source journal name"},
				exportPathOption, verboseOption, noErrorOption,
			},
			Short: "Export image journal.",
		},
		run: journalExport,
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "import"},
			Operands: []args.Operand{importPath, {Name: "dest-journal-spec", Help: "destination " + journalExample}},
			Options: []args.Option{
				importPathOption, destPoolOption, destNamespaceOption, destOption,
				{Name: "dest-journal", Arg: "arg", Help: "destination journal name"},
				verboseOption, noErrorOption,
			},
			Short: "Import image journal.",
		},
		run: journalImport,
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "info"},
			Operands: []args.Operand{journalSpec},
			Options:  journalFormatOptions,
			Short:    "Show information about image journal.",
		},
		run: journalRun("journal info", journalInfo),
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "inspect"},
			Operands: []args.Operand{journalSpec},
			Options:  append(journalSpecOptions[:4:4], verboseOption),
			Short:    "Inspect image journal for structural errors.",
		},
		run: journalRun("journal inspect", journalInspect),
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "reset"},
			Operands: []args.Operand{journalSpec},
			Options:  journalSpecOptions,
			Short:    "Reset image journal.",
		},
		run: journalRun("journal reset", journalReset),
	},
	{
		Command: args.Command{
			Path:     []string{"journal", "status"},
			Operands: []args.Operand{journalSpec},
			Options:  journalFormatOptions,
			Short:    "Show status of image journal.",
		},
		run: journalRun("journal status", journalStatus),
	},
}

// imageJournal is the journal of an image: where its header is.
type imageJournal struct {
	id   string
	pool *rados.IOContext
}

func (j imageJournal) header() string { return "journal." + j.id }

// prefix is what the names of the data objects begin with.
func (j imageJournal) prefix() string {
	return fmt.Sprintf("journal_data.%d.%s.", j.pool.GetPoolID(), j.id)
}

// journalRun is a command on a journal that is there. The last line of its
// failures has the name of the command.
func journalRun(name string, do func(*call, imageJournal, output.Formatter) error) func(*call) error {
	return func(c *call) error {
		s, err := c.journal("pool", "namespace", "image", "journal", false)
		if err != nil {
			return err
		}
		f, err := c.formatter()
		if err != nil {
			return err
		}
		pool, err := c.cluster.Pool(s.Pool, s.Namespace)
		if err != nil {
			return err
		}
		return journalError(c, name, do(c, imageJournal{s.Image, pool}, f))
	}
}

// journalError prints the lines of an error's steps and gives the last one.
func journalError(c *call, name string, err error) error {
	if err == nil {
		return nil
	}
	c.stdout.Flush()
	printSteps(err, c.stderr)
	return errno.Wrap(err, name)
}

// journal reads the spec of a journal, whose name is in Image. Where only an
// image is named, its journal has the image's id.
func (c *call) journal(pool, namespace, image, name string, dest bool) (s spec.Spec, err error) {
	s = spec.Spec{Pool: c.String(pool), Namespace: c.String(namespace)}
	join := func(text string, names spec.Names) (string, error) {
		parsed, err := spec.Parse(text, c.names(names))
		switch {
		case err != nil:
			return "", err
		case parsed.Snap != "":
			return "", errno.Errorf(syscall.EINVAL, "snapshot name specified for a command that doesn't use it")
		}
		if parsed.Pool != "" {
			s.Pool = parsed.Pool
		}
		if parsed.Namespace != "" {
			s.Namespace = parsed.Namespace
		}
		return parsed.Image, nil
	}
	journal, ofImage := c.String(name), c.String(image)
	if journal != "" {
		if journal, err = join(journal, spec.New); err != nil {
			return s, err
		}
	}
	if ofImage != "" {
		if ofImage, err = join(ofImage, spec.Any); err != nil {
			return s, err
		}
	}
	if journal == "" {
		if text := c.operand(); text != "" {
			if journal, err = join(text, spec.New); err != nil {
				return s, err
			}
		}
	}
	if journal == "" && ofImage != "" {
		if journal, err = c.journalOf(s, ofImage); err != nil {
			return s, err
		}
	}
	s.Image = journal
	if journal == "" {
		which := ""
		if dest {
			which = "destination "
		}
		return s, errno.Errorf(syscall.EINVAL, "%sjournal was not specified", which)
	}
	return s, nil
}

func (c *call) journalOf(s spec.Spec, name string) (string, error) {
	s.Image = name
	image, err := c.open(s, true)
	if err != nil {
		return "", errors.Join(err, errno.Wrap(err, "failed to open image "+name+" to get journal name"))
	}
	defer image.Close()
	features, err := image.GetFeatures()
	switch {
	case err != nil:
		return "", err
	case features&rbd.FeatureJournaling == 0:
		return "", errno.Errorf(syscall.EINVAL, "journaling is not enabled for image %s", name)
	}
	return image.GetId()
}

// journalMeta are the values of a journal's header.
type journalMeta struct {
	order, splay, minimum, active uint64
	poolID                        int64
	clients                       []journal.Client
}

func (j imageJournal) meta() (m journalMeta, err error) {
	values, err := j.pool.GetAllOmapValues(j.header(), "", "", 64)
	if err != nil {
		return m, err
	}
	if len(values) == 0 {
		return m, syscall.ENOENT
	}
	poolID := uint64(0)
	for key, value := range map[string]*uint64{
		"order": &m.order, "splay_width": &m.splay, "minimum_set": &m.minimum, "active_set": &m.active, "pool_id": &poolID,
	} {
		n, err := journal.Uint(values[key])
		if err != nil {
			return m, fmt.Errorf("%s of journal %s: %w", key, j.id, err)
		}
		*value = n
	}
	m.poolID = int64(poolID)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if strings.HasPrefix(key, "client_") {
			client, err := journal.ReadClient(values[key])
			if err != nil {
				return m, err
			}
			m.clients = append(m.clients, client)
		}
	}
	return m, nil
}

func journalInfo(c *call, j imageJournal, f output.Formatter) error {
	m, err := j.meta()
	if err != nil {
		return bareError(err, "failed to get journal metadata")
	}
	pool := ""
	if m.poolID >= 0 {
		conn, err := c.cluster.Connect()
		if err == nil {
			pool, err = conn.GetPoolByID(m.poolID)
		}
		if err != nil {
			fmt.Fprintf(c.stderr, "error looking up pool name for pool_id=%d: %s\n", m.poolID, errno.Text(errno.Code(err)))
		}
	}
	if f == nil {
		fmt.Fprintf(c.stdout, "rbd journal '%s':\n\theader_oid: %s\n\tobject_oid_prefix: %s\n\torder: %d (%s objects)\n\tsplay_width: %d\n",
			j.id, j.header(), j.prefix(), m.order, output.Size(1<<m.order), m.splay)
		if pool != "" {
			fmt.Fprintf(c.stdout, "\tobject_pool: %s\n", pool)
		}
		return nil
	}
	f.OpenObject("journal")
	f.String("journal_id", j.id)
	f.String("header_oid", j.header())
	f.String("object_oid_prefix", j.prefix())
	f.Uint("order", m.order)
	f.Uint("splay_width", m.splay)
	if pool != "" {
		f.String("object_pool", pool)
	}
	f.Close()
	return f.Flush(c.stdout)
}

func journalStatus(c *call, j imageJournal, f output.Formatter) error {
	m, err := j.meta()
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Bare: true, Line: "warning: failed to get journal metadata", Err: err}
	}
	if f == nil {
		fmt.Fprintf(c.stdout, "minimum_set: %d\nactive_set: %d\nregistered clients: \n", m.minimum, m.active)
		for _, client := range m.clients {
			var positions []string
			for _, p := range client.Positions {
				positions = append(positions, p.String())
			}
			fmt.Fprintf(c.stdout, "\t[id=%s, commit_position=[positions=[%s]], state=%s]\n",
				client.ID, strings.Join(positions, ", "), client.StateName())
		}
		return nil
	}
	f.OpenObject("status")
	f.Uint("minimum_set", m.minimum)
	f.Uint("active_set", m.active)
	f.OpenArray("registered_clients")
	for _, client := range m.clients {
		f.OpenObject("client")
		f.String("id", client.ID)
		f.String("data", hexdump(client.Data))
		f.OpenObject("commit_position")
		f.OpenArray("object_positions")
		for _, p := range client.Positions {
			f.OpenObject("object_position")
			f.Uint("object_number", p.Object)
			f.Uint("tag_tid", p.Tag)
			f.Uint("entry_tid", p.Entry)
			f.Close()
		}
		f.Close()
		f.Close()
		f.String("state", client.StateName())
		f.Close()
	}
	f.Close()
	f.Close()
	return f.Flush(c.stdout)
}

// hexdump shows bytes as hexdump -C does, with a last line that is their number.
func hexdump(data []byte) string {
	if len(data) == 0 {
		return ""
	}
	return hex.Dump(data) + fmt.Sprintf("%08x\n", len(data))
}

func journalReset(c *call, j imageJournal, _ output.Formatter) (err error) {
	key := "id_" + j.id
	values, err := j.pool.GetOmapValues("rbd_directory", "", key, 1)
	if err == nil && values[key] == nil {
		err = syscall.ENOENT
	}
	if err != nil {
		return bareError(err, "failed to locate journal's image")
	}
	value := values[key]
	if len(value) < 4 || uint64(binary.LittleEndian.Uint32(value)) > uint64(len(value)-4) {
		return bareError(syscall.EBADMSG, "failed to locate journal's image")
	}
	name := string(value[4 : 4+binary.LittleEndian.Uint32(value)])
	image, err := rbd.OpenImage(j.pool, name, rbd.NoSnapshot)
	if err != nil {
		return errors.Join(errno.Wrap(err, "error opening image "+name), bareError(err, "failed to open image"))
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	// That is what makes the journal anew, with all that mirroring asks for.
	if err := image.UpdateFeatures(rbd.FeatureJournaling, false); err != nil {
		return bareError(err, "failed to disable image journaling")
	}
	return bareError(image.UpdateFeatures(rbd.FeatureJournaling, true), "failed to re-enable image journaling")
}

func journalDisconnect(c *call, j imageJournal, _ output.Formatter) error {
	m, err := j.meta()
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Bare: true, Line: "warning: failed to get journal metadata", Err: err}
	}
	wanted := c.String("client-id")
	found := false
	for _, client := range m.clients {
		// The image itself stays.
		if client.ID == "" || wanted != "" && client.ID != wanted {
			continue
		}
		in := binary.LittleEndian.AppendUint32(nil, uint32(len(client.ID)))
		in = append(append(in, client.ID...), journal.Disconnected)
		if err := j.exec(j.pool, j.header(), "client_update_state", in); err != nil {
			return bareError(err, "warning: failed to disconnect client "+client.ID)
		}
		fmt.Fprintf(c.stdout, "client %s disconnected\n", client.ID)
		found = true
	}
	if !found {
		line := "no registered clients to disconnect"
		if wanted != "" {
			line = "warning: client " + wanted + " is not registered"
		}
		return &errno.Error{Code: syscall.ENOENT, Bare: true, Line: line}
	}
	_, _, err = j.pool.NotifyWithTimeout(j.header(), nil, 5*time.Second)
	return bareError(err, "warning: failed to notify state change:")
}

// exec runs a method of the OSDs' class for journals that writes.
func (j imageJournal) exec(pool *rados.IOContext, object, method string, in []byte) error {
	op := rados.CreateWriteOp()
	defer op.Release()
	op.Exec("journal", method, in)
	return op.Operate(pool, object, rados.OperationNoFlag)
}

// dataPool is where the entries are.
func (j imageJournal) dataPool(c *call, m journalMeta) (*rados.IOContext, error) {
	if m.poolID < 0 {
		return j.pool, nil
	}
	conn, err := c.cluster.Connect()
	if err != nil {
		return nil, err
	}
	name, err := conn.GetPoolByID(m.poolID)
	if err != nil {
		return nil, err
	}
	pool, err := conn.OpenIOContext(name)
	if err != nil {
		return nil, err
	}
	namespace, err := j.pool.GetNamespace()
	pool.SetNamespace(namespace)
	return pool, err
}

// lane is every splay-width'th object of a journal: entries in their order.
type lane struct {
	object  uint64 // the next one to read
	data    []byte
	head    *journal.Entry
	damaged error
}

// entries gives the entries that a client would read that registers now, in
// their order, to do. An entry that cannot be read ends it.
func (j imageJournal) entries(c *call, do func(number int, e journal.Entry) error) error {
	m, err := j.meta()
	if err != nil {
		return err
	}
	pool, err := j.dataPool(c, m)
	if err != nil {
		return err
	}
	lanes := make([]*lane, m.splay)
	for i := range lanes {
		lanes[i] = &lane{object: m.minimum*m.splay + uint64(i)}
	}
	from, some := journal.First(m.clients)
	for number := 0; ; {
		var next *lane
		for _, l := range lanes {
			if err := j.fill(pool, l, m); err != nil {
				return err
			}
			if l.head != nil && (next == nil || earlier(*l.head, *next.head)) {
				next = l
			}
		}
		if next == nil {
			break
		}
		e := *next.head
		next.head = nil
		if some && !earlier(journal.Entry{Tag: from.Tag, ID: from.Entry}, e) {
			continue
		}
		number++
		if err := do(number, e); err != nil {
			return err
		}
	}
	for _, l := range lanes {
		if l.damaged != nil {
			return &errno.Error{Code: syscall.EBADMSG, Line: "failed to process journal: " + l.damaged.Error(), Err: l.damaged}
		}
	}
	return nil
}

func earlier(a, b journal.Entry) bool { return a.Tag < b.Tag || a.Tag == b.Tag && a.ID < b.ID }

// fill reads on in a lane until it has an entry or is at its end.
func (j imageJournal) fill(pool *rados.IOContext, l *lane, m journalMeta) error {
	for l.head == nil && l.damaged == nil {
		if len(l.data) > 0 {
			e, rest, err := journal.ReadEntry(l.data)
			if err != nil {
				l.damaged = err
				return nil
			}
			l.head, l.data = &e, rest
			return nil
		}
		if l.object >= (m.active+1)*m.splay {
			return nil
		}
		data, err := readObject(pool, j.prefix()+strconv.FormatUint(l.object, 10))
		if err != nil && errno.Code(err) != syscall.ENOENT {
			return err
		}
		l.data = data
		l.object += m.splay
	}
	return nil
}

func readObject(pool *rados.IOContext, name string) ([]byte, error) {
	stat, err := pool.Stat(name)
	if err != nil {
		return nil, err
	}
	data := make([]byte, stat.Size)
	for at := 0; at < len(data); {
		n, err := pool.Read(name, data[at:], uint64(at))
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return data[:at], nil
		}
		at += n
	}
	return data, nil
}

// inspectEntry reads the event of an entry, and with --verbose shows it.
func (c *call) inspectEntry(data []byte) (journal.Event, error) {
	event, err := journal.ReadEvent(data)
	if err != nil {
		why := err.Error()
		if errors.Is(err, encoding.ErrEnd) {
			why = "End of buffer"
			if librbd.Release >= 18 {
				why += " [buffer:2]"
			}
		}
		fmt.Fprintln(c.stderr, "failed to decode event entry: "+why)
		return event, err
	}
	if !c.Bool("verbose") {
		return event, nil
	}
	f, err := output.New("json", true)
	if err != nil {
		return event, err
	}
	f.OpenObject("event_entry")
	f.String("event_type", event.Name)
	for _, field := range event.Fields {
		switch value := field.Value.(type) {
		case uint64:
			f.Uint(field.Name, value)
		case int64:
			f.Int(field.Name, value)
		case bool:
			f.Bool(field.Name, value)
		case string:
			f.String(field.Name, value)
		}
	}
	f.String("timestamp", event.Time.Format("2006-01-02T15:04:05.000000-0700"))
	f.Close()
	return event, f.Flush(c.stdout)
}

// notThere are the lines on a journal that cannot be read at all. The genuine
// tool registers itself as a client first, which reading does not need.
func notThere(err error) error {
	return errors.Join(bareError(err, "failed to register client"), errno.Wrap(err, "failed to unregister journal client"))
}

func journalInspect(c *call, j imageJournal, _ output.Formatter) error {
	if _, err := j.meta(); err != nil {
		fmt.Fprintln(c.stdout, "Summary:\n  0 entries inspected, 0 errors")
		return notThere(err)
	}
	total, failures := 0, 0
	var bad error
	err := j.entries(c, func(number int, e journal.Entry) error {
		total++
		if c.Bool("verbose") {
			fmt.Fprintf(c.stdout, "Entry: tag_id=%d, commit_tid=%d\n", e.Tag, number)
		}
		if _, err := c.inspectEntry(e.Data); err != nil {
			failures++
			bad = &errno.Error{Code: syscall.EINVAL, Err: err}
		}
		return nil
	})
	fmt.Fprintf(c.stdout, "Summary:\n  %d entries inspected, %d errors\n", total, failures)
	if err != nil {
		return err
	}
	return silentStep(bad)
}

// silentStep keeps only the number of an error.
func silentStep(err error) error {
	if err == nil {
		return nil
	}
	return errno.Code(err)
}

// exportedEntry is an entry in a file.
type exportedEntry struct {
	Tag    uint64 `json:"tag_id"`
	Commit uint64 `json:"commit_tid"`
	Type   int64  `json:"type"`
	Entry  string `json:"entry"`
}

func journalExport(c *call) error {
	s, err := c.journal("pool", "namespace", "image", "journal", false)
	if err != nil {
		return err
	}
	path, err := c.path()
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	return journalError(c, "journal export", exportJournal(c, imageJournal{s.Image, pool}, path))
}

func exportJournal(c *call, j imageJournal, path string) error {
	f, err := c.create(path)
	if err != nil {
		return &errno.Error{Code: errno.Code(err), Line: "error creating " + path, Err: err}
	}
	if f != os.Stdout {
		defer f.Close()
	}
	fail := func(err error) error { return errno.Wrap(err, "failed to write to export file") }
	if _, err := fmt.Fprintf(f, "# journal_id: %s\n", j.id); err != nil {
		return fail(err)
	}
	if _, err := j.meta(); err != nil {
		fmt.Fprintln(c.stdout, "0 entries processed, 0 errors")
		return notThere(err)
	}
	total, failures := 0, 0
	var bad error
	err = j.entries(c, func(number int, e journal.Entry) error {
		total++
		event, err := c.inspectEntry(e.Data)
		c.stdout.Flush()
		if err != nil {
			failures++
			bad = syscall.EINVAL
			if !c.Bool("no-error") {
				return bad
			}
			return nil
		}
		text, err := json.Marshal(exportedEntry{e.Tag, uint64(number), int64(event.Type), base64.StdEncoding.EncodeToString(e.Data)})
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(f, "%d %s\n", len(text), text); err != nil {
			failures++
			return fail(err)
		}
		return nil
	})
	fmt.Fprintf(c.stdout, "%d entries processed, %d errors\n", total, failures)
	if err != nil {
		return err
	}
	return bad
}

func journalImport(c *call) error {
	path, err := c.path()
	if err != nil {
		return err
	}
	s, err := c.journal("dest-pool", "dest-namespace", "dest", "dest-journal", true)
	if err != nil {
		return err
	}
	pool, err := c.cluster.Pool(s.Pool, s.Namespace)
	if err != nil {
		return err
	}
	f := os.Stdin
	if path != "-" {
		if f, err = c.openFile(path); err != nil {
			return errno.Wrap(err, "journal import")
		}
		defer f.Close()
	}
	return journalError(c, "journal import", importJournal(c, imageJournal{s.Image, pool}, f))
}

func importJournal(c *call, j imageJournal, r io.Reader) error {
	m, err := j.meta()
	if err != nil {
		return notThere(err)
	}
	pool, err := j.dataPool(c, m)
	if err != nil {
		return err
	}
	in := bufio.NewReader(r)
	next := make(map[uint64]uint64) // entry ids by tag
	total, failures := 0, 0
	var kept error
	for {
		text, err := readExported(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			printSteps(err, c.stderr)
			kept = err
			break
		}
		total++
		failures++
		e, err := c.readExportedEntry(text, total)
		if err != nil {
			printSteps(err, c.stderr)
			kept = err
			if c.Bool("no-error") {
				continue
			}
			break
		}
		entry := journal.Entry{Tag: e.Tag, ID: next[e.Tag], Data: e.data}
		next[e.Tag]++
		if err := j.append(pool, &m, entry); err != nil {
			return errors.Join(stepOf(err), bareError(err, "failed to append journal"))
		}
		failures--
	}
	fmt.Fprintf(c.stdout, "%d entries processed, %d errors\nWaiting for journal append to complete...\n", total, failures)
	return silentStep(kept)
}

// append writes an entry behind the others of its object, and begins the next
// set of objects where that is full.
func (j imageJournal) append(pool *rados.IOContext, m *journalMeta, e journal.Entry) error {
	data := e.Encode()
	if uint64(len(data)) > 1<<m.order {
		return errno.Errorf(syscall.EINVAL, "an entry of %d bytes does not fit into the objects of this journal, which have %d", len(data), 1<<m.order)
	}
	for {
		in := binary.LittleEndian.AppendUint64(nil, 1<<m.order)
		in = binary.LittleEndian.AppendUint32(in, uint32(len(data)))
		object := m.active*m.splay + e.ID%m.splay
		err := j.exec(pool, j.prefix()+strconv.FormatUint(object, 10), "append", append(in, data...))
		if err == nil || errno.Code(err) != syscall.EOVERFLOW {
			return err
		}
		m.active++
		if err := j.exec(j.pool, j.header(), "set_active_set", binary.LittleEndian.AppendUint64(nil, m.active)); err != nil {
			return err
		}
	}
}

// readExported reads the text of the next entry: "NNN TEXT", where NNN is how
// long it is. Lines that begin with "#" are comments.
func readExported(r *bufio.Reader) ([]byte, error) {
	invalid := func(line string) error { return errno.Errorf(syscall.EINVAL, "%s", line) }
	var char byte
	for {
		var err error
		if char, err = r.ReadByte(); err != nil {
			return nil, err
		}
		if char == '#' {
			if _, err := r.ReadString('\n'); err != nil {
				return nil, err
			}
		} else if char != '\n' {
			break
		}
	}
	if char < '0' || char > '9' {
		return nil, invalid("import data invalid format (digit expected)")
	}
	const longest = 80
	size := 0
	for n := 0; char >= '0' && char <= '9' && n < longest; n++ {
		size = min(10*size+int(char-'0'), math.MaxInt32)
		var err error
		if char, err = r.ReadByte(); err != nil {
			return nil, invalid("error reading import data")
		}
	}
	switch {
	case char != ' ':
		return nil, invalid("import data invalid format (space expected)")
	case size == 0:
		return nil, invalid("import data invalid format (zero entry size)")
	}
	var text strings.Builder
	if _, err := io.CopyN(&text, r, int64(size)); err != nil {
		return nil, invalid("error reading from stdin: truncated")
	}
	return []byte(text.String()), nil
}

// importedEntry is an entry of a file that was found to be one.
type importedEntry struct {
	exportedEntry
	data []byte
}

func (c *call) readExportedEntry(text []byte, number int) (e importedEntry, err error) {
	fail := func(format string, a ...any) error { return errno.Errorf(syscall.EINVAL, format, a...) }
	if !json.Valid(text) {
		return e, fail("error parsing input (entry %d)", number)
	}
	if err := json.Unmarshal(text, &e.exportedEntry); err != nil {
		return e, fail("error json decoding import data (entry %d):%v", number, err)
	}
	if e.data, err = base64.StdEncoding.DecodeString(e.Entry); err == nil {
		_, err = c.inspectEntry(e.data)
	}
	if err != nil {
		return e, fail("corrupted entry %d: tag_tid=%d, commit_tid=%d", number, e.Tag, e.Commit)
	}
	return e, nil
}
