package signerd

import (
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/signerd/signerd/"

// picture is every import between packages of this module, outside tests.
// ARCHITECTURE.md draws it: arrows point down, and none stays within a line.
var picture = map[string][]string{
	"cmd/signerd": {
		"internal/authkeys", "internal/backup", "internal/commands", "internal/config", "internal/durable", "internal/member", "internal/metrics",
		"internal/problems", "internal/report", "internal/rotation", "internal/sshclient", "internal/sshfront", "internal/table", "internal/unit", "internal/version",
		"internal/wire", "peers", "renew", "signer",
	},
	"cmd/first-boot": {"bootstrap", "internal/problems", "internal/version"},
	"bootstrap": {
		"internal/authkeys", "internal/backup", "internal/config", "internal/crashpoint", "internal/durable", "internal/member",
		"internal/sshclient", "internal/unit", "internal/wire", "peers", "signer",
	},
	"renew": {
		"internal/config", "internal/crashpoint", "internal/durable", "internal/member", "internal/sshclient", "internal/unit",
		"internal/wire", "peers", "signer",
	},
	"internal/commands":   {"internal/authkeys", "internal/rotation", "internal/sshfront", "internal/wire", "peers", "signer"},
	"internal/rotation":   {"internal/table", "internal/wire", "peers", "signer"},
	"internal/report":     {"internal/config", "internal/member", "internal/problems", "internal/rotation", "internal/unit", "peers", "signer"},
	"internal/backup":     {"internal/config", "internal/durable", "signer"},
	"internal/member":     {"internal/config", "internal/durable", "internal/wire", "peers", "signer"},
	"internal/metrics":    {"internal/version", "internal/wire"},
	"signer":              {"internal/crashpoint", "internal/durable", "internal/wire"},
	"peers":               {"internal/wire"},
	"internal/sshfront":   {"internal/durable", "internal/wire"},
	"internal/authkeys":   {"internal/durable", "internal/wire"},
	"internal/config":     {"internal/wire"},
	"internal/sshclient":  {"internal/durable", "internal/wire"},
	"internal/unit":       {"internal/durable"},
	"internal/wire":       {},
	"internal/durable":    {},
	"internal/crashpoint": {},
	"internal/need":       {},
	"internal/problems":   {},
	"internal/table":      {},
	"internal/version":    {},
}

// single are libraries that one package alone may import, or few, by the
// beginning of their path.
var single = map[string]string{
	"github.com/gliderlabs/ssh":          "internal/sshfront",
	"go.etcd.io/etcd/":                   "peers",
	"google.golang.org/grpc":             "peers",
	"github.com/google/renameio":         "internal/durable",
	"go.yaml.in/yaml":                    "internal/config",
	"github.com/spf13/cobra":             "cmd/signerd cmd/first-boot",
	"github.com/hashicorp/golang-lru":    "internal/sshfront",
	"github.com/coreos/go-systemd":       "cmd/signerd",
	"github.com/prometheus":              "internal/metrics",
	"filippo.io/age":                     "internal/backup",
	"golang.org/x/time":                  "internal/sshfront",
	"golang.org/x/crypto/ssh/agent":      "",
	"golang.org/x/crypto/ssh/terminal":   "",
	"golang.org/x/crypto/ssh/knownhosts": "internal/sshclient",
}

// A package's imports are those that the picture shows.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, ours := strings.CutPrefix(words[0], module)
		if !ours {
			continue // this test's own package
		}
		found[name] = []string{}
		for _, path := range words[1:] {
			if local, ok := strings.CutPrefix(path, module); ok {
				found[name] = append(found[name], local)
			}
			for library, only := range single {
				if strings.HasPrefix(path, library) && !slices.Contains(strings.Fields(only), name) {
					t.Errorf("%s imports %s, which only %q may", name, path, only)
				}
			}
		}
		slices.Sort(found[name])
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		want, drawn := picture[name]
		if !drawn {
			t.Errorf("package %s is not in the picture; draw it here and in ARCHITECTURE.md", name)
		} else if !slices.Equal(found[name], slices.Sorted(slices.Values(want))) {
			t.Errorf("%s imports %v, the picture shows %v", name, found[name], want)
		}
	}
	for name := range picture {
		if _, there := found[name]; !there {
			t.Errorf("the picture shows %s, which is not there", name)
		}
	}
}

// The signer decides by what it is told: it reads no clock, and knows neither
// log nor network.
func TestSignerIsPure(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{join .Imports "\n"}}`, "./signer").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"log", "log/slog", "github.com/rs/zerolog", "golang.org/x/crypto/ssh", "net/http"} {
		if slices.Contains(strings.Fields(string(out)), banned) {
			t.Errorf("signer imports %s", banned)
		}
	}
	if out, err := exec.Command("grep", "-rnE", `time\.(Now|Since|After|Tick)\(`, "signer", "--include=*.go", "--exclude=*_test.go").Output(); err == nil {
		t.Errorf("signer reads the clock:\n%s", out)
	}
}

// ARCHITECTURE.md names every package of the picture and every library.
func TestArchitecturePage(t *testing.T) {
	data, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	line := map[string]int{}
	number := 0
	for text := range strings.Lines(page) {
		number++
		if drawn, ok := strings.CutPrefix(text, "    "); ok {
			names, _, _ := strings.Cut(drawn, "   ") // what a line is about follows
			for name := range strings.FieldsSeq(names) {
				line[name] = number
			}
		}
	}
	for name, imports := range picture {
		if line[name] == 0 {
			t.Errorf("package %s is not drawn", name)
		}
		for _, below := range imports {
			if line[below] <= line[name] {
				t.Errorf("the arrow from %s to %s does not point down", name, below)
			}
		}
	}
	out, err := exec.Command("go", "list", "-m", "-f", `{{if not (or .Indirect .Main)}}{{.Path}}{{end}}`, "all").Output()
	if err != nil {
		t.Fatal(err)
	}
	withEtcd := []string{"google.golang.org/grpc", "go.uber.org/zap", "go.etcd.io/etcd/api/v3"}
	for _, path := range strings.Fields(string(out)) {
		short := strings.TrimPrefix(path, "github.com/")
		if !strings.Contains(page, short) && !slices.Contains(withEtcd, path) {
			t.Errorf("library %s has no reason", path)
		}
	}
}
