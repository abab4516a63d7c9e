package cli

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What is read is read as date(1) does, which is on this machine; what it
// refuses is refused.
func TestDate(t *testing.T) {
	for _, text := range []string{
		"now", "today", "tomorrow", "yesterday", "2030-01-02", "20300102", "2030/1/2", "1/2/2030", "2030-01-02 10:11", "2030-01-02 10:11:12",
		"2030-01-02 10:00:00 +0100", "2030-01-02T10:11:12", "2030-01-02T10:11:12Z", "2030-01-02T10:11:12+02:00", "10:30",
		"2 days", "+2 days", "1day", "3 weeks ago", "1 hour", "-90 minutes", "2 months", "next week", "last year", "1 fortnight",
		"tomorrow 10:30", "2 days 3 hours", "@1900000000", "",
	} {
		out, err := exec.Command("/bin/date", "-u", "--date", text, "+%s").Output()
		if err != nil {
			t.Fatalf("date --date %q: %v", text, err)
		}
		want, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, err := date(text, time.Now())
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if d := got.Unix() - want; d < -1 || d > 1 {
			t.Errorf("%q is %s, %d s beside date(1)", text, got, d)
		}
	}
	for _, text := range []string{"bogus", "2030-13-01", "25:00", "1 blue moon", "@x", "2030-01-02 @5"} {
		if exec.Command("/bin/date", "-u", "--date", text).Run() == nil {
			t.Errorf("date(1) reads %q", text)
		}
		if got, err := date(text, time.Now()); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}
