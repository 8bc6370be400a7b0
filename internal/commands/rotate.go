package commands

import (
	"context"

	"github.com/signerd/signerd/internal/sshfront"
	"github.com/signerd/signerd/internal/wire"
	"github.com/signerd/signerd/signer"
)

// rotate does a step of a rotation, or says where it stands.
func rotate(ctx context.Context, c *caller, command wire.Command, stdin sshfront.Stdin) (wire.Answer, error) {
	driver := c.desk.rotation
	var (
		step     = signer.Step(command.Step)
		supplied *signer.Generation
	)
	switch command.Step {
	case wire.StepStatus:
		return wire.Answer{Output: []byte(driver.Status(ctx))}, nil
	case wire.StepAuto:
		text, err := driver.Auto(ctx, c.asker())
		return lines(text), err
	case wire.StepPrepareFrom:
		body, err := stdin(ctx)
		if err != nil {
			return wire.Answer{}, err
		}
		if supplied, err = signer.SuppliedSuccessor(body, c.desk.now()); err != nil {
			return wire.Answer{}, err
		}
		step = signer.Prepare
	}
	text, err := driver.Do(ctx, step, supplied, c.asker())
	return lines(text), err
}

// lines is an answer of text.
func lines(text string) wire.Answer { return wire.Answer{Output: []byte(text + "\n")} }
