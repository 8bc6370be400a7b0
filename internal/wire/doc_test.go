package wire

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The protocol's page has what the code has.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../doc/signerd-protocol.7.md")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, status := range []Status{OK, BadName, BadRequest, Usage, Internal, Retry, Denied} {
		want = append(want, fmt.Sprintf("\n| %d | ", status))
	}
	for _, verb := range Questions {
		want = append(want, fmt.Sprintf("\n| `%s`", verb))
	}
	want = append(want, "\n| `release <name>` |", "\n| `remove etcd-<id>` |", fmt.Sprintf("at most %d bytes and no control", MaxCommand),
		fmt.Sprintf("at most %d KiB, exactly one", MaxRequest>>10), fmt.Sprintf("of at most %d bytes, that matches", MaxClientName),
		fmt.Sprintf("at most %d bytes in all", MaxMemberName))
	for _, text := range want {
		if !strings.Contains(string(page), text) {
			t.Errorf("the page lacks %q", text)
		}
	}
}
