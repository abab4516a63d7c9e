// Command manual writes the man page rbd(8) of the declarations of the
// commands: go run -tags pacific ./cmd/manual >share/man/man8/rbd.8.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opt-rbd/opt-rbd/internal/args"
	"github.com/opt-rbd/opt-rbd/internal/cli"
)

func main() {
	out := bufio.NewWriter(os.Stdout)
	write(out)
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "manual:", err)
		os.Exit(1)
	}
}

const head = `.\" Made by cmd/manual of the declarations of the commands.
.TH RBD 8 "" "opt-rbd" "System administration"
.SH NAME
rbd \- disks in a Ceph cluster
.SH SYNOPSIS
.B rbd
[\fIoptions of Ceph\fP] \fIcommand\fP [\fIoptions\fP] [\fIoperands\fP]
.SH DESCRIPTION
.B rbd
makes, changes, copies and removes images, the virtual disks that a Ceph cluster keeps as objects in its pools, and lets the kernel of this host use them
as devices.
.PP
An image is named by a spec: [\fIpool\fP/[\fInamespace\fP/]]\fIimage\fP, one of its snapshots by @\fIsnap\fP behind that. The parts may be given by
options instead: \fB\-\-pool\fP, \fB\-\-namespace\fP, \fB\-\-image\fP, \fB\-\-snap\fP. Without a pool it is the one that rbd_default_pool names, which is rbd.
Options may stand anywhere on the line, their values as \fB\-\-name value\fP or \fB\-\-name=value\fP.
.PP
Sizes are in MiB where no unit is said, or in B, K, M, G, T, P, E, which are powers of 1024.
.SH OPTIONS OF CEPH
Every option of ceph.conf(5) is an option here as well, with \- or _ between its words.
.TP
\fB\-c\fP, \fB\-\-conf\fP \fIfile\fP
the configuration, else $CEPH_CONF, else /etc/ceph/ceph.conf, ~/.ceph/ceph.conf or ceph.conf in the current folder
.TP
\fB\-m\fP, \fB\-\-mon_host\fP \fIaddresses\fP
the monitors; no file is needed then
.TP
\fB\-\-id\fP \fIname\fP, \fB\-n\fP, \fB\-\-name\fP client.\fIname\fP
who connects, else client.admin
.TP
\fB\-k\fP, \fB\-\-keyring\fP \fIfile\fP; \fB\-K\fP, \fB\-\-keyfile\fP \fIfile\fP
where its key is. \fB\-\-key\fP \fIkey\fP shows the key to everybody who can list processes, if only for a moment.
.TP
\fB\-\-cluster\fP \fIname\fP
the cluster's name, which is part of the names of its files
.SH OPTION OF EVERY COMMAND
.TP
\fB\-\-timeout\fP \fIseconds\fP
how long the cluster may leave a request without an answer, 300 without this option, for ever with 0. A command that comes to that ends with 110, or goes on to close
what it has open, which may take as long a few times over. Work that goes on is not ended, however long it takes. rados_osd_op_timeout, rados_mon_op_timeout and
client_mount_timeout of ceph.conf(5) say it for each kind of request. What the kernel does is not bounded by it. (Of \fBnbd map\fP this is another option.)
.SH COMMANDS
What came with a newer release of Ceph than 16 is there where librbd is of that release.
`

const tail = `.SH EXIT STATUS
0 when all was done. Otherwise the number of the error, as in errno(3): 2 where something is not there, 16 where it is in use, 17 where it is there already,
22 where the line asks for what cannot be; 1 where the line cannot be read. The launcher by which a node runs \fBrbd\fP ends with 127 where nothing is installed, and
with 126 where what is installed cannot be started.
.SH MESSAGES
Lines that begin with \(lqhint:\(rq come after all others, on standard error, where something failed or another client has open what was changed, and say what to do about it.
On a terminal long work shows a bar with its rate and the time that is left.
.SH ENVIRONMENT
.TP
CEPH_ARGS
options that come before those of the line
.TP
CEPH_CONF
the configuration, where \fB\-c\fP names none
.SH FILES
.TP
/etc/ceph/ceph.conf
the configuration of the cluster
.TP
/etc/ceph/ceph.client.\fIname\fP.keyring
the key of a client
.TP
/etc/opt-rbd/launcher.conf
what the launcher of a node does otherwise, where there is one
.SH SEE ALSO
.BR ceph (8),
.BR rbdmap (8),
.BR ceph.conf (5)
`

func write(w io.Writer) {
	fmt.Fprint(w, head)
	for _, c := range cli.AllDeclarations() {
		if !c.Hidden {
			command(w, c)
		}
	}
	fmt.Fprint(w, tail)
}

// command writes what there is to say on one command.
func command(w io.Writer, c *args.Command) {
	fmt.Fprintf(w, ".SS %s\n", escape(strings.Join(c.Path, " ")))
	for i, path := range append([][]string{c.Path}, c.Aliases...) {
		if i > 0 {
			fmt.Fprintln(w, ".br")
		}
		fmt.Fprintf(w, "\\fBrbd %s\\fP", escape(strings.Join(path, " ")))
		for _, o := range c.Operands {
			text := "\\fI" + escape(o.Name) + "\\fP"
			if o.Repeat {
				text += "..."
			}
			if o.Optional {
				text = "[" + text + "]"
			}
			fmt.Fprint(w, " ", text)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, ".PP\n%s\n", escape(c.Short+since(c.Since)))
	if c.Long != "" {
		fmt.Fprintf(w, ".PP\n%s\n", escape(flat(c.Long)))
	}
	for _, o := range c.Options {
		if o.Hidden {
			continue
		}
		fmt.Fprintln(w, ".TP")
		if o.Short != "" {
			fmt.Fprintf(w, "\\fB\\-%s\\fP, ", escape(o.Short))
		}
		fmt.Fprintf(w, "\\fB\\-\\-%s\\fP", escape(o.Name))
		if o.Arg != "" {
			fmt.Fprintf(w, " \\fI%s\\fP", escape(o.Arg))
		}
		help := escape(strings.TrimSpace(flat(o.Help) + since(o.Since)))
		if help == "" {
			help = "\\&"
		}
		fmt.Fprintf(w, "\n%s\n", help)
	}
}

// since says which release of Ceph brought something.
func since(release int) string {
	if release == 0 {
		return ""
	}
	return fmt.Sprintf(" (since Ceph %d)", release)
}

// flat makes one line of several.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// escape makes plain text of a text for roff(7): no escape sequence, no
// request at the beginning of a line, and hyphens that can be copied.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
