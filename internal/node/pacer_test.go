package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// in says when a restart that is asked for now may come: in how long.
func (p *pacer) in(t *testing.T, last time.Time) time.Duration {
	t.Helper()
	err := p.mayRestart(last)
	if err == nil {
		return 0
	}
	var later *postponed
	if !errors.As(err, &later) {
		t.Fatal(err)
	}
	return time.Until(later.until)
}

// TestJitterIsChosenOnce: asked again and again, the time stays; when it has come, the next restart gets another.
func TestJitterIsChosenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{jitter: time.Hour}
		chosen := map[time.Duration]bool{}
		for range 20 {
			first := p.in(t, time.Time{})
			if first < 0 || first >= time.Hour {
				t.Fatalf("a restart in %s, the longest is an hour", first)
			}
			chosen[first] = true
			time.Sleep(first / 2)
			if again, want := p.in(t, time.Time{}), first-first/2; again != want {
				t.Fatalf("asked again: in %s, not %s", again, want)
			}
			time.Sleep(first - first/2)
			if over := p.in(t, time.Time{}); over != 0 {
				t.Fatalf("the time has come, but: in %s", over)
			}
		}
		if len(chosen) < 15 {
			t.Errorf("20 restarts at %d different times", len(chosen))
		}
	})
}

func TestRestartInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{interval: 15 * time.Minute}
		if d := p.in(t, time.Time{}); d != 0 {
			t.Errorf("never restarted: in %s", d)
		}
		last := time.Now()
		time.Sleep(5 * time.Minute)
		if d := p.in(t, last); d != 10*time.Minute {
			t.Errorf("restarted 5 minutes ago: in %s", d)
		}
		time.Sleep(10 * time.Minute)
		if d := p.in(t, last); d != 0 {
			t.Errorf("restarted 15 minutes ago: in %s", d)
		}
		// Noted when the clock was wrong: nobody waits for years.
		if d := p.in(t, time.Now().Add(24*365*time.Hour)); d != 0 {
			t.Errorf("restarted in a year: in %s", d)
		}
	})
}

// TestLaterOfBoth: the interval does not shorten what chance has chosen, nor the other way round.
func TestLaterOfBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{jitter: time.Minute, interval: time.Hour}
		last := time.Now()
		if d := p.in(t, last); d != time.Hour {
			t.Errorf("just restarted: in %s", d)
		}
		time.Sleep(time.Hour)
		if d := p.in(t, last); d != 0 {
			t.Errorf("after both: in %s", d)
		}
		// Permission was given: chance chooses anew.
		if p.spread != (time.Time{}) {
			t.Error("the old time is kept")
		}
	})
}
