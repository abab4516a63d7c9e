package main

import (
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// bar is a row of the chart: how long ours takes in parts of what the genuine
// rbd takes.
type bar struct {
	title string
	ratio float64
}

const (
	barHeight  = 22
	labelWidth = 330
	unit       = 320 // pixels of the ratio 1
)

// The widest bar that is drawn; a longer one is cut, its number is not.
const widest = 1.5

// writeChart draws the ratios as bars, with a line where both are as fast.
func writeChart(name string, bars []bar) error {
	type line struct {
		Title, Colour string
		Y, Text       int
		Width         float64
		Ratio         float64
	}
	top := 34
	var lines []line
	for i, b := range bars {
		l := line{Title: strings.ReplaceAll(b.title, "`", ""), Y: top + i*barHeight, Width: unit * min(b.ratio, widest), Ratio: b.ratio, Colour: "#2f7d4f"}
		l.Text = l.Y + barHeight - 8
		if b.ratio > 1 {
			l.Colour = "#b5651d"
		}
		lines = append(lines, l)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".chart")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = chart.Execute(f, map[string]any{
		"Lines": lines, "Label": labelWidth, "One": labelWidth + unit, "Bar": barHeight - 6,
		"Width": labelWidth + int(unit*widest) + 60, "Height": top + len(bars)*barHeight + 10, "Bottom": top + len(bars)*barHeight,
	})
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

var chart = template.Must(template.New("chart").Funcs(template.FuncMap{
	"add":  func(a int, b float64) float64 { return float64(a) + b },
	"text": template.HTMLEscapeString,
}).Parse(`<svg xmlns="http://www.w3.org/2000/svg" width="{{.Width}}" height="{{.Height}}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="#ffffff"/>
<text x="{{.One}}" y="20" text-anchor="middle" fill="#444444">the genuine rbd</text>
{{- range .Lines}}
<text x="{{$.Label}}" y="{{.Text}}" dx="-8" text-anchor="end" fill="#222222">{{text .Title}}</text>
<rect x="{{$.Label}}" y="{{.Y}}" width="{{printf "%.0f" .Width}}" height="{{$.Bar}}" fill="{{.Colour}}"/>
<text x="{{printf "%.0f" (add $.Label .Width)}}" y="{{.Text}}" dx="5" fill="#222222">{{printf "%.2f" .Ratio}}</text>
{{- end}}
<line x1="{{.One}}" y1="26" x2="{{.One}}" y2="{{.Bottom}}" stroke="#444444" stroke-dasharray="4 3"/>
</svg>
`))
