package rotation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/signerd/signerd/internal/table"
	"github.com/signerd/signerd/signer"
)

// listed is how many blockers the status lists.
const listed = 50

// Status says where the rotation stands, what was seen of each member, what comes next
// and whom that waits for, as text for a person. Without etcd it says so.
func (d *Driver) Status(ctx context.Context) string {
	r := d.signer.Authority().Rotation()
	generations := r.Generations()
	var b strings.Builder
	fmt.Fprintf(&b, "rotation of %s: %s\n\n", d.signer.Cluster(), r.Phase)
	rows := table.New(&b, "ROLE", "CA", "VALID UNTIL", "FINGERPRINT")
	for _, g := range generations {
		rows.Row(string(g.Role), g.ID, g.Certificate.NotAfter.UTC().Format(time.RFC3339), g.Fingerprint())
	}
	_ = rows.Flush() // a strings.Builder takes everything
	b.WriteString("\n")
	ports, err := d.look(ctx, generations)
	if err != nil {
		fmt.Fprintf(&b, "members: %v\n", err)
	} else {
		rows = table.New(&b, "MEMBER", "PORT", "SERVES", "ACCEPTS")
		for _, p := range ports {
			rows.Row(p.member, p.address, p.serving(), p.accepting(generations))
		}
		_ = rows.Flush()
	}
	b.WriteString("\n")
	next(&b, r.Phase, d.blocked(needs(r.Phase.Next(), r.Old, r.Next, d.now()), ports), err)
	if r.Phase != signer.Resting {
		fmt.Fprintf(&b, "\na member that joins meanwhile: join --signer-ip=HOST%s\n", d.pins(generations))
	}
	return b.String()
}

// next says what comes next, and who is in the way.
func next(b *strings.Builder, phase signer.Phase, blockers []blocker, away error) {
	step := phase.Next()
	switch {
	case phase == signer.Resting:
		fmt.Fprintf(b, "next, when the CA is to be replaced: ssh signer@HOST rotate prepare\n")
		return
	case away != nil:
		fmt.Fprintf(b, "next: rotate %s, which needs etcd\n", step)
	case len(blockers) == 0:
		fmt.Fprintf(b, "next: ssh signer@HOST rotate %s\n", step)
	default:
		fmt.Fprintf(b, "next: rotate %s, which waits for\n", step)
		rows := table.New(b)
		for _, blocker := range blockers[:min(listed, len(blockers))] {
			rows.Row("  "+blocker.who, blocker.why, blocker.helps)
		}
		_ = rows.Flush()
		if rest := len(blockers) - listed; rest > 0 {
			fmt.Fprintf(b, "  and %d more\n", rest)
		}
	}
	switch phase {
	case signer.Prepared:
		fmt.Fprintf(b, "back: rotate abort\n")
	case signer.Activated:
		fmt.Fprintf(b, "back: rotate rollback\n")
	}
}

func (p port) serving() string {
	switch {
	case p.trouble != nil:
		return "?"
	case p.serves == "":
		return "another CA's"
	}
	return p.serves
}

func (p port) accepting(generations []*signer.Generation) string {
	if p.trouble != nil {
		return p.trouble.Error()
	}
	var ids []string
	for _, g := range generations {
		if p.admits[g.ID] {
			ids = append(ids, g.ID)
		}
	}
	if ids == nil {
		return "none"
	}
	return strings.Join(ids, " ")
}

// pins are the flags by which a join knows the CAs that it may be handed.
func (d *Driver) pins(generations []*signer.Generation) string {
	var flags strings.Builder
	for _, g := range generations {
		if g.Role != signer.Inactive {
			flags.WriteString(" --ca-fingerprint=" + g.Fingerprint())
		}
	}
	for _, c := range d.trust {
		flags.WriteString(" --ca-fingerprint=" + signer.Fingerprint(c))
	}
	return flags.String()
}
