package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/signerd/signerd/internal/config"
)

func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../../doc/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The defaults of limits on the configuration's page are those in force.
func TestLimits(t *testing.T) {
	text := page(t, "signerd.yaml.5.md")
	d := reflect.ValueOf(config.DefaultLimits().Front)
	for i := range d.NumField() {
		if !d.Field(i).CanInt() {
			continue
		}
		row := fmt.Sprintf("\n| `%s` | %v |", d.Type().Field(i).Tag.Get("yaml"), d.Field(i).Interface())
		if row = strings.Replace(row, "m0s", "m", 1); !strings.Contains(text, row) {
			t.Errorf("the page lacks %q", row)
		}
	}
	if row := fmt.Sprintf("\n| `per_name_per_hour` | %d |", config.DefaultLimits().PerNamePerHour); !strings.Contains(text, row) {
		t.Errorf("the page lacks %q", row)
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
	for _, code := range []int{exitUsage, exitInput, exitUnreachable, exitBug, exitExists, exitRetry, exitDenied, exitConfig} {
		if !strings.Contains(text, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("the page lacks exit code %d", code)
		}
	}
}
