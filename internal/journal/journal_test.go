package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/opt-rbd/opt-rbd/internal/encoding"
)

func TestEntry(t *testing.T) {
	e := Entry{Tag: 3, ID: 7, Data: []byte("data")}
	data := e.Encode()
	got, rest, err := ReadEntry(append(bytes.Clone(data), "more"...))
	if err != nil || got.Tag != e.Tag || got.ID != e.ID || !bytes.Equal(got.Data, e.Data) || string(rest) != "more" {
		t.Errorf("%+v, %q, %v", got, rest, err)
	}
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 1
		if _, _, err := ReadEntry(damaged); err == nil {
			t.Errorf("an entry whose byte %d is wrong is read", i)
		}
		if _, _, err := ReadEntry(data[:i]); !errors.Is(err, encoding.ErrEnd) {
			t.Errorf("an entry cut after %d bytes: %v", i, err)
		}
	}
}

// From the client that is furthest behind, and all where one has seen nothing.
func TestFirst(t *testing.T) {
	a := Client{Positions: []Position{{Object: 1, Tag: 5, Entry: 2}, {Object: 0, Tag: 5, Entry: 1}}}
	b := Client{Positions: []Position{{Object: 3, Tag: 4, Entry: 9}}}
	if p, ok := First([]Client{a, b}); !ok || p != b.Positions[0] {
		t.Errorf("%v, %t", p, ok)
	}
	if _, ok := First([]Client{a, {}, b}); ok {
		t.Error("a client that has seen nothing is left out")
	}
	if _, ok := First(nil); ok {
		t.Error("there is a first position without clients")
	}
}

// No bytes crash a reader or are read for ever.
func FuzzJournal(f *testing.F) {
	f.Add(Entry{Tag: 1, ID: 2, Data: []byte{1, 1, 4, 0, 0, 0, 2, 0, 0, 0}}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ReadClient(data)
		_, _ = ReadEvent(data)
		for rest := data; len(rest) > 0; {
			e, left, err := ReadEntry(rest)
			if err != nil {
				break
			}
			if len(left) >= len(rest) {
				t.Fatal("an entry takes no bytes")
			}
			_, _ = ReadEvent(e.Data)
			rest = left
		}
	})
}
