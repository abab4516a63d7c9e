// Package agent runs commands in a guest over one virtio-serial port: the
// host's side (Client) and the guest's (Serve) of the same small protocol.
//
// Several commands run at once over the one port, each with its own standard
// input, output, error and exit code. Files travel as the input and output of
// tar, so the protocol knows nothing of them. It is a tool of the tests: there
// is no authentication, since only the host can open the other end of the port.
//
// A port is a stream of bytes that outlives both sides, so either side may
// find leftovers of an earlier session in it. A session therefore begins with
// a hello of the host, which carries a nonce, and the guest's echo of it;
// whatever comes before is thrown away. After that each direction is one gob
// stream of messages. A guest that has not noticed the end of the last session
// takes the filler before the hello for the rest of a message, or for a message
// that cannot be, which ends that session.
package agent

import (
	"bufio"
	"bytes"
	"io"
)

// PortName is the name that the host gives to the virtio-serial port. The
// guest finds it as /dev/virtio-ports/PortName.
const PortName = "opt-rbd.agent"

const helloMagic = "opt-rbd agent hello\n"

// A gob message cannot begin with the filler's byte: it would announce a
// length that has 127 bytes.
const filler = 0x81

const (
	nonceLen = 26 // of rand.Text
	// chunkLen bounds a message, so that a large file does not keep the
	// others waiting. The kernel's driver takes at most 32 KiB at a time.
	chunkLen = 32 << 10
	// maxMessage is more than the longest message has.
	maxMessage = 256 << 10
)

// message is what crosses the port. ID is the command that it belongs to; of
// the rest at most one field is set.
type message struct {
	ID     uint64
	Start  *start  // host to guest: run this
	Kill   bool    // host to guest: end it and all of its process group
	Stdin  []byte  // host to guest
	EOF    bool    // host to guest: no more standard input
	Stdout []byte  // guest to host
	Stderr []byte  // guest to host
	Exit   *status // guest to host, the last of a command
}

type start struct {
	Argv []string
	Dir  string
	Env  []string
}

type status struct {
	Code int
	// Err says why the command could not be run; Code means nothing then.
	Err string
}

// readHello skips everything up to a hello and returns its nonce. It leaves
// the reader just behind it.
func readHello(r *bufio.Reader) ([]byte, error) {
	window := make([]byte, 0, len(helloMagic))
	for string(window) != helloMagic {
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		if len(window) == len(helloMagic) {
			window = append(window[:0], window[1:]...)
		}
		window = append(window, b)
	}
	nonce := make([]byte, nonceLen)
	_, err := io.ReadFull(r, nonce)
	return nonce, err
}

func hello(nonce []byte) []byte {
	return bytes.Join([][]byte{[]byte(helloMagic), nonce}, nil)
}
