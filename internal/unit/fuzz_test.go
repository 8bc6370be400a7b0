package unit

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzParse: what systemctl prints of a unit is what the state has, whatever stands around
// it.
func FuzzParse(f *testing.F) {
	f.Add("loaded", "active", "running", "/usr/bin/etcd", "ab", 3)
	f.Add("", "=", " ; ", "path=", "\r", -1)
	f.Fuzz(func(t *testing.T, load, active, sub, program, run string, retries int) {
		for _, value := range []string{load, active, sub, program, run} {
			if strings.Contains(value, "\n") || strings.Contains(program, " ;") {
				return // systemctl escapes it
			}
		}
		s := parse(fmt.Sprintf("Other=x\nLoadState=%s\nActiveState=%s\nSubState=%s\nExecStart={ path=%s ; argv[]=x }\nNRestarts=%d\nInvocationID=%s\nJob=0\n", load, active, sub, program, retries, run))
		if s.Load != load || s.Active != active || s.Sub != sub || s.Program != program || s.Retries != retries || s.Run != run || s.job || s.Enabled {
			t.Fatalf("%+v", s)
		}
	})
}
