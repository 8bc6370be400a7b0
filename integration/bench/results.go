package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"time"
)

// results is doc/performance.json. Ratios are medians of what each round gave
// by itself.
type results struct {
	Machine      machine       `json:"machine"`
	Certificates []certificate `json:"certificates"`
	Stock        []stock       `json:"stock_ssh"`
	Idle         []idle        `json:"idle"`
	Start        []start       `json:"start"`
	Ledgers      []ledgerCost  `json:"ledgers"`
	Bars         []bar         `json:"bars"`
}

type machine struct {
	Date   string `json:"date"`
	Go     string `json:"go"`
	CPU    string `json:"cpu"`
	Commit string `json:"commit"`
	Rounds int    `json:"rounds"`
}

// certificate is what certificates cost on one server.
type certificate struct {
	Server     string  `json:"server"`
	Connection string  `json:"connection"` // fresh or shared
	Exchange   string  `json:"key_exchange"`
	Count      int     `json:"count"`
	CPU        float64 `json:"cpu_us"`
	PerSecond  float64 `json:"per_second"`
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	Peak       float64 `json:"peak_rss_mb"`

	Rounds []float64 `json:"cpu_us_rounds"` // of each round, for ratios
}

// stock is one certificate with the ssh command, at rest.
type stock struct {
	Server string  `json:"server"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`

	Rounds []float64 `json:"ms_rounds"`
}

// idle is a server that has nothing to do.
type idle struct {
	Server        string  `json:"server"`
	RSS           float64 `json:"rss_mb"`
	Connections   int     `json:"connections"`
	PerConnection float64 `json:"kb_per_connection"`
}

// start is from the program's start to its first byte for a client, or for the
// HTTPS servers to an accepted connection.
type start struct {
	Server string  `json:"server"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
}

// ledgerCost is signerd with a past.
type ledgerCost struct {
	Lines  int     `json:"lines"`
	Bytes  int64   `json:"bytes"`
	Start  float64 `json:"start_ms"`
	RSS    float64 `json:"rss_mb"`
	Fresh  float64 `json:"fresh_cpu_us"`
	Shared float64 `json:"shared_cpu_us"`
}

// MB gives the ledger's size.
func (l ledgerCost) MB() float64 { return mb(l.Bytes) }

func (r *results) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// certificate finds a measurement; nil if it was not made.
func (r *results) certificate(server, connection string, kex exchange) *certificate {
	for i := range r.Certificates {
		if c := &r.Certificates[i]; c.Server == server && c.Connection == connection && c.Exchange == string(kex) {
			return c
		}
	}
	return nil
}

// Against compares two servers, for the page.
func (r *results) Against(server, other, connection string) string {
	a, b := r.certificate(server, connection, curve25519), r.certificate(other, connection, curve25519)
	if a == nil || b == nil {
		return "(not measured)"
	}
	return fmt.Sprintf("%.2fx", ratio(a.Rounds, b.Rounds))
}

// median of values; NaN of none.
func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// ratio of two series, round by round.
func ratio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	return median(ratios)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
func mb(bytes int64) float64     { return float64(bytes) / (1 << 20) }
