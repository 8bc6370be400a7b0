package unit

import "testing"

// FuzzParse: whatever systemctl prints is a state, and one that is up is in a state of
// systemd's.
func FuzzParse(f *testing.F) {
	f.Add("LoadState=loaded\nActiveState=active\nSubState=running\nExecStart={ path=/usr/bin/etcd ; argv[]=etcd }\nUnitFileState=enabled\nJob=12\nNRestarts=3\nInvocationID=ab\n")
	f.Add("ActiveState")
	f.Add("NRestarts=-\nJob=0\nExecStart=path= ;")
	f.Fuzz(func(t *testing.T, out string) {
		if s := parse(out); s.Up() && s.Active == "" && !s.job {
			t.Fatalf("%q is %+v", out, s)
		}
	})
}
