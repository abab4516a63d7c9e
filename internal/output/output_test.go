package output

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The expected texts of this file were captured from rbd 16.2.15, down to the
// ends of the lines.

// oddNames are image names as `rbd create` accepts them.
var oddNames = []string{"a", "bad\xff\xe2\x82", "we\"i\\r<d>&'x\t\x01\x7fé\n"}

func TestFormatterEscapes(t *testing.T) {
	list := func(f Formatter) {
		f.OpenArray("images")
		for _, n := range oddNames {
			f.String("name", n)
		}
		f.Close()
	}
	const jsonOdd = `"we\"i\\r<d>&'x\t\u0001\u007f` + "é" + `\n"`
	const xmlOdd = "<name>we&quot;i\\r&lt;d&gt;&amp;&apos;x\t&#x01;&#x7f;é\n</name>"
	check(t, list, map[string]string{
		"json":        `["a","bad` + "\xff\xe2\x82" + `",` + jsonOdd + "]\n",
		"json pretty": "[\n    \"a\",\n    \"bad\xff\xe2\x82\",\n    " + jsonOdd + "\n]\n",
		"xml":         "<images><name>a</name><name>bad\xff\xe2\x82</name>" + xmlOdd + "</images>\n",
		"xml pretty":  "<images>\n <name>a</name>\n <name>bad\xff\xe2\x82</name>\n " + xmlOdd + "\n</images>\n\n",
	})
}

func TestFormatterEmpty(t *testing.T) {
	check(t, func(f Formatter) {
		f.OpenObject("status")
		f.OpenArray("watchers")
		f.Close()
		f.Close()
	}, map[string]string{
		"json":        "{\"watchers\":[]}\n",
		"json pretty": "{\n    \"watchers\": []\n}\n",
		"xml":         "<status><watchers></watchers></status>\n",
		"xml pretty":  "<status>\n <watchers>\n </watchers>\n</status>\n\n",
	})
	check(t, func(f Formatter) {
		f.OpenArray("snapshots")
		f.Close()
	}, map[string]string{
		"json":        "[]\n",
		"json pretty": "[]\n",
		"xml":         "<snapshots></snapshots>\n",
		"xml pretty":  "<snapshots>\n</snapshots>\n\n",
	})
}

func TestFormatterNested(t *testing.T) {
	check(t, func(f Formatter) {
		f.OpenArray("snapshots")
		for _, id := range []uint64{4, 5} {
			f.OpenObject("snapshot")
			f.Uint("id", id)
			f.String("name", "s")
			f.Int("order", -1)
			f.Bool("primary", true)
			f.OpenObject("namespace")
			f.String("type", "user")
			f.Close()
			f.Close()
		}
		f.Close()
	}, map[string]string{
		"json": `[{"id":4,"name":"s","order":-1,"primary":true,"namespace":{"type":"user"}},` +
			`{"id":5,"name":"s","order":-1,"primary":true,"namespace":{"type":"user"}}]` + "\n",
		"json pretty": `[
    {
        "id": 4,
        "name": "s",
        "order": -1,
        "primary": true,
        "namespace": {
            "type": "user"
        }
    },
    {
        "id": 5,
        "name": "s",
        "order": -1,
        "primary": true,
        "namespace": {
            "type": "user"
        }
    }
]
`,
		"xml pretty": `<snapshots>
 <snapshot>
  <id>4</id>
  <name>s</name>
  <order>-1</order>
  <primary>true</primary>
  <namespace>
   <type>user</type>
  </namespace>
 </snapshot>
 <snapshot>
  <id>5</id>
  <name>s</name>
  <order>-1</order>
  <primary>true</primary>
  <namespace>
   <type>user</type>
  </namespace>
 </snapshot>
</snapshots>

`,
	})
}

func check(t *testing.T, write func(Formatter), want map[string]string) {
	t.Helper()
	for form, text := range want {
		format, pretty := strings.CutSuffix(form, " pretty")
		f, err := New(format, pretty)
		if err != nil {
			t.Fatal(err)
		}
		write(f)
		var b strings.Builder
		if err := f.Flush(&b); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(text, b.String()); d != "" {
			t.Errorf("%s (-want +got):\n%s", form, d)
		}
	}
}

func TestNewPlain(t *testing.T) {
	for _, format := range []string{"", "plain"} {
		if f, err := New(format, false); f != nil || err != nil {
			t.Errorf("New(%q, false) = %v, %v; want nothing", format, f, err)
		}
		if _, err := New(format, true); !errors.Is(err, ErrPretty) {
			t.Errorf("New(%q, true): error %v, want %v", format, err, ErrPretty)
		}
	}
}

func TestTable(t *testing.T) {
	table := NewTable(
		Column{"SNAPID", Left, Right},
		Column{"NAME", Left, Left},
		Column{"SIZE", Left, Right},
		Column{"PROTECTED", Left, Left},
		Column{"TIMESTAMP", Left, Left},
	)
	table.Row("6", "s", Size(16<<20), "yes", "Tue Nov 24 11:09:20 2026")
	table.Row("12", "longer", Size(1<<30), "", "")
	var b strings.Builder
	if err := table.Flush(&b); err != nil {
		t.Fatal(err)
	}
	want := "SNAPID  NAME    SIZE    PROTECTED  TIMESTAMP               \n" +
		"     6  s       16 MiB  yes        Tue Nov 24 11:09:20 2026\n" +
		"    12  longer   1 GiB                                     \n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0:                   "0 B",
		1:                   "1 B",
		1023:                "1023 B",
		1024:                "1 KiB",
		1025:                "1.0 KiB",
		1500:                "1.5 KiB",
		10239:               "10 KiB",
		102399:              "100 KiB",
		104448:              "102 KiB",
		1047552:             "1023 KiB",
		1048575:             "1024 KiB",
		1048577:             "1.0 MiB",
		1610612737:          "1.5 GiB",
		5000000000:          "4.7 GiB",
		10995116277760:      "10 TiB",
		10995116277761:      "10 TiB",
		1<<63 + 1<<62:       "12 EiB",
		1<<64 - 1:           "16 EiB",
		1500 * 1024 * 1024:  "1.5 GiB",
		12345 * 1024 * 1024: "12 GiB",
	} {
		if got := Size(bytes); got != want {
			t.Errorf("Size(%d) = %q, want %q", bytes, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	p := NewProgress(&b, "Removing image", 0)
	for i := range uint64(4) {
		p.Update(i, 4)
		p.Update(i, 4)
	}
	p.Update(0, 0)
	p.Finish()
	p = NewProgress(&b, "Creating snap", 0)
	p.Update(10, 100)
	p.Fail()
	want := "\rRemoving image: 25% complete...\rRemoving image: 50% complete...\rRemoving image: 75% complete...\rRemoving image: 100% complete...done.\n" +
		"\rCreating snap: 10% complete...\rCreating snap: 10% complete...failed.\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	silent := NewProgress(nil, "Removing image", 0)
	silent.Update(1, 2)
	silent.Fail()
	silent.Finish()
}

func TestBarLine(t *testing.T) {
	for _, c := range []struct {
		size, done, total uint64
		columns           int
		want              string
	}{
		{4 << 30, 1, 4, 100, "Exporting image [==========                              ] 25% 1 GiB of 4 GiB, 102 MiB/s, 30s left"},
		{4 << 30, 1, 4, 80, "Exporting image [=====                ] 25% 1 GiB of 4 GiB, 102 MiB/s, 30s left"},
		{4 << 30, 1, 4, 30, "Exporting image  25% 1 GiB of"},
		{0, 3, 4, 60, "Exporting image [===============     ] 75%, 7.5%/s, 3s left"},
		{0, 0, 4, 60, "Exporting image [                              ] 0%, 0.0%/s"},
		{0, 5 << 20, 0, 60, "Exporting image  5 MiB, 512 KiB/s"},
		{4, 8, 4, 60, "Exporting image [=========] 100% 4 B of 4 B, 0 B/s, 0s left"},
	} {
		b := bar{size: c.size}
		if got := b.line(c.columns, "Exporting image", c.done, c.total, 10*time.Second); got != c.want || len(got) >= c.columns {
			t.Errorf("%+v: got %q (%d), want %q", c, got, len(got), c.want)
		}
	}
}
