package main

import (
	_ "embed"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

//go:embed page.md.tmpl
var pageText string

// writePage writes the page and the plot beside the results.
func (r *results) writePage(resultsPath string) error {
	base := strings.TrimSuffix(resultsPath, filepath.Ext(resultsPath))
	if err := r.writePlot(base + ".png"); err != nil {
		return err
	}
	text, err := r.page(filepath.Base(base))
	if err != nil {
		return err
	}
	return os.WriteFile(base+".md", []byte(text), 0o644)
}

// page writes the results for people; name is that of the files beside it.
func (r *results) page(name string) (string, error) {
	page, err := template.New("page").Parse(pageText)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = page.Execute(&text, map[string]any{"Results": r, "Name": name})
	return text.String(), err
}

// writePlot draws what a certificate costs, a dot for each server, on a
// logarithmic axis: they differ by two orders of magnitude.
func (r *results) writePlot(path string) error {
	p := plot.New()
	p.X.Label.Text = "CPU time per certificate, microseconds (curve25519, P-256 CA)"
	p.X.Scale = plot.LogScale{}
	p.X.Tick.Marker = plot.LogTicks{Prec: -1}
	p.X.Min, p.X.Max = 100, 100_000
	p.Add(plotter.NewGrid())
	var servers []string
	for i, connection := range []string{"fresh", "shared"} {
		var points plotter.XYs
		for _, c := range r.Certificates {
			if c.Connection != connection || c.Exchange != string(curve25519) {
				continue
			}
			at := slices.Index(servers, c.Server)
			if at < 0 {
				at = len(servers)
				servers = append(servers, c.Server)
			}
			points = append(points, plotter.XY{X: c.CPU, Y: -float64(at)})
		}
		dots, err := plotter.NewScatter(points)
		if err != nil {
			return err
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: plotutil.Color(i), Radius: vg.Points(4), Shape: draw.CircleGlyph{}}
		p.Add(dots)
		p.Legend.Add(connection+" connection", dots)
	}
	var names []plot.Tick
	for i, server := range servers {
		names = append(names, plot.Tick{Value: -float64(i), Label: server})
	}
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Min, p.Y.Max = 0.5-float64(len(servers)), 0.5
	p.Legend.Top = true
	return p.Save(18*vg.Centimeter, 8*vg.Centimeter, path)
}
