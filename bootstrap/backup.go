package bootstrap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/signerd/signerd/internal/backup"
	"github.com/signerd/signerd/internal/config"
	"github.com/signerd/signerd/internal/durable"
	"github.com/signerd/signerd/signer"
)

// NoBackup as the one recipient says that init is to make no backup, and to ask nobody.
const NoBackup = "none"

// BackupPath is where init puts the backup of a cluster's signer.
func BackupPath(cluster string) string { return "/root/signerd-" + cluster + ".age" }

// canonicalRecipients gives recipients without what does not matter: an SSH key's comment.
func canonicalRecipients(texts []string) []string {
	if slices.Equal(texts, []string{NoBackup}) {
		return nil
	}
	var all []string
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if words := strings.Fields(text); strings.HasPrefix(text, "ssh-") && len(words) > 2 && !strings.Contains(text, "\n") {
			text = words[0] + " " + words[1]
		}
		all = append(all, text)
	}
	return all
}

// recipientsText gives canonical recipients as a person compares them.
func recipientsText(canonical []string) string {
	return cmp.Or(strings.Join(canonical, ", "), NoBackup)
}

// sameRecipients gives what is said of recipients now and what was begun, as same wants
// it. What cannot be a recipient is a problem that does not repeat it.
func (b *boot) sameRecipients(p *preflight, said []string) [3]string {
	option := [3]string{"--backup-recipient", "", recipientsText(b.plan.BackupRecipients)}
	if len(said) == 0 {
		return option
	}
	canonical := canonicalRecipients(said)
	if len(canonical) > 0 {
		if _, err := backup.ParseRecipients(canonical); err != nil {
			p.misused("--backup-recipient: %w", err)
			return option
		}
	}
	option[1] = recipientsText(canonical)
	return option
}

// planBackup decides who can open a backup of the signer. Who is asked and goes away has
// ended the run.
func (b *boot) planBackup(ctx context.Context, p *preflight, o InitOptions) error {
	said := o.BackupRecipients
	if len(said) == 0 && o.Ask != nil && !o.DryRun && p.verdict() == nil { // or somebody would be asked in vain
		answer, err := o.Ask(ctx)
		if err != nil {
			return fmt.Errorf("%w: asking who can open the backup: %w", ErrPreflight, err)
		}
		if answer != "" {
			said = []string{answer}
		}
	}
	b.plan.BackupRecipients = canonicalRecipients(said)
	if len(b.plan.BackupRecipients) == 0 {
		return nil
	}
	if _, err := backup.ParseRecipients(b.plan.BackupRecipients); err != nil {
		p.misused("--backup-recipient: %w", err)
	}
	p.absent(BackupPath(b.plan.Cluster), "it is where the backup is to be; move it away")
	return nil
}

// backUp saves the signer as it is now, for the recipients.
func (b *boot) backUp(context.Context) (string, error) {
	recipients, err := backup.ParseRecipients(b.plan.BackupRecipients)
	if err != nil {
		return "", err
	}
	c, err := config.Load(configPath)
	if err != nil {
		return "", err
	}
	authority, err := signer.LoadAuthority(c.Authority, b.now())
	if err != nil {
		return "", err
	}
	path := BackupPath(b.plan.Cluster)
	// One that is there is of an earlier run, which could not say so.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := durable.Sweep(path); err != nil {
		return "", err
	}
	return path, backup.Source{Path: configPath, Config: c, Authority: authority}.Save(path, recipients, b.now())
}
