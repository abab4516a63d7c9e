package spec

import (
	"regexp"
	"testing"
)

// patterns are the regular expressions that Ceph's rbd takes specs apart with: pool, namespace, image and snap.
var patterns = map[Names]*regexp.Regexp{
	Any:     regexp.MustCompile(`\A(?:([^/]+)/(?:([^/@]+)/)?)?([^@]+)(?:@(.+))?\z`),
	NewSnap: regexp.MustCompile(`\A(?:([^/]+)/(?:([^/@]+)/)?)?([^@]+)(?:@([^/@]+))?\z`),
	New:     regexp.MustCompile(`\A(?:([^/@]+)/(?:([^/@]+)/)?)?([^/@]+)(?:@([^/@]+))?\z`),
}

func compare(t *testing.T, text string) {
	for names, pattern := range patterns {
		got, err := Parse(text, names)
		parts := pattern.FindStringSubmatch(text)
		if (err == nil) != (parts != nil) || parts != nil && got != (Spec{parts[1], parts[2], parts[3], parts[4]}) {
			t.Errorf("%q with names %d: got %+v, %v, want %q", text, names, got, err, parts)
		}
	}
}

// TestParseAll tries every text of up to eight characters of those that matter.
func TestParseAll(t *testing.T) {
	var all func(text string)
	all = func(text string) {
		compare(t, text)
		if len(text) < 8 && !t.Failed() {
			for _, c := range "a/@\n" {
				all(text + string(c))
			}
		}
	}
	all("")
}

func FuzzParse(f *testing.F) {
	f.Add("pool/namespace/image@snap")
	f.Add("\xff/a@b/c@d")
	f.Fuzz(compare)
}
