package krbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func capture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The messages are captures: see testdata/README.
func TestParseEvent(t *testing.T) {
	d := Device{Major: 253, Minor: 0}
	for file, action := range map[string]string{"udev-add": "add", "udev-remove": "remove"} {
		e, ok := parseEvent(capture(t, file))
		seq := e["DISKSEQ"]
		if !ok || e["ACTION"] != action || seq == "" || !e.block(d, seq) || !e.block(d, "") {
			t.Errorf("%s: %v", file, e)
		}
		if e.block(Device{Major: 253, Minor: 16}, "") || e.block(d, "1"+seq) {
			t.Errorf("%s: taken for another disk's", file)
		}
	}
	for file, pass := range map[string]bool{"udev-add": true, "udev-remove": true, "udev-add-bus": false} {
		msg := capture(t, file)
		disk := binary.BigEndian.Uint32(msg[subsystemAt:]) == hashOfBlock && binary.BigEndian.Uint32(msg[subsystemAt+4:]) == hashOfDisk
		if disk != pass {
			t.Errorf("%s: the filter would do the wrong thing with it", file)
		}
	}
	if e, ok := parseEvent(capture(t, "udev-add-bus")); !ok || e["SUBSYSTEM"] != "rbd" || e.block(Device{}, "") {
		t.Errorf("event of the bus: %v", e)
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, name := range []string{"udev-add", "udev-remove", "udev-add-bus"} {
		f.Add(capture(f, name))
	}
	header := append([]byte(prefix), make([]byte, 40)...)
	binary.BigEndian.PutUint32(header[magicAt:], magic)
	binary.NativeEndian.PutUint32(header[propertiesAt:], 0xffffffff)
	binary.NativeEndian.PutUint32(header[propertiesAt+4:], 8)
	f.Add(header)
	f.Fuzz(func(t *testing.T, msg []byte) {
		if e, ok := parseEvent(msg); ok {
			for k, v := range e {
				if !bytes.Contains(msg, []byte(k+"="+v)) {
					t.Errorf("%q=%q is not in the message", k, v)
				}
			}
		}
	})
}

// Events of another device, or of an earlier one of the same number, must not
// end the wait; udev's database must, but only a new record of it.
func TestAwaitUdev(t *testing.T) {
	h := Host{Root: t.TempDir()}
	d := Device{ID: 0, Major: 254, Minor: 0, Path: "/dev/rbd0"}
	add := func(seq string) event {
		return event{"ACTION": "add", "SUBSYSTEM": "block", "MAJOR": "254", "MINOR": "0", "DISKSEQ": seq}
	}
	since := time.Now()
	await := func(mon *monitor, action string) error {
		return h.awaitUdev(t.Context(), mon, action, d, "7", since, 300*time.Millisecond)
	}
	open := func(events ...event) *monitor {
		mon, err := openMonitor(1 << 16)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(mon.Close)
		mon.events = events
		return mon
	}

	if err := await(open(add("6"), add("7")), "add"); err != nil {
		t.Error(err)
	}
	if err := await(open(add("6")), "add"); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Error(err)
	}
	record := h.path("run/udev/data/b254:0")
	if err := os.MkdirAll(filepath.Dir(record), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(record, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := await(nil, "add"); err != nil {
		t.Error("with a new record in the database and no monitor:", err)
	}
	if err := await(nil, "remove"); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Error("removed, but the record is still there:", err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(record, old, old); err != nil {
		t.Fatal(err)
	}
	if err := await(nil, "add"); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Error("with a record from before:", err)
	}
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	lost := open()
	lost.lost = true
	if err := await(lost, "remove"); err != nil {
		t.Error("after lost events, with the record gone:", err)
	}
	if err := os.WriteFile(h.path("run/udev/queue"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := await(lost, "remove"); err != nil || time.Since(start) < 300*time.Millisecond {
		t.Error("while udev is busy it is waited for to the end:", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.awaitUdev(ctx, open(), "add", d, "7", time.Now(), time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A reader that is kept from reading for too long is told so by the kernel.
func TestWakeEndsCollect(t *testing.T) {
	mon, err := openMonitor(monitorBuffer)
	if err != nil {
		t.Fatal(err)
	}
	defer mon.Close()
	time.AfterFunc(20*time.Millisecond, mon.wake)
	mon.collect()
}
