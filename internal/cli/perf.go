package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

// perfPeriod is how often the manager has new numbers.
const perfPeriod = 5 * time.Second

var perfCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"perf", "image", "iostat"},
			Operands: []args.Operand{poolSpec},
			Options: []args.Option{
				poolOption, namespaceOption,
				{Name: "iterations", Arg: "arg", Help: "iterations of metric collection [> 0]", Check: inRange(unsigned32, 1, math.MaxUint32)},
				{
					Name: "sort-by", Arg: "arg (=write_ops)",
					Help:  "sort-by IO metric (write-ops, read-ops,\nwrite-bytes, read-bytes, write-latency,\nread-latency) [default: write-ops]",
					Check: oneOf("write-ops", "read-ops", "write-bytes", "read-bytes", "write-latency", "read-latency"),
				},
				formatOption, prettyOption,
			},
			Short: "Display image IO statistics.",
		},
		run: iostat,
	},
	{
		Command: args.Command{
			Path:     []string{"perf", "image", "iotop"},
			Operands: []args.Operand{poolSpec},
			Options:  poolOptions,
			Short:    "Display a top-like IO monitor.",
		},
		run: iotop,
	},
}

// imageStats are what happens to an image in a second. Latencies are in nanoseconds.
type imageStats struct {
	pool, namespace, image string
	values                 []float64 // in the order of perfMetrics
}

// name is what a person calls the image who has asked for a pool or a namespace.
func (i imageStats) name(asked string) string {
	pool, namespace, ok := strings.Cut(asked, "/")
	switch {
	case ok && i.namespace == namespace:
		return i.image
	case pool == "":
		return spec.Spec{Pool: i.pool, Namespace: i.namespace, Image: i.image}.String()
	case i.namespace == "":
		return i.image
	}
	return i.namespace + "/" + i.image
}

// texts are the values for a person.
func (i imageStats) texts() []string {
	v := i.values
	return []string{
		output.Count(uint64(v[0])) + "/s", output.Count(uint64(v[1])) + "/s",
		output.Size(uint64(v[2])) + "/s", output.Size(uint64(v[3])) + "/s",
		latency(v[4]), latency(v[5]),
	}
}

// latency writes nanoseconds with the largest unit that leaves something before the point.
func latency(nanoseconds float64) string {
	units := []string{"ns", "us", "ms", "s"}
	i := 0
	for nanoseconds >= 1000 && i < len(units)-1 {
		nanoseconds /= 1000
		i++
	}
	return fmt.Sprintf("%.2f %s", nanoseconds, units[i])
}

// perfMetrics are the names of what the manager counts.
var perfMetrics = []string{"write_ops", "read_ops", "write_bytes", "read_bytes", "write_latency", "read_latency"}

// perfPool is which images are asked for: "" for all, "POOL", "POOL/NAMESPACE". The manager looks whether it is there.
func (c *call) perfPool() (string, error) {
	s, err := c.pool(spec.Any)
	if err != nil || s.Namespace == "" {
		return s.Pool, err
	}
	return s.Pool + "/" + s.Namespace, nil
}

// perfStats asks the manager. It has nothing to say at first, and of images that nothing happens to.
func (c *call) perfStats(pool, sortBy string) ([]imageStats, error) {
	out, err := c.mgrCommand("mgr command", "rbd perf image stats", map[string]string{
		"pool_spec": pool, "sort_by": sortBy, "format": "json",
	})
	if err != nil {
		return nil, err
	}
	var report struct {
		Pools map[string]string      `json:"pool_descriptors"`
		Names []string               `json:"stat_descriptors"`
		Stats []map[string][]float64 `json:"stats"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return nil, errno.Errorf(syscall.EINVAL, "error parsing mgr response: %v", err)
	}
	var all []imageStats
	for _, entry := range report.Stats {
		for key, values := range entry {
			pool, rest, _ := strings.Cut(key, "/")
			namespace, image, ok := strings.Cut(rest, "/")
			if !ok {
				namespace, image = "", rest
			}
			i := imageStats{pool: report.Pools[pool], namespace: namespace, image: image, values: make([]float64, len(perfMetrics))}
			for k, name := range report.Names {
				for j, metric := range perfMetrics {
					if name == metric && k < len(values) {
						i.values[j] = values[k]
					}
				}
			}
			all = append(all, i)
		}
	}
	return all, nil
}

func iostat(c *call) error {
	f, err := c.formatter()
	if err != nil {
		return err
	}
	iterations := c.number("iterations", unsigned32)
	if f != nil {
		if iterations > 1 {
			return errno.Errorf(syscall.EINVAL, "specifing iterations is not valid with formatted output") //nolint:misspell // as the genuine tool spells it
		}
		iterations = 1
	}
	pool, err := c.perfPool()
	if err != nil {
		return err
	}
	sortBy := strings.ReplaceAll(cmp.Or(c.String("sort-by"), perfMetrics[0]), "-", "_")
	stats, err := c.perfStats(pool, sortBy)
	if err == nil && len(stats) == 0 {
		fmt.Fprint(c.stderr, "rbd: waiting for initial image stats\n\n")
	}
	for err == nil && len(stats) == 0 {
		time.Sleep(time.Second)
		stats, err = c.perfStats(pool, sortBy)
	}
	for done := uint64(1); err == nil; done++ {
		if err := printStats(c, f, pool, stats); err != nil {
			return err
		}
		c.stdout.Flush()
		if done == iterations {
			return nil
		}
		time.Sleep(perfPeriod)
		stats, err = c.perfStats(pool, sortBy)
	}
	return err
}

func printStats(c *call, f output.Formatter, asked string, stats []imageStats) error {
	if f != nil {
		f.OpenArray("images")
		for _, i := range stats {
			f.OpenObject("image")
			f.String("pool", i.pool)
			f.String("pool_namespace", i.namespace)
			f.String("image", i.image)
			for k, name := range perfMetrics {
				f.Float(name, i.values[k])
			}
			f.Close()
		}
		f.Close()
		return f.Flush(c.stdout)
	}
	columns := []output.Column{{Heading: "NAME"}}
	for _, heading := range []string{"WR", "RD", "WR_BYTES", "RD_BYTES", "WR_LAT", "RD_LAT"} {
		columns = append(columns, output.Column{Heading: heading + " ", Head: output.Right, Cells: output.Right})
	}
	table := output.NewTable(columns...)
	for _, i := range stats {
		cells := []string{i.name(asked)}
		for _, text := range i.texts() {
			cells = append(cells, text+" ") // the genuine tool has it so, at the end of the line too
		}
		table.Row(cells...)
	}
	if err := table.Flush(c.stdout); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.stdout)
	return err
}
