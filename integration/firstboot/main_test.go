// Package firstboot tests first-boot and the packages on real hosts: systemd,
// the stock ssh, power cuts.
package firstboot

import (
	"os"
	"testing"

	"github.com/signerd/signerd/integration/fleet"
)

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

const cluster = fleet.Cluster

// world is what all tests share.
type world struct{ *fleet.World }

func TestMain(m *testing.M) { os.Exit(fleet.Main(m, "grpcnotrace crashpoints impatient")) }

// here gives the world, or skips where hosts cannot be run.
func here(t *testing.T) *world {
	t.Helper()
	return &world{fleet.Here(t)}
}
