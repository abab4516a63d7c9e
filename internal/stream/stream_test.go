package stream

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// writeDiff is a diff of records, each with the bytes that follow it.
func writeDiff(t testing.TB, version int, records ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewDiffWriter(&b, version)
	for _, r := range records {
		var err error
		switch r := r.(type) {
		case Record:
			err = w.Write(r, nil)
		case string:
			err = w.Write(Record{Tag: Data, Offset: 8, Length: uint64(len(r))}, []byte(r))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Write(Record{Tag: End}, nil), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDiffReadsWhatItWrites(t *testing.T) {
	for _, version := range []int{1, 2} {
		records := []any{Record{Tag: FromSnap, Name: "a"}, Record{Tag: ToSnap, Name: "b"}}
		if version == 2 {
			records = append(records, Record{Tag: Protected, Protected: true})
		}
		records = append(records, Record{Tag: Size, Size: 100}, "data", Record{Tag: Zero, Offset: 50, Length: 50})
		data := writeDiff(t, version, records...)
		for name, r := range map[string]io.Reader{"file": bytes.NewReader(data), "pipe": io.MultiReader(bytes.NewReader(data))} {
			d, err := NewDiffReader(r, version)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range append(records, Record{Tag: End}) {
				got, err := d.Next()
				if err != nil {
					t.Fatalf("version %d, %s: %v", version, name, err)
				}
				if text, ok := want.(string); ok {
					read, err := io.ReadAll(d)
					if string(read) != text || err != nil {
						t.Errorf("version %d, %s: read %q, %v", version, name, read, err)
					}
					want = Record{Tag: Data, Offset: 8, Length: uint64(len(text))}
				}
				if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Record{})); diff != "" {
					t.Errorf("version %d, %s (-want +got):\n%s", version, name, diff)
				}
			}
		}
	}
}

func TestCheck(t *testing.T) {
	whole := writeDiff(t, 1, Record{Tag: FromSnap, Name: "a"}, Record{Tag: Size, Size: 100}, "data", Record{Tag: Zero, Offset: 90, Length: 10})
	check := func(data []byte) error {
		return Check(bytes.NewReader(data[len(bannerDiff1):]), int64(len(data)-len(bannerDiff1)))
	}
	if err := check(whole); err != nil {
		t.Fatal(err)
	}
	for n := len(bannerDiff1); n < len(whole); n++ {
		if err := check(whole[:n]); !errors.Is(err, ErrShort) {
			t.Errorf("cut after %d of %d bytes: %v", n, len(whole), err)
		}
	}
	var decode *DecodeError
	if err := check(whole[:bytes.Index(whole, []byte("data"))+2]); !errors.As(err, &decode) || decode.What != "write data" {
		t.Errorf("cut in the middle of data: %v", err)
	}
	for name, r := range map[string]Record{
		"beyond the end":      {Tag: Zero, Offset: 95, Length: 10},
		"longer than all":     {Tag: Zero, Offset: 1, Length: 1<<64 - 1},
		"begins after it all": {Tag: Zero, Offset: 1 << 63, Length: 1},
	} {
		var outside *CheckError
		if err := check(writeDiff(t, 1, Record{Tag: Size, Size: 100}, r)); !errors.As(err, &outside) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRuns(t *testing.T) {
	data := append(append([]byte("ab"), make([]byte, 10)...), "cdef"...)
	for grain, want := range map[uint64][][3]int{
		0: {{0, 16, 0}},
		1: {{0, 2, 0}, {2, 12, 1}, {12, 16, 0}},
		4: {{0, 4, 0}, {4, 12, 1}, {12, 16, 0}},
		5: {{0, 5, 0}, {5, 10, 1}, {10, 16, 0}},
		// Larger than all there is.
		64: {{0, 16, 0}},
	} {
		var got [][3]int
		Runs(data, grain, func(begin, end int, zero bool) {
			is := 0
			if zero {
				is = 1
			}
			got = append(got, [3]int{begin, end, is})
		})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("grain %d (-want +got):\n%s", grain, diff)
		}
	}
}

func TestInOrder(t *testing.T) {
	var got []int
	err := InOrder(3, func(put func(func() Pending[int]) error) error {
		for i := range 100 {
			if err := put(func() Pending[int] { return Begin(func() (int, error) { return i, nil }) }); err != nil {
				return err
			}
		}
		return nil
	}, func(i int) error {
		got = append(got, i)
		return nil
	})
	if err != nil || len(got) != 100 || got[0] != 0 || got[99] != 99 {
		t.Errorf("%v, %v", got, err)
	}
	// What fails first is told, and nothing is taken after it.
	broken, taken, begun := errors.New("broken"), 0, 0
	err = InOrder(2, func(put func(func() Pending[int]) error) error {
		for i := range 1000 {
			begun++
			if err := put(func() Pending[int] {
				return Begin(func() (int, error) {
					time.Sleep(100 * time.Microsecond)
					if i == 5 {
						return 0, broken
					}
					return i, nil
				})
			}); err != nil {
				return err
			}
		}
		return nil
	}, func(int) error { taken++; return nil })
	if !errors.Is(err, broken) || taken != 5 || begun > 100 {
		t.Errorf("%v after %d were taken and %d begun", err, taken, begun)
	}
}

// apply gives what a diff of version 1 makes of an image of bytes.
func apply(image []byte, data []byte) ([]byte, error) {
	d, err := NewDiffReader(bytes.NewReader(data), 1)
	if err != nil {
		return nil, err
	}
	for {
		r, err := d.Next()
		if err != nil || r.Tag == End {
			return image, err
		}
		switch r.Tag {
		case Size:
			resized := make([]byte, r.Size)
			copy(resized, image)
			image = resized
		case Zero:
			clear(image[r.Offset : r.Offset+r.Length])
		case Data:
			if _, err := io.ReadFull(d, image[r.Offset:r.Offset+r.Length]); err != nil {
				return nil, err
			}
		}
	}
}

// A merged diff does what its parts do, one after the other.
func TestMerge(t *testing.T) {
	const blocks = 8
	image := []byte("abcdefgh")
	// Every block of the image is left alone, written or zeroed by each diff.
	diff := func(from, to string, choice, size int, letter byte) []byte {
		var b bytes.Buffer
		w := NewDiffWriter(&b, 1)
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		must(w.Write(Record{Tag: FromSnap, Name: from}, nil))
		must(w.Write(Record{Tag: ToSnap, Name: to}, nil))
		must(w.Write(Record{Tag: Size, Size: uint64(size)}, nil))
		for at := 0; at < size; {
			// Ranges of one to three blocks.
			n := min(1+choice/3%3, size-at)
			switch choice % 3 {
			case 1:
				must(w.Write(Record{Tag: Zero, Offset: uint64(at), Length: uint64(n)}, nil))
			case 2:
				must(w.Write(Record{Tag: Data, Offset: uint64(at), Length: uint64(n)}, bytes.Repeat([]byte{letter}, n)))
			}
			choice /= 9
			at += n
		}
		must(w.Write(Record{Tag: End}, nil))
		must(w.Flush())
		return b.Bytes()
	}
	for n := range 5000 {
		size1, size2 := blocks-n%3, blocks-n/3%3
		first, second := diff("a", "b", n*7919*7919, size1, 'X'), diff("b", "c", n*104729*17, size2, 'Y')
		var merged bytes.Buffer
		if err := Merge(&merged, bytes.NewReader(first), bytes.NewReader(second), func(uint64, uint64) {}); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		want, err := apply(bytes.Clone(image), first)
		if err == nil {
			want, err = apply(want, second)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := apply(bytes.Clone(image), merged.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%d: merged makes %q, one after the other %q", n, got, want)
		}
	}
	a, b := diff("a", "b", 0, 8, 'x'), diff("c", "d", 0, 8, 'x')
	if err := Merge(io.Discard, bytes.NewReader(a), bytes.NewReader(b), func(uint64, uint64) {}); !errors.Is(err, ErrGap) {
		t.Errorf("diffs that do not meet: %v", err)
	}
}

// No stream crashes a reader, takes memory for what is not there, or is read
// for ever.
func FuzzDiff(f *testing.F) {
	for _, version := range []int{1, 2} {
		f.Add(writeDiff(f, version, Record{Tag: FromSnap, Name: "a"}, Record{Tag: ToSnap, Name: "b"}, Record{Tag: Size, Size: 100}, "data", Record{Tag: Zero, Offset: 9, Length: 4}), version)
	}
	f.Fuzz(func(t *testing.T, data []byte, version int) {
		for _, r := range []io.Reader{bytes.NewReader(data), io.MultiReader(bytes.NewReader(data))} {
			d, err := NewDiffReader(r, version)
			for records := 0; err == nil; records++ {
				if records > len(data) {
					t.Fatal("there are more records than bytes")
				}
				var rec Record
				if rec, err = d.Next(); rec.Tag == End && err == nil {
					break
				}
				if err == nil && rec.Tag == Data {
					_, err = io.CopyN(io.Discard, d, int64(min(rec.Length, 1<<62)))
				}
			}
		}
		if version == 1 && len(data) > len(bannerDiff1) {
			rest := data[len(bannerDiff1):]
			_ = Check(bytes.NewReader(rest), int64(len(rest)))
		}
	})
}

func FuzzHeader(f *testing.F) {
	var b bytes.Buffer
	if err := WriteImage(&b, Header{Properties: map[Property]uint64{Order: 22}, Meta: map[string]string{"k": "v"}}, 1); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if _, err := ReadHeader(r, func(string) {}); err == nil {
			_, _ = ReadCount(r)
		}
	})
}

func FuzzMerge(f *testing.F) {
	f.Add(writeDiff(f, 1, Record{Tag: ToSnap, Name: "b"}, Record{Tag: Size, Size: 20}, "data"),
		writeDiff(f, 1, Record{Tag: FromSnap, Name: "b"}, Record{Tag: Size, Size: 10}, "x", Record{Tag: Zero, Offset: 9, Length: 1}))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		steps := 0
		_ = Merge(io.Discard, bytes.NewReader(first), bytes.NewReader(second), func(uint64, uint64) {
			if steps++; steps > 2*(len(first)+len(second)) {
				t.Fatal("there are more steps than bytes")
			}
		})
	})
}

// The corpus is kept in testdata/fuzz; it is not empty.
func TestCorpus(t *testing.T) {
	for _, name := range []string{"FuzzDiff", "FuzzHeader", "FuzzMerge"} {
		if files, err := os.ReadDir(filepath.Join("testdata", "fuzz", name)); err != nil || len(files) == 0 {
			t.Errorf("no kept inputs of %s: %v", name, err)
		}
	}
}
