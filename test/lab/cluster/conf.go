package cluster

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// clientConf is all that a client reads.
const clientConf = `[global]
fsid = %[1]s
mon_host = [v2:%[2]s:3300,v1:%[2]s:6789]
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
# each user's key in a file of its own
keyring = %[3]s/ceph.$name.keyring
[client]
log_file =
admin_socket =
`

// daemonConf follows clientConf in the daemons' file. docs/lab.md tells the settings without which the start takes
// seconds.
const daemonConf = `[global]
log_to_stderr = true
err_to_stderr = true
log_file =
mon_cluster_log_file =
mon_cluster_log_to_file = false
run_dir = %[1]s/run
admin_socket = %[1]s/run/$name.asok
pid_file =
crash_dir = %[1]s/run
mon_data = %[1]s/mon.$id
osd_data = %[1]s/osd.$id
mgr_data = %[1]s/mgr.$id
ms_bind_ipv6 = false

# Changes of the maps are agreed on after a pause that gathers more of them: 1 s by default, for each of the many
# that a start needs.
paxos_propose_interval = 0.01
paxos_min_wait = 0.005
# A monitor that does not answer is tried again after 3 s by default.
mon_client_hunt_interval = 0.2
mon_client_hunt_interval_backoff = 1.0

# How many copies, and that they are spread over hosts where there are several (1) or else over OSDs (0).
osd_pool_default_size = %[2]d
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = %[3]d
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_allow_pool_delete = true
osd_pool_default_pg_autoscale_mode = off
mon_max_pg_per_osd = 1000
# The initial map has every OSD in its place: no command at boot that moves it there.
osd_crush_update_on_start = false
osd_class_update_on_start = false
mon_osd_prime_pg_temp = false
auth_allow_insecure_global_id_reclaim = false

# A full disk of the machine is no reason for the monitor to stop.
mon_data_avail_warn = 1
mon_data_avail_crit = 0
mon_rocksdb_options = write_buffer_size=4194304,compression=kNoCompression

osd_objectstore = %[4]s
osd_memory_target = 1073741824
osd_memory_cache_min = 134217728
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
# no scrub during a test
osd_scrub_load_threshold = 0
# Ceph 17 and later measure the disk at the first start, for seconds.
osd_mclock_skip_benchmark = true
# The stores' folder may be on a file system with short names.
osd_max_object_name_len = 460
osd_max_object_namespace_len = 64

memstore_device_bytes = 8589934592
memstore_page_set = false

# One sparse file, and no separate ones for the database and its log.
bluestore_block_create = true
bluestore_block_size = 10737418240
bluestore_block_wal_create = false
bluestore_block_db_create = false
bluestore_fsck_on_mkfs = false
bluestore_fsck_on_mount = false
bluestore_rocksdb_cf = false
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
# Each close of the file waits for the end of a poll: 250 ms by default, and mkfs and start close it many times.
bdev_aio_poll_ms = 5
`

// writeConfiguration writes ceph.conf, the daemons' own, and every key: the monitor's mkfs reads them all from one
// keyring, so that no key needs a command later.
func (c *Cluster) writeConfiguration() error {
	client := fmt.Sprintf(clientConf, c.fsid, c.Addr(), c.dir)
	if err := c.writeFile("ceph.conf", client, 0o644); err != nil {
		return err
	}
	spread := 0
	if c.options.Hosts > 1 {
		spread = 1
	}
	var daemons strings.Builder
	daemons.WriteString(client)
	fmt.Fprintf(&daemons, daemonConf, c.dir, c.options.copies(), spread, c.options.Store)
	if c.options.Mgr {
		modules, err := unusedModules(c.options.Root)
		if err != nil {
			return err
		}
		fmt.Fprintln(&daemons, "mgr_disabled_modules =", strings.Join(modules, " "))
	}
	// Of a setting that is given twice the last one counts.
	for _, line := range c.options.Config {
		fmt.Fprintln(&daemons, line)
	}
	// osdmaptool makes the initial map from these.
	for n := range c.options.OSDs {
		fmt.Fprintf(&daemons, "[osd.%d]\nhost = host%d\n", n, n%c.options.Hosts)
	}
	if err := c.writeFile("daemon.conf", daemons.String(), 0o644); err != nil {
		return err
	}

	admin := keyring("client.admin", "mon", "allow *", "osd", "allow *", "mgr", "allow *", "mds", "allow *")
	if err := c.writeFile("ceph.client.admin.keyring", admin, 0o600); err != nil {
		return err
	}
	all := keyring("mon.", "mon", "allow *") + admin
	if err := c.addDaemonKey("mgr.x", &all, "mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"); err != nil {
		return err
	}
	for n := range c.options.OSDs {
		err := c.addDaemonKey(fmt.Sprintf("osd.%d", n), &all, "mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
		if err != nil {
			return err
		}
	}
	return c.writeFile("mon.keyring", all, 0o600)
}

// unusedModules lists the mgr's modules that have nothing to do with rbd. To load them all takes the mgr many times as
// long as everything else.
func unusedModules(root string) (names []string, err error) {
	entries, err := os.ReadDir(filepath.Join(root, "/usr/share/ceph/mgr"))
	for _, e := range entries {
		if e.IsDir() && e.Name() != "rbd_support" {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (c *Cluster) addDaemonKey(name string, all *string, caps ...string) error {
	own := keyring(name, caps...)
	*all += own
	if err := os.Mkdir(filepath.Join(c.dir, name), 0o755); err != nil {
		return err
	}
	return c.writeFile(name+"/keyring", own, 0o600)
}

func (c *Cluster) writeFile(name, text string, mode os.FileMode) error {
	return os.WriteFile(filepath.Join(c.dir, name), []byte(text), mode)
}

// keyring returns a keyring with a new key for one user and the user's capabilities, in pairs.
func keyring(user string, caps ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s]\n\tkey = %s\n", user, newSecret())
	for i := 0; i+1 < len(caps); i += 2 {
		fmt.Fprintf(&b, "\tcaps %s = \"%s\"\n", caps[i], caps[i+1])
	}
	return b.String()
}

// newSecret makes a cephx key of the type that every release and the kernel can use: base64 of the little-endian type
// (1: AES), the time it was made (seconds, nanoseconds), the length, and 16 random bytes.
func newSecret() string {
	var b bytes.Buffer
	random := make([]byte, 16)
	rand.Read(random) // it cannot fail
	for _, part := range []any{uint16(1), uint32(time.Now().Unix()), uint32(0), uint16(len(random)), random} {
		binary.Write(&b, binary.LittleEndian, part) //nolint:errcheck // nor can a buffer
	}
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b) // it cannot fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Keyring is the path of the file with the key of a user, "client.admin" or one that AddUser made.
func (c *Cluster) Keyring(user string) string {
	return filepath.Join(c.dir, "ceph."+user+".keyring")
}

// Secret returns the key of a user in base64, as the options key= and secret= want it.
func (c *Cluster) Secret(user string) (string, error) {
	text, err := os.ReadFile(c.Keyring(user))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == "key" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("%s holds no key", c.Keyring(user))
}

// AddUser makes a user, for example "client.kube", with capabilities in pairs ("mon", "profile rbd"), and returns the
// path of its keyring, where clients with --id kube find it by themselves.
func (c *Cluster) AddUser(user string, caps ...string) (string, error) {
	text, err := c.monCommand(map[string]any{"prefix": "auth get-or-create", "entity": user, "caps": caps})
	if err != nil {
		return "", err
	}
	return c.Keyring(user), os.WriteFile(c.Keyring(user), text, 0o600)
}
