package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// The configuration's page has an example that parses, and a row for each key.
func TestPage(t *testing.T) {
	data, err := os.ReadFile("../../doc/signerd.yaml.5.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	example, _, _ := strings.Cut(rest, "```")
	if _, err := Parse("/etc/signerd/signerd.yaml", []byte(example)); err != nil {
		t.Errorf("the example: %v", err)
	}
	for _, section := range []reflect.Type{reflect.TypeFor[file](), reflect.TypeFor[Limits](), reflect.TypeFor[Front]()} {
		for i := range section.NumField() {
			key := section.Field(i).Tag.Get("yaml")
			if key == ",inline" {
				continue
			}
			if !strings.Contains(string(data), "\n| `"+key+"` |") {
				t.Errorf("%s has no row", key)
			}
		}
	}
}
