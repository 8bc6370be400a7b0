// Package renewal tests on real hosts that nothing expires: certificates live for
// two minutes, and the timer of signerd sync runs every few seconds.
package renewal

import (
	"os"
	"testing"

	"github.com/signerd/signerd/integration/fleet"
)

// long runs the large counts of make long.
var long = os.Getenv("SIGNERD_LONG") != ""

func TestMain(m *testing.M) {
	os.Exit(fleet.Main(m, "grpcnotrace crashpoints impatient shortlives"))
}

// world is what all tests share.
type world struct{ *fleet.World }

// cluster boots three members, of which h1 signs.
func cluster(t *testing.T) *world {
	t.Helper()
	w := &world{fleet.Here(t)}
	w.Cluster(t)
	return w
}
