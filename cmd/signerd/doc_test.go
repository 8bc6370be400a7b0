package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/sshfront"
)

func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../../doc/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The defaults of limits on the configuration's page are those in force, and
// what is configured comes to be in force.
func TestLimits(t *testing.T) {
	text := page(t, "signerd.yaml.5.md")
	d := sshfront.DefaultLimits()
	for key, value := range map[string]any{
		"per_source_per_second": d.PerSourceRate, "login_grace": d.LoginGrace, "connection_life": "2m", "idle": d.Idle, "unused": d.Unused,
		"exec": d.Exec, "command": d.Command, "linger": d.Linger, "connections": d.Connections, "unauthenticated": d.Unauthenticated,
		"per_source": d.PerSource, "per_source_unauthenticated": d.PerSourceUnauth, "sessions": d.Sessions,
		"sessions_per_connection": d.SessionsInAll, "requests_per_session": d.RequestsInSession,
	} {
		if row := fmt.Sprintf("\n| `%s` | %v |", key, value); !strings.Contains(text, row) {
			t.Errorf("the page lacks %q", row)
		}
	}
	c, err := config.Parse("x.yaml", []byte(`cluster: a
listen: ":22"
host_key: a
authorized_keys: a
authority: a
ledger: a
etcd: [https://a:1]
limits: {connections: 7, idle: 3s}
`))
	if err != nil {
		t.Fatal(err)
	}
	l := (&setup{config: c}).limits()
	if l.Connections != 7 || l.Idle.String() != "3s" || l.Sessions != d.Sessions {
		t.Errorf("the limits are %+v", l)
	}
}

// Every command and flag is on the program's page.
func TestProgramPage(t *testing.T) {
	text := page(t, "signerd.8.md")
	for _, cmd := range allCommands(newRoot()) {
		if path := cmd.CommandPath(); cmd.HasParent() && !cmd.HasSubCommands() && !strings.Contains(text, "    "+path) {
			t.Errorf("the page lacks %q", path)
		}
	}
	for _, code := range []int{exitUsage, exitInput, exitBug, exitExists, exitRetry, exitConfig} {
		if !strings.Contains(text, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("the page lacks exit code %d", code)
		}
	}
}
