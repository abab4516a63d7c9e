package cli

import (
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opt-rbd/opt-rbd/internal/errno"
)

// date reads a time as date(1) of GNU does with -u: a date, a time of day,
// words such as "tomorrow", and steps such as "2 days" or "1 week ago", in any
// order. The genuine tool starts that program; a payload has none.
//
// Months' names, weekdays and the time zones' names are not read.
func date(text string, now time.Time) (time.Time, error) {
	at := now.UTC()
	words := strings.Fields(strings.ToLower(text))
	invalid := func() (time.Time, error) {
		return at, errno.Errorf(syscall.EINVAL, "invalid date '%s': write it as 2030-12-31, 2030-12-31 18:00, tomorrow or \"2 weeks\"", text)
	}
	midnight := func(t time.Time) time.Time { return t.Truncate(24 * time.Hour) }
	for i := 0; i < len(words); i++ {
		word := words[i]
		if seconds, ok := strings.CutPrefix(word, "@"); ok {
			n, err := strconv.ParseInt(seconds, 10, 64)
			if err != nil || len(words) > 1 {
				return invalid()
			}
			return time.Unix(n, 0).UTC(), nil
		}
		switch word {
		case "now", "today", "utc", "z", "gmt":
			continue
		case "tomorrow":
			at = at.AddDate(0, 0, 1)
			continue
		case "yesterday":
			at = at.AddDate(0, 0, -1)
			continue
		case "next", "last":
			words[i] = map[string]string{"next": "1", "last": "-1"}[word]
			word = words[i]
		}
		if t, ok := readDay(word); ok {
			if strings.Contains(word, ":") {
				at = t
			} else if at = t; i+1 < len(words) {
				// A time of day may follow, with a zone behind it.
				clock, zone := words[i+1], "+0000"
				if i+2 < len(words) && len(words[i+2]) == 5 && strings.ContainsAny(words[i+2][:1], "+-") {
					zone = words[i+2]
				}
				if of, ok := readClock(clock, zone); ok {
					at = at.Add(of)
					i++
					if i+1 < len(words) && words[i+1] == zone {
						i++
					}
				}
			}
			continue
		}
		if of, ok := readClock(word, "+0000"); ok {
			at = midnight(at).Add(of)
			continue
		}
		// A number and a unit, in one word or two.
		digits := strings.TrimRight(word, "abcdefghijklmnopqrstuvwxyz")
		unit := word[len(digits):]
		n := 1
		if digits != "" {
			var err error
			if n, err = strconv.Atoi(digits); err != nil {
				return invalid()
			}
			if unit == "" && i+1 < len(words) {
				i++
				unit = words[i]
			}
		}
		if i+1 < len(words) && words[i+1] == "ago" {
			i++
			n = -n
		}
		switch strings.TrimSuffix(unit, "s") {
		case "sec", "second":
			at = at.Add(time.Duration(n) * time.Second)
		case "min", "minute":
			at = at.Add(time.Duration(n) * time.Minute)
		case "hour":
			at = at.Add(time.Duration(n) * time.Hour)
		case "day":
			at = at.AddDate(0, 0, n)
		case "week":
			at = at.AddDate(0, 0, 7*n)
		case "fortnight":
			at = at.AddDate(0, 0, 14*n)
		case "month":
			at = at.AddDate(0, n, 0)
		case "year":
			at = at.AddDate(n, 0, 0)
		default:
			return invalid()
		}
	}
	if len(words) == 0 {
		return midnight(at), nil
	}
	return at, nil
}

func readDay(word string) (time.Time, bool) {
	for _, layout := range []string{
		"2006-1-2", "20060102", "2006/1/2", "1/2/2006",
		"2006-1-2t15:04", "2006-1-2t15:04:05", "2006-1-2t15:04:05-07:00", "2006-1-2t15:04:05-0700", "2006-1-2t15:04:05z",
	} {
		if t, err := time.Parse(layout, word); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// readClock gives how long after midnight a time of day is.
func readClock(word, zone string) (time.Duration, bool) {
	for _, layout := range []string{"15:04 -0700", "15:04:05 -0700", "15:04z -0700", "15:04:05z -0700"} {
		if t, err := time.Parse(layout, word+" "+zone); err == nil {
			return t.Sub(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC)), true
		}
	}
	return 0, false
}
