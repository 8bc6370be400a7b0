package unit

import (
	"testing"
)

// What systemctl show prints (systemd 252) is understood.
func TestParse(t *testing.T) {
	const program = "ExecStart={ path=/usr/bin/etcd ; argv[]=/usr/bin/etcd $DAEMON_ARGS ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
	for what, test := range map[string]struct {
		out  string
		want State
		up   bool
	}{
		"a unit that runs": {
			"LoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\n" + program,
			State{Load: "loaded", Active: "active", Sub: "running", Enabled: true, Program: "/usr/bin/etcd"}, true,
		},
		"one whose start is queued": {
			"Job=72\nLoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=disabled\n" + program,
			State{Load: "loaded", Active: "inactive", Sub: "dead", Program: "/usr/bin/etcd", job: true}, true,
		},
		"one that failed": {
			"LoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled-runtime\n",
			State{Load: "loaded", Active: "failed", Sub: "failed"}, false,
		},
		"none":   {"LoadState=not-found\nActiveState=inactive\nSubState=dead\nUnitFileState=\n", State{Load: "not-found", Active: "inactive", Sub: "dead"}, false},
		"masked": {"LoadState=masked\nActiveState=inactive\nSubState=dead\nUnitFileState=masked\n", State{Load: "masked", Active: "inactive", Sub: "dead"}, false},
	} {
		got := parse(test.out)
		if got != test.want || got.Up() != test.up || got.Known() != (test.want.Load == "loaded") {
			t.Errorf("%s is %+v, up %v; want %+v, %v", what, got, got.Up(), test.want, test.up)
		}
	}
}
