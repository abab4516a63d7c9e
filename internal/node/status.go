package node

import (
	"context"
	"fmt"
	"io"
)

// A Status is what is installed on a node and how it fares. As JSON it is
// what `installer status --format json` writes: names once given keep their
// meaning, new ones may come.
type Status struct {
	OK        bool     `json:"ok"`        // all is as it should be
	Installed bool     `json:"installed"` // there is a record of an installation
	Complete  bool     `json:"complete"`  // the last run of the installer came to its end
	Prefix    string   `json:"prefix"`    // folder that has bin/rbd
	Unit      string   `json:"kubelet_unit,omitempty"`
	Release   *release `json:"release,omitempty"`  // current
	Previous  *release `json:"previous,omitempty"` // what rollback goes back to
	Facts     []Fact   `json:"facts"`              // in the order in which they were made so
}

// A Fact is one thing about a node.
type Fact struct {
	Name   string `json:"name"`   // path of a file, else what it is about
	State  string `json:"state"`  // ok, missing or changed
	Detail string `json:"detail"` // what is there or what is wrong with it, for a person
}

// Status looks at all that was installed. It needs neither payload nor
// launcher at hand, and changes nothing.
func (n *Node) Status(ctx context.Context) (*Status, error) {
	s := &Status{Prefix: n.Prefix, Facts: []Fact{}}
	if n.record == nil {
		lost, err := lostRecord(n.tree, n.Prefix)
		if lost {
			s.Facts = append(s.Facts, Fact{recordPath(n.Prefix), "missing", "lost, install writes it again"})
		}
		return s, err
	}
	s.Installed, s.Complete, s.Unit = true, n.record.Complete, n.record.Unit
	s.Release, s.Previous = &n.record.Release, n.record.Previous
	s.OK = s.Complete
	files, live, err := n.facts()
	if err != nil {
		return nil, err
	}
	for _, f := range append(files, live...) {
		st, err := f.check(ctx, n)
		if err != nil {
			return nil, err
		}
		s.OK = s.OK && st.ok
		s.Facts = append(s.Facts, Fact{f.name(), st.word, st.why})
	}
	return s, nil
}

// Text writes a status for a person, a line per fact.
func (s *Status) Text(w io.Writer) error {
	if !s.Installed && len(s.Facts) == 0 {
		_, err := fmt.Fprintf(w, "missing  nothing is installed in %s\n", s.Prefix)
		return err
	}
	facts := s.Facts
	if s.Installed && !s.Complete {
		unfinished := Fact{"the installation is not finished", "changed", "run install again, or uninstall to take it back"}
		facts = append([]Fact{unfinished}, facts...)
	}
	for _, f := range facts {
		line := f.Name
		if f.Detail != "" {
			line += ": " + f.Detail
		}
		if _, err := fmt.Fprintf(w, "%-8s %s\n", f.State, line); err != nil {
			return err
		}
	}
	return nil
}
