package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rados"

	"github.com/opt-rbd/opt-rbd/internal/ceph"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/output"
)

// health is how mirroring does, in rising order of concern.
type health int

const (
	healthOK health = iota
	healthUnknown
	healthWarning
	healthError
)

func (h health) String() string { return [...]string{"OK", "UNKNOWN", "WARNING", "ERROR"}[h] }

// mirrorDaemon is an rbd-mirror that the monitors know of.
type mirrorDaemon struct {
	serviceID, instanceID, clientID, host, version string
	leader                                         bool
	health                                         health
	callouts                                       []string
}

func (d *mirrorDaemon) description() string {
	text := d.clientID
	if text == "" {
		text = d.serviceID
	}
	if d.host != "" {
		text += " on " + d.host
	}
	return text
}

func (d *mirrorDaemon) write(f output.Formatter) {
	f.OpenObject("daemon_service")
	f.String("service_id", d.serviceID)
	f.String("instance_id", d.instanceID)
	f.String("daemon_id", d.clientID)
	f.String("hostname", d.host)
	f.Close()
}

// mirrorDaemons asks the monitors for the daemons and how they do in a pool.
// What cannot be found out is told and left out.
func mirrorDaemons(c *call, pool *rados.IOContext) ([]*mirrorDaemon, health) {
	daemons, err := listMirrorDaemons(c.cluster)
	if err != nil {
		printError(err, c.stderr)
	}
	if err != nil || len(daemons) == 0 {
		return daemons, healthUnknown
	}
	h, err := askMirrorDaemons(c.cluster, pool, daemons)
	if err != nil {
		printError(err, c.stderr)
		return daemons, healthUnknown
	}
	return daemons, h
}

// monJSON asks the monitors and reads their answer into a structure.
func monJSON(cluster *ceph.Cluster, prefix, failed, invalid string, answer any) error {
	conn, err := cluster.Connect()
	if err != nil {
		return err
	}
	command, err := json.Marshal(map[string]string{"prefix": prefix, "format": "json"})
	if err != nil {
		return err
	}
	out, _, err := conn.MonCommand(command)
	if err != nil {
		return errno.Wrap(err, failed)
	}
	if err := json.Unmarshal(out, answer); err != nil {
		return &errno.Error{Code: syscall.EBADMSG, Line: invalid, Err: err}
	}
	return nil
}

func listMirrorDaemons(cluster *ceph.Cluster) ([]*mirrorDaemon, error) {
	var dump struct {
		Services map[string]struct {
			Daemons map[string]json.RawMessage `json:"daemons"`
		} `json:"services"`
	}
	if err := monJSON(cluster, "service dump", "failed to query services", "invalid service dump JSON received", &dump); err != nil {
		return nil, err
	}
	var list []*mirrorDaemon
	for _, id := range slices.Sorted(maps.Keys(dump.Services["rbd-mirror"].Daemons)) {
		var daemon struct {
			Metadata *struct {
				ID      string `json:"id"`
				Version string `json:"ceph_version_short"`
				Host    string `json:"hostname"`
			} `json:"metadata"`
		}
		// Not all that stands there is a daemon.
		if err := json.Unmarshal(dump.Services["rbd-mirror"].Daemons[id], &daemon); err != nil || daemon.Metadata == nil {
			continue
		}
		m := daemon.Metadata
		list = append(list, &mirrorDaemon{serviceID: id, clientID: m.ID, host: m.Host, version: m.Version, health: healthUnknown})
	}
	return list, nil
}

func askMirrorDaemons(cluster *ceph.Cluster, pool *rados.IOContext, daemons []*mirrorDaemon) (health, error) {
	var services map[string]map[string]struct {
		Status *struct {
			JSON *string `json:"json"`
		} `json:"status"`
	}
	if err := monJSON(cluster, "service status", "failed to query service status", "invalid service status JSON received", &services); err != nil {
		return healthUnknown, err
	}
	if services["rbd-mirror"] == nil {
		return healthUnknown, nil
	}
	leader, reporting := false, false
	for _, d := range daemons {
		report, ok := services["rbd-mirror"][d.serviceID]
		if !ok {
			continue
		}
		if report.Status == nil || report.Status.JSON == nil {
			d.health, d.callouts = healthWarning, append(d.callouts, "not reporting status")
			continue
		}
		var pools map[string]struct {
			InstanceID string `json:"instance_id"`
			Leader     bool   `json:"leader"`
			Callouts   map[string]struct {
				Level string `json:"level"`
				Text  string `json:"text"`
			} `json:"callouts"`
		}
		if err := json.Unmarshal([]byte(*report.Status.JSON), &pools); err != nil {
			return healthUnknown, &errno.Error{Code: syscall.EBADMSG, Line: "invalid service status daemon status JSON received", Err: err}
		}
		status, ok := pools[fmt.Sprint(pool.GetPoolID())]
		if !ok {
			d.health, d.callouts = healthWarning, append(d.callouts, "not reporting status for pool")
			continue
		}
		reporting = true
		leader = leader || status.Leader
		d.instanceID, d.leader, d.health = status.InstanceID, status.Leader, healthOK
		for _, key := range slices.Sorted(maps.Keys(status.Callouts)) {
			callout := status.Callouts[key]
			d.health = max(d.health, map[string]health{"error": healthError, "warning": healthWarning}[callout.Level])
			d.callouts = append(d.callouts, callout.Text)
		}
	}
	h := healthOK
	switch {
	case !reporting:
		h = healthError
	case !leader:
		h = healthWarning
	}
	for _, d := range daemons {
		h = max(h, d.health)
	}
	return h, nil
}

// daemonOf is nil where no daemon has that instance.
func daemonOf(daemons []*mirrorDaemon, instance string) *mirrorDaemon {
	for _, d := range daemons {
		if instance != "" && d.instanceID == instance {
			return d
		}
	}
	return nil
}

// printDaemons shows all that there is to say on each daemon.
func printDaemons(daemons []*mirrorDaemon, w io.Writer) {
	fmt.Fprint(w, "\nDAEMONS\n")
	if len(daemons) == 0 {
		fmt.Fprintln(w, "  none")
	}
	for _, d := range daemons {
		fmt.Fprintf(w, "service %s:\n  instance_id: %s\n  client_id: %s\n  hostname: %s\n  version: %s\n  leader: %t\n  health: %s\n",
			d.serviceID, d.instanceID, d.clientID, d.host, d.version, d.leader, d.health)
		if len(d.callouts) > 0 {
			fmt.Fprintf(w, "  callouts: %s\n", strings.Join(d.callouts, ","))
		}
		fmt.Fprintln(w)
	}
}

func writeDaemons(daemons []*mirrorDaemon, f output.Formatter) {
	f.OpenArray("daemons")
	for _, d := range daemons {
		f.OpenObject("daemon")
		f.String("service_id", d.serviceID)
		f.String("instance_id", d.instanceID)
		f.String("client_id", d.clientID)
		f.String("hostname", d.host)
		f.String("ceph_version", d.version)
		f.Bool("leader", d.leader)
		f.String("health", d.health.String())
		if len(d.callouts) > 0 {
			f.OpenArray("callouts")
			for _, text := range d.callouts {
				f.String("callout", text)
			}
			f.Close()
		}
		f.Close()
	}
	f.Close()
}
