package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/errno"
	"github.com/opt-rbd/opt-rbd/internal/librbd"
	"github.com/opt-rbd/opt-rbd/internal/output"
	"github.com/opt-rbd/opt-rbd/internal/spec"
)

var mirrorImageCommands = []*command{
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "demote"},
			Operands: []args.Operand{imageSpec},
			Options:  imageOptions,
			Short:    "Demote an image to non-primary for RBD mirroring.",
		},
		run: func(c *call) error {
			return withMirrored(c, "error demoting image to non-primary", "Image demoted to non-primary", (*rbd.Image).MirrorDemote)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "disable"},
			Operands: []args.Operand{imageSpec},
			Options:  append([]args.Option{{Name: "force", Help: "disable even if not primary"}}, imageOptions...),
			Short:    "Disable RBD mirroring for an image.",
		},
		run: func(c *call) error {
			return switchMirroring(c, "Mirroring disabled", func(image *rbd.Image) error { return image.MirrorDisable(c.Bool("force")) })
		},
	},
	{
		Command: args.Command{
			Path: []string{"mirror", "image", "enable"},
			Operands: []args.Operand{
				imageSpec,
				{Name: "mode", Help: "mirror image mode (journal or snapshot) [default: journal]", Optional: true},
			},
			Options: imageOptions,
			Short:   "Enable RBD mirroring for an image.",
		},
		run: func(c *call) error {
			return switchMirroring(c, "Mirroring enabled", func(image *rbd.Image) error {
				mode := rbd.ImageMirrorModeJournal
				switch name := c.operand(); name {
				case "", "journal":
				case "snapshot":
					mode = rbd.ImageMirrorModeSnapshot
				default:
					return errno.Errorf(syscall.EINVAL, "invalid mode name: %s", name)
				}
				return image.MirrorEnable(mode)
			})
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "promote"},
			Operands: []args.Operand{imageSpec},
			Options:  append([]args.Option{promoteOption}, imageOptions...),
			Short:    "Promote an image to primary for RBD mirroring.",
		},
		run: func(c *call) error {
			return withMirrored(c, "error promoting image to primary", "Image promoted to primary",
				func(image *rbd.Image) error { return image.MirrorPromote(c.Bool("force")) })
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "resync"},
			Operands: []args.Operand{imageSpec},
			Options:  imageOptions,
			Short:    "Force resync to primary image for RBD mirroring.",
		},
		run: func(c *call) error {
			return withMirrored(c, "error flagging image resync", "Flagged image for resync from primary", (*rbd.Image).MirrorResync)
		},
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "snapshot"},
			Operands: []args.Operand{imageSpec},
			Options:  append(imageOptions[:3:3], quiesceOptions...),
			Short:    "Create RBD mirroring image snapshot.",
		},
		run: mirrorImageSnapshot,
	},
	{
		Command: args.Command{
			Path:     []string{"mirror", "image", "status"},
			Operands: []args.Operand{imageSpec},
			Options:  append(imageOptions[:3:3], formatOption, prettyOption),
			Short:    "Show RBD mirroring status for an image.",
		},
		run: mirrorImageStatus,
	},
}

// switchMirroring turns mirroring of an image on or off. librbd's log says why
// it does not work.
func switchMirroring(c *call, done string, do func(*rbd.Image) error) error {
	return c.withImage(func(image *rbd.Image) error {
		if err := do(image); err != nil {
			if own := stepOf(err); own != nil {
				return own
			}
			return silent(err)
		}
		fmt.Fprintln(c.stdout, done)
		return nil
	})
}

// withMirrored does something with an image that is mirrored.
func withMirrored(c *call, failed, done string, do func(*rbd.Image) error) error {
	return c.withImage(func(image *rbd.Image) error {
		if err := checkImageMirrored(image); err != nil {
			return err
		}
		if err := do(image); err != nil {
			return &errno.Error{Code: errno.Code(err), Line: failed, Err: err}
		}
		fmt.Fprintln(c.stdout, done)
		return nil
	})
}

func checkImageMirrored(image *rbd.Image) error {
	info, err := image.GetMirrorImageInfo()
	switch {
	case err != nil:
		return errno.Wrap(err, "failed to retrieve mirror info")
	case info.State != rbd.MirrorImageEnabled:
		return errno.Errorf(syscall.EINVAL, "mirroring not enabled on the image")
	}
	return nil
}

func mirrorImageSnapshot(c *call) (err error) {
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	flags, err := c.quiesceFlags()
	if err != nil {
		return err
	}
	image, err := c.open(s, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if err := checkImageMirrored(image); err != nil {
		return err
	}
	mode, err := image.GetImageMirrorMode()
	switch {
	case err != nil:
		return errno.Wrap(err, "failed to retrieve mirror mode")
	case mode != rbd.ImageMirrorModeSnapshot:
		return errno.Errorf(syscall.EINVAL, "snapshot based mirroring not enabled on the image")
	}
	id, err := librbd.CreateMirrorSnap(image, flags)
	if err != nil {
		return errno.Wrap(err, "error creating snapshot")
	}
	fmt.Fprintln(c.stdout, "Snapshot ID:", id)
	return nil
}

// mirrorPeers are the peers of a pool, which its namespaces have in common.
func mirrorPeers(c *call, s spec.Spec) ([]*rbd.MirrorPeerSite, error) {
	pool, err := c.cluster.Pool(s.Pool, "")
	if err != nil {
		return nil, err
	}
	peers, err := rbd.ListMirrorPeerSite(pool)
	if err != nil && errno.Code(err) != syscall.ENOENT {
		fmt.Fprintln(c.stderr, "rbd: failed to list mirror peers")
	}
	return peers, nil
}

// mirrorStatus is how an image is mirrored.
type mirrorStatus struct {
	globalID string
	local    *rbd.SiteMirrorImageStatus // nil where images only go out
	sites    []rbd.SiteMirrorImageStatus
	names    map[string]string // of sites, by their mirror uuid
	daemon   *mirrorDaemon
	snaps    []mirrorSnap
}

// mirrorSnap is a snapshot for the peers.
type mirrorSnap struct {
	rbd.SnapInfo
	librbd.MirrorSnap
}

// newMirrorStatus sorts what is known by site. A site that there should be
// something of, but is not, is shown as unknown.
func newMirrorStatus(status rbd.GlobalMirrorImageStatus, peers []*rbd.MirrorPeerSite) mirrorStatus {
	const here = "" // the mirror uuid of the local site
	m := mirrorStatus{globalID: status.Info.GlobalID, names: make(map[string]string)}
	wanted := make(map[string]bool)
	direction := rbd.MirrorPeerDirectionRxTx
	for i, p := range peers {
		if i == 0 {
			direction = p.Direction
		} else if direction != p.Direction {
			direction = rbd.MirrorPeerDirectionRxTx
		}
		if p.MirrorUUID != "" && p.Direction != rbd.MirrorPeerDirectionTx {
			wanted[p.MirrorUUID] = true
		}
		if p.MirrorUUID != "" && p.SiteName != "" {
			m.names[p.MirrorUUID] = p.SiteName
		}
	}
	if direction != rbd.MirrorPeerDirectionTx {
		wanted[here] = true
	}
	var sites []rbd.SiteMirrorImageStatus
	for _, site := range status.SiteStatuses {
		if wanted[site.MirrorUUID] {
			delete(wanted, site.MirrorUUID)
			sites = append(sites, site)
		}
	}
	var missing []string
	for uuid := range wanted {
		missing = append(missing, uuid)
	}
	slices.Sort(missing)
	for _, uuid := range missing {
		sites = append(sites, rbd.SiteMirrorImageStatus{
			MirrorUUID: uuid, State: rbd.MirrorImageStatusStateUnknown, Description: "status not found",
		})
	}
	for _, site := range sites {
		if site.MirrorUUID == here {
			m.local = &site
		} else {
			m.sites = append(m.sites, site)
		}
	}
	return m
}

func mirrorStatusState(state rbd.MirrorImageStatusState) string {
	if state > rbd.MirrorImageStatusStateStopped {
		return fmt.Sprintf("unknown (%d)", state)
	}
	return state.String()
}

func siteState(s rbd.SiteMirrorImageStatus) string {
	if s.Up {
		return "up+" + mirrorStatusState(s.State)
	}
	return "down+" + mirrorStatusState(s.State)
}

func siteTime(s rbd.SiteMirrorImageStatus) string {
	if s.LastUpdate == 0 {
		return ""
	}
	return librbd.LocalTime(s.LastUpdate)
}

func mirrorImageStatus(c *call) (err error) {
	f, err := c.formatter()
	if err != nil {
		return err
	}
	s, err := c.spec(spec.Form{})
	if err != nil {
		return err
	}
	// The genuine tool opens it to write, which a status does not need.
	pool, image, err := c.openImage(s, "", true)
	if err != nil {
		return err
	}
	if err := checkImageMirrored(image); err != nil {
		return err
	}
	peers, err := mirrorPeers(c, s)
	if err != nil {
		return err
	}
	status, err := image.GetGlobalMirrorStatus()
	if err != nil {
		return errno.Wrap(err, "failed to get status for image "+s.Image)
	}
	m := newMirrorStatus(status, peers)
	if m.local != nil && m.local.Up {
		instance, err := image.MirrorInstanceID()
		switch {
		case err == nil:
			daemons, _ := mirrorDaemons(c, pool)
			// go-ceph gives the buffer to its end.
			m.daemon = daemonOf(daemons, strings.TrimRight(instance, "\x00"))
		case errno.Code(err) != syscall.ENOENT:
			fmt.Fprintf(c.stderr, "rbd: failed to get service id for image %s: %s\n", s.Image, errno.Text(errno.Code(err)))
		}
	}
	if status.Info.Primary && status.Info.State == rbd.MirrorImageEnabled {
		if m.snaps, err = mirrorSnaps(image); err != nil {
			return err
		}
	}
	if f == nil {
		m.print(s.Image, c.stdout)
		m.printSnaps(c.stdout)
		return nil
	}
	f.OpenObject("image")
	m.write(s.Image, f)
	m.writeSnaps(f)
	f.Close()
	return f.Flush(c.stdout)
}

// mirrorSnaps are the snapshots that an image has for its peers.
func mirrorSnaps(image *rbd.Image) ([]mirrorSnap, error) {
	infos, err := snapsWhere(image, func(kind rbd.SnapNamespaceType) bool { return kind == librbd.SnapNamespaceTypeMirror })
	if err != nil {
		return nil, err
	}
	var snaps []mirrorSnap
	for _, info := range infos {
		snap, err := librbd.GetMirrorSnap(image, info.Id)
		if err == nil && (snap.State == librbd.MirrorSnapPrimary || snap.State == librbd.MirrorSnapPrimaryDemoted) {
			snaps = append(snaps, mirrorSnap{info, snap})
		}
	}
	return snaps, nil
}

func (m mirrorStatus) print(name string, w io.Writer) {
	fmt.Fprintf(w, "%s:\n  global_id:   %s\n", name, m.globalID)
	if m.local != nil {
		fmt.Fprintf(w, "  state:       %s\n  description: %s\n", siteState(*m.local), m.local.Description)
		if m.daemon != nil {
			fmt.Fprintf(w, "  service:     %s\n", m.daemon.description())
		}
		fmt.Fprintf(w, "  last_update: %s\n", siteTime(*m.local))
	}
	for i, site := range m.sites {
		if i == 0 {
			fmt.Fprintln(w, "  peer_sites:")
		} else {
			fmt.Fprintln(w)
		}
		name := m.names[site.MirrorUUID]
		if name == "" {
			name = site.MirrorUUID
		}
		fmt.Fprintf(w, "    name: %s\n    state: %s\n    description: %s\n    last_update: %s\n",
			name, siteState(site), site.Description, siteTime(site))
	}
}

func (m mirrorStatus) printSnaps(w io.Writer) {
	if len(m.snaps) == 0 {
		return
	}
	fmt.Fprintln(w, "  snapshots:")
	for i, snap := range m.snaps {
		if i > 0 {
			fmt.Fprintln(w)
		}
		demoted := ""
		if snap.State == librbd.MirrorSnapPrimaryDemoted {
			demoted = "demoted "
		}
		fmt.Fprintf(w, "    %d %s (%speer_uuids:[%s])", snap.Id, snap.Name, demoted, strings.Join(snap.PeerUUIDs, ","))
	}
	fmt.Fprintln(w)
}

func (m mirrorStatus) write(name string, f output.Formatter) {
	f.String("name", name)
	f.String("global_id", m.globalID)
	if m.local != nil {
		f.String("state", siteState(*m.local))
		f.String("description", m.local.Description)
		if m.daemon != nil {
			m.daemon.write(f)
		}
		f.String("last_update", siteTime(*m.local))
	}
	if len(m.sites) == 0 {
		return
	}
	f.OpenArray("peer_sites")
	for _, site := range m.sites {
		f.OpenObject("peer_site")
		f.String("site_name", m.names[site.MirrorUUID])
		f.String("mirror_uuids", site.MirrorUUID)
		f.String("state", siteState(site))
		f.String("description", site.Description)
		f.String("last_update", siteTime(site))
		f.Close()
	}
	f.Close()
}

func (m mirrorStatus) writeSnaps(f output.Formatter) {
	if len(m.snaps) == 0 {
		return
	}
	f.OpenArray("snapshots")
	for _, snap := range m.snaps {
		f.OpenObject("snapshot")
		f.Uint("id", snap.Id)
		f.String("name", snap.Name)
		f.Bool("demoted", snap.State == librbd.MirrorSnapPrimaryDemoted)
		f.OpenArray("mirror_peer_uuids")
		for _, uuid := range snap.PeerUUIDs {
			f.String("peer_uuid", uuid)
		}
		f.Close()
		f.Close()
	}
	f.Close()
}
