package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/internal/member"
	"github.com/signerd/signerd/internal/unit"
)

// memberConfig is member.yaml, by which signerd sync asks the signer.
func (p *plan) memberConfig(signer, hostKey string) []byte {
	addresses := make([]string, len(p.Addresses))
	for i, a := range p.Addresses {
		addresses[i] = strconv.Quote(a.String())
	}
	return fmt.Appendf(nil, `# Written by first-boot %s; member.yaml(5) has the keys that are not here.
cluster: %s
name: %s
addresses: [%s]
signers:
  - address: %q
    host_key: %q
`, p.Command, p.Cluster, p.Name, strings.Join(addresses, ", "), signer, hostKey)
}

// keepValid lets signerd sync renew the member's certificate from now on, and
// pins the signer's host key for people who ask it from this machine.
func (b *boot) keepValid(ctx context.Context, signer, hostKey, knownHost string) error {
	text := b.plan.memberConfig(signer, hostKey)
	if _, err := config.ParseMember(config.DefaultMemberPath, text); err != nil {
		return err
	}
	known, err := os.ReadFile(knownHostsPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(known) > 0 && !bytes.HasSuffix(known, []byte("\n")) {
		known = append(known, '\n')
	}
	if !bytes.Contains(known, []byte(knownHost)) {
		if err := durable.Replace(knownHostsPath, append(known, knownHost...), 0o644); err != nil {
			return err
		}
	}
	if err := durable.Replace(config.DefaultMemberPath, text, 0o644); err != nil {
		return err
	}
	return errors.Join(unit.Enable(ctx, member.SyncTimer), unit.Start(ctx, member.SyncTimer))
}
