package main

import "fmt"

// bar is a figure that signerd is held to. Less is better.
type bar struct {
	What    string  `json:"what"`
	Must    float64 `json:"must"`
	Aim     float64 `json:"aim"`
	Got     float64 `json:"measured"`
	Unit    string  `json:"unit"`
	AtLeast bool    `json:"at_least"` // more is better
}

// Verdict says which of the two are met.
func (b bar) Verdict() string {
	met := func(limit float64) bool {
		if b.AtLeast {
			return b.Got >= limit
		}
		return b.Got <= limit
	}
	switch {
	case !(b.Got > 0): // nor NaN
		return "not measured"
	case met(b.Aim):
		return "aim"
	case met(b.Must):
		return "must"
	}
	return "**missed**"
}

// Limit writes one of the two limits, or what was measured.
func (b bar) Limit(value float64) string {
	if b.Unit == "x" {
		return fmt.Sprintf("%.2fx", value)
	}
	return fmt.Sprintf("%.3g %s", value, b.Unit)
}

// bars holds the results to what was promised.
func (r *results) bars() []bar {
	cost := func(server, connection string, kex exchange) []float64 {
		if c := r.certificate(server, connection, kex); c != nil {
			return c.Rounds
		}
		return nil
	}
	against := func(connection, other string, kex exchange) float64 {
		return ratio(cost(onMemory, connection, kex), cost(other, connection, kex))
	}
	ssh := func(server string) *stock {
		for i := range r.Stock {
			if r.Stock[i].Server == server {
				return &r.Stock[i]
			}
		}
		return &stock{}
	}
	var still idle
	for _, i := range r.Idle {
		if i.Server == onMemory {
			still = i
		}
	}
	var begin start
	for _, s := range r.Start {
		if s.Server == onMemory {
			begin = s
		}
	}
	return []bar{
		{What: "CPU per certificate against bare, fresh connection, curve25519", Must: 1.15, Aim: 1.05, Got: against("fresh", bare, curve25519), Unit: "x"},
		{What: "the same, mlkem768x25519", Must: 1.15, Aim: 1.05, Got: against("fresh", bare, mlkem), Unit: "x"},
		{What: "CPU per certificate against bare, shared connection, curve25519", Must: 1.25, Aim: 1.10, Got: against("shared", bare, curve25519), Unit: "x"},
		{What: "the same, mlkem768x25519", Must: 1.25, Aim: 1.10, Got: against("shared", bare, mlkem), Unit: "x"},
		{What: "CPU advantage over sshd + bash + openssl, fresh", Must: 60, Aim: 75, Got: ratio(cost(script, "fresh", curve25519), cost(onMemory, "fresh", curve25519)), Unit: "x", AtLeast: true},
		{What: "CPU against step-ca: fresh against new TLS, mlkem768x25519", Must: 0.75, Aim: 0.66, Got: against("fresh", stepCA, mlkem), Unit: "x"},
		{What: "CPU against step-ca: shared against keep-alive, mlkem768x25519", Must: 0.35, Aim: 0.30, Got: against("shared", stepCA, mlkem), Unit: "x"},
		{What: "one certificate with stock ssh on loopback", Must: 20, Aim: 11, Got: ssh(onMemory).P50, Unit: "ms"},
		{What: "the same, faster than sshd + bash + openssl", Must: 10, Aim: 20, Got: ratio(ssh(script).Rounds, ssh(onMemory).Rounds), Unit: "x", AtLeast: true},
		{What: "idle RSS", Must: 12, Aim: 9, Got: still.RSS, Unit: "MB"},
		{What: "RSS per idle connection", Must: 60, Aim: 47, Got: still.PerConnection, Unit: "KB"},
		{What: "from start to accepting", Must: 20, Aim: 5, Got: begin.P50, Unit: "ms"},
	}
}
